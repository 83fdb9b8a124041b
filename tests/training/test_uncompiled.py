"""Torch's optimizers do the same without the compiler, and a training leaves it alone."""

import copy
import subprocess
import sys

import pytest
import torch

from fairtrial.training.uncompiled import uncompiled

KINDS = [
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ASGD",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
]


def descend(kind, steps, state=None):
    """Take steps on two weights whose gradients differ from step to step; returns the weights and the state."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.nn.Parameter(torch.rand(shape, generator=generator)) for shape in ((3, 2), (4,))]
    optimizer = kind(weights, lr=0.01)
    if state is not None:
        optimizer.load_state_dict(copy.deepcopy(state))
    for _ in range(steps):
        optimizer.zero_grad()
        sum((weight * torch.rand(weight.shape, generator=generator)).square().sum() for weight in weights).backward()
        optimizer.step()
    return weights, optimizer.state_dict()


@pytest.mark.parametrize("name", KINDS)
def test_the_weights_and_the_state_are_torchs_to_the_bit(name):
    kind = getattr(torch.optim, name)
    weights, state = descend(uncompiled(kind), 5)
    expected_weights, expected_state = descend(kind, 5)
    torch.testing.assert_close(weights, expected_weights, rtol=0, atol=0)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=0)


def test_a_state_goes_from_one_to_the_other():
    _, state = descend(torch.optim.Adam, 5)
    torch.testing.assert_close(
        descend(uncompiled(torch.optim.Adam), 3, state), descend(torch.optim.Adam, 3, state), rtol=0, atol=0
    )


def test_a_closure_can_compute_gradients():
    def minimum(kind):
        weight = torch.nn.Parameter(torch.tensor([2.0, -3.0]))
        optimizer = kind([weight], lr=0.5)

        def closure():
            optimizer.zero_grad()
            loss = (weight - 1).square().sum()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        return weight

    found = minimum(uncompiled(torch.optim.LBFGS))
    torch.testing.assert_close(found, minimum(torch.optim.LBFGS), rtol=0, atol=0)
    torch.testing.assert_close(found.detach(), torch.ones(2), rtol=0, atol=1e-3)


def test_hooks_and_schedulers_see_each_step():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = uncompiled(torch.optim.SGD)([weight], lr=1.0)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    weight.grad = torch.ones(3)
    optimizer.step()
    schedule.step()
    assert seen == ["before", "after"]
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_the_class_is_one_of_torchs_and_torchs_stays_as_it_was():
    before = torch.optim.Adam.step, torch.optim.Adam.zero_grad
    optimizer = uncompiled(torch.optim.Adam)([torch.nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    assert type(optimizer).__name__ == "Adam"
    assert (torch.optim.Adam.step, torch.optim.Adam.zero_grad) == before


TRAINING = """
import sys
import fairtrial
from fairtrial.scheduler import plan
from fairtrial.training import loop
from fairtrial.trial import TrialContext
sizes = ["data.name=digits", "data.train=128", "data.test=64", "training.epochs=1", "training.ema=0.9", *sys.argv[1:]]
assert list(loop.train(TrialContext(plan(fairtrial.load("quick", sizes))[0])))
print(*sorted({"torch._dynamo", "sympy"} & set(sys.modules)))
"""


@pytest.mark.parametrize("more", [(), ("model.stem=cifar", "schedule.name=onecycle")])
def test_a_training_loads_neither_the_compiler_nor_what_it_needs(more):
    done = subprocess.run([sys.executable, "-c", TRAINING, *more], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
