"""RMSprop against a float64 NumPy reading of its formula."""

import numpy as np
import pytest

from fairtrial.training.optimizers.rmsprop import RMSprop
from trajectories import descend, gradients


@pytest.mark.parametrize(
    ("momentum", "centered", "weight_decay"),
    [(0.0, False, 0.0), (0.9, False, 0.01), (0.0, True, 0.0), (0.5, True, 0.1)],
)
def test_it_is_its_formula(momentum, centered, weight_decay):
    grads = gradients()
    theta, square, mean, velocity = np.ones((7, 5)), *np.zeros((3, 7, 5))
    for g in grads:
        decayed = g + weight_decay * theta
        square = 0.95 * square + 0.05 * decayed**2
        mean = 0.95 * mean + 0.05 * decayed
        root = np.sqrt(square - mean**2) if centered else np.sqrt(square)
        velocity = momentum * velocity + decayed / (root + 1e-6)
        theta = theta - 1e-3 * velocity
    settings = RMSprop(lr=1e-3, alpha=0.95, eps=1e-6, momentum=momentum, centered=centered, weight_decay=weight_decay)
    np.testing.assert_allclose(descend(settings, grads), theta, rtol=1e-9)


def test_the_defaults_are_torchs():
    import torch

    theirs = torch.optim.RMSprop([torch.nn.Parameter(torch.ones(1))]).defaults
    ours = RMSprop().model_dump(exclude={"name"})
    assert {key: theirs[key] for key in ours} == ours
