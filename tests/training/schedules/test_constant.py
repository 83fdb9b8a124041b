"""The constant schedule against its closed form."""

import numpy as np

from fairtrial.training.schedules.constant import Constant
from trajectories import rates


def test_a_constant_schedule_is_constant():
    np.testing.assert_array_equal(rates(Constant()), 2.0)


def test_warm_up_rises_to_the_full_rate():
    np.testing.assert_allclose(rates(Constant(warmup_epochs=1.5))[:8] / 2, [1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1, 1])


def test_a_warm_up_per_epoch_has_one_rate_for_each_epoch():
    seen = rates(Constant(warmup_epochs=4, per="epoch"))
    np.testing.assert_allclose(seen / 2, np.repeat([1 / 4, 2 / 4, 3 / 4, 1, 1], 4))
