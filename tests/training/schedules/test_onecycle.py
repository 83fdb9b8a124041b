"""The one-cycle schedule against torch's own, step by step."""

import numpy as np
import pytest
import torch

from fairtrial.errors import StudyError
from fairtrial.spec import Study
from fairtrial.training.schedules.onecycle import OneCycle
from trajectories import rates, torch_rates

CASES = [
    {},
    {"anneal_strategy": "linear"},
    {"pct_start": 0.55, "div_factor": 10.0, "final_div_factor": 100.0},
    {"pct_start": 0.01},
    {"pct_start": 0.0},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("per", "total"), [("step", 20), ("epoch", 5)])
def test_one_cycle_is_torchs(case, per, total):
    expected = torch_rates(
        torch.optim.lr_scheduler.OneCycleLR, per=per, max_lr=2.0, total_steps=total, cycle_momentum=False, **case
    )
    np.testing.assert_allclose(rates(OneCycle(per=per, **case)), expected, rtol=1e-12, atol=1e-15)


def test_the_peak_is_the_optimizers_rate_and_the_ends_are_torchs_defaults():
    seen = rates(OneCycle(), steps_per_epoch=10, epochs=10)
    assert seen[29] == 2.0 == seen.max()
    np.testing.assert_allclose([seen[0], seen[-1]], [2.0 / 25, 2.0 / 25 / 1e4])


def test_a_second_warm_up_is_refused():
    with pytest.raises(StudyError) as caught:
        Study(name="s", reference="a", schedule={"name": "onecycle", "warmup_epochs": 1.0}, arms={"a": {}})
    assert str(caught.value) == "schedule: onecycle has a warm-up of its own: set pct_start, not warmup_epochs"
