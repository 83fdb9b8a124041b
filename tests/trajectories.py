"""Optimizers and schedules taken over many steps, to be held against formulas."""

import numpy as np
import torch

from fairtrial.training.optimizers.sgd import SGD
from fairtrial.training.rates import build_schedule

STEPS = 60


def gradients(seed=0, shape=(7, 5)):
    """Gradients over many orders of magnitude, so that epsilon matters in some entries and not in others."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) * 10.0 ** rng.uniform(-9, 1, size=shape) for _ in range(STEPS)]


def descend(settings, grads, dtype=torch.float64):
    """Where an optimizer ends that starts at ones."""
    parameter = torch.nn.Parameter(torch.ones(grads[0].shape, dtype=dtype))
    optimizer = settings.build([parameter])
    for grad in grads:
        parameter.grad = torch.tensor(grad, dtype=dtype)
        optimizer.step()
    return parameter.detach().numpy()


def rates(settings, steps_per_epoch=4, epochs=5):
    """The learning rate of each step where the optimizer's own is 2."""
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = SGD(lr=2.0).build([parameter])
    schedule = build_schedule(settings, optimizer, steps_per_epoch=steps_per_epoch, epochs=epochs)
    seen = []
    for _ in range(steps_per_epoch * epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return np.array(seen)


def torch_rates(scheduler, per="epoch", steps_per_epoch=4, epochs=5, **arguments):
    """The same of one of torch's own schedulers, stepped after each epoch or step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = scheduler(optimizer, **arguments)
    seen = []
    for step in range(1, steps_per_epoch * epochs + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (per == "step" or step % steps_per_epoch == 0) and step < steps_per_epoch * epochs:
            schedule.step()
    return np.array(seen)
