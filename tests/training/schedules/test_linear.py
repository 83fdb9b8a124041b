"""The linear schedule against its closed form."""

import numpy as np

from fairtrial.training.schedules.linear import Linear
from trajectories import rates


def test_linear_after_warm_up_is_a_line():
    seen = rates(Linear(warmup_epochs=1))
    np.testing.assert_allclose(seen[:4], [0.5, 1.0, 1.5, 2.0])
    np.testing.assert_allclose(seen[4:], 2 * (1 - np.arange(16) / 16))
