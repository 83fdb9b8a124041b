"""The step schedule against its closed form."""

import numpy as np

from fairtrial.training.schedules.step import Step
from trajectories import rates


def test_steps_drop_at_the_start_of_the_epoch_after_each_milestone():
    seen = rates(Step(milestones=(1, 3), factor=0.1))
    np.testing.assert_allclose(seen, [2.0] * 4 + [0.2] * 8 + [0.02] * 8)
