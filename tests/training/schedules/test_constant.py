"""The constant schedule against its closed form."""

import numpy as np

from fairtrial.training.schedules.constant import Constant
from trajectories import rates


def test_a_constant_schedule_is_constant():
    np.testing.assert_array_equal(rates(Constant()), 2.0)


def test_warm_up_rises_to_the_full_rate():
    np.testing.assert_allclose(rates(Constant(warmup_epochs=1.5))[:8] / 2, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])
