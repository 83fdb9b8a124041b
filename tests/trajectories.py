"""Optimizers and schedules taken over many steps, to be held against formulas."""

import numpy as np
import torch

from fairtrial.training.learner import build_schedule
from fairtrial.training.optimizers.sgd import SGD

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
