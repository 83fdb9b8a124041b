"""The stepped schedules against their closed form and torch's own."""

import numpy as np
import pytest
import torch

from fairtrial.errors import StudyError
from fairtrial.spec import Study
from fairtrial.training.schedules.step import MultiStep, Step
from trajectories import rates, torch_rates


@pytest.mark.parametrize("kind", [Step, MultiStep])
def test_steps_drop_at_the_start_of_the_epoch_after_each_milestone(kind):
    seen = rates(kind(milestones=(1, 3), factor=0.1))
    np.testing.assert_allclose(seen, [2.0] * 4 + [0.2] * 8 + [0.02] * 8)


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_steps_are_torchs(per):
    expected = torch_rates(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.3)
    np.testing.assert_allclose(rates(Step(step_size=2, factor=0.3, per=per)), expected, rtol=1e-14)
    expected = torch_rates(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 4], gamma=0.3)
    np.testing.assert_allclose(rates(MultiStep(milestones=(1, 4), factor=0.3, per=per)), expected, rtol=1e-14)


@pytest.mark.parametrize("more", [{}, {"milestones": [2], "step_size": 3}])
def test_a_step_has_a_size_or_milestones(more):
    with pytest.raises(StudyError, match="step needs step_size or milestones, and not both"):
        Study(name="s", reference="a", schedule={"name": "step", **more}, arms={"a": {}})


def test_a_step_at_milestones_has_the_hash_that_it_always_had():
    study = Study(name="s", reference="a", schedule={"name": "step", "milestones": [5, 8]}, arms={"a": {}})
    assert study.label == "s@8d978a09"
