"""Schedules by path: torch's others, functions of the user's own, and what is refused."""

import sys

import numpy as np
import pytest
import torch

from fairtrial.errors import StudyError
from fairtrial.explain import explain
from fairtrial.registry import SCHEDULES
from fairtrial.spec import Study
from fairtrial.training import prepare
from trajectories import rates, torch_rates

WARM_RESTARTS = "torch.optim.lr_scheduler:CosineAnnealingWarmRestarts"
USERS = """
import torch

def halves(optimizer, every: int = 3):
    return torch.optim.lr_scheduler.StepLR(optimizer, every, 0.5)

def warmed(optimizer, warmup_epochs: float = 2.0):
    return torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=int(warmup_epochs))

def nothing(optimizer):
    return None

def no_arguments():
    return None

class Other:
    pass
"""


def study(**schedule):
    return Study(name="s", reference="a", schedule=schedule, arms={"a": {}})


@pytest.fixture
def users_module(tmp_path, monkeypatch):
    (tmp_path / "my_schedules.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_schedules", None)


@pytest.mark.parametrize("per", ["step", "epoch"])
def test_any_of_torchs_is_stepped_as_the_study_says(per):
    settings = study(name=WARM_RESTARTS, T_0=3, eta_min=0.1, per=per).settings.schedule
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, per=per, T_0=3, eta_min=0.1)
    np.testing.assert_array_equal(rates(settings), expected)


def test_a_function_of_the_users_own(users_module):
    settings = study(name="my_schedules:halves", every=2).settings.schedule
    np.testing.assert_array_equal(
        rates(settings), torch_rates(torch.optim.lr_scheduler.StepLR, "step", step_size=2, gamma=0.5)
    )


@pytest.mark.parametrize("given", [{}, {"warmup_epochs": 3.0}])
def test_a_function_may_have_a_warm_up_of_its_own(users_module, given):
    settings = study(name="my_schedules:warmed", **given).settings.schedule
    steps = int(given.get("warmup_epochs", 2))
    expected = torch_rates(torch.optim.lr_scheduler.LinearLR, "step", start_factor=0.1, total_iters=steps)
    np.testing.assert_array_equal(rates(settings), expected)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"name": WARM_RESTARTS}, "schedule.T_0: is missing"),
        ({"name": WARM_RESTARTS, "T_0": 3, "T_mul": 2}, "unknown key `T_mul` in [schedule]: did you mean `T_mult`?"),
        (
            {"name": WARM_RESTARTS, "T_0": 3, "warmup_epochs": 1.0},
            "schedule: warmup_epochs is for fairtrial's own schedules; name a function that adds a warm-up",
        ),
        (
            {"name": "torch.optim.lr_scheduler:ReduceLROnPlateau"},
            'schedule.name = "torch.optim.lr_scheduler:ReduceLROnPlateau": reads a metric; write name = "plateau"',
        ),
        (
            {"name": "my_schedules:Other"},
            (
                'schedule.name = "my_schedules:Other": must be a torch.optim.lr_scheduler.LRScheduler, '
                "a function that makes one, or a ScheduleSettings"
            ),
        ),
        (
            {"name": "my_schedules:no_arguments"},
            'schedule.name = "my_schedules:no_arguments": must take the optimizer first',
        ),
    ],
)
def test_what_is_wrong_is_one_line(users_module, schedule, message):
    with pytest.raises(StudyError) as caught:
        study(**schedule)
    assert str(caught.value) == message


def test_a_function_that_gives_no_schedule_fails_by_its_name(users_module):
    with pytest.raises(StudyError, match=r"my_schedules:nothing.*gave NoneType"):
        rates(study(name="my_schedules:nothing").settings.schedule)


def test_its_rates_are_not_explained_because_only_stepping_it_tells():
    [one] = explain(study(name=WARM_RESTARTS, T_0=3))
    assert one.rates == ()
    with pytest.raises(NotImplementedError):
        SCHEDULES.get(WARM_RESTARTS)(T_0=3).lr_factor(0.0, 5)


def test_what_a_scheduler_refuses_is_one_line_before_any_training():
    cycle = {"name": "torch.optim.lr_scheduler:CyclicLR", "base_lr": 0.001, "max_lr": 0.1}
    refused = Study(
        name="s",
        reference="a",
        data={"name": "digits"},
        model={"name": "mlp"},
        optimizer={"name": "lbfgs"},
        schedule=cycle,
        arms={"a": {}},
    )
    with pytest.raises(StudyError, match='lr_scheduler:CyclicLR": optimizer must support momentum'):
        prepare.prepare(refused)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"total_steps": 15}, "fails at step 16 of 18 (3 epochs of 6 steps): Tried to step 16 times"),
        ({"total_steps": 2, "per": "epoch"}, "fails at step 3 of 3 (3 epochs): Tried to step 3 times"),
        ({"total_steps": 18}, None),
        ({"total_steps": 3, "per": "epoch"}, None),
    ],
)
def test_a_schedule_for_too_few_steps_is_refused_before_any_training(schedule, message):
    cycle = {"name": "torch.optim.lr_scheduler:OneCycleLR", "max_lr": 0.1, **schedule}
    data = {"name": "digits", "train": 380}  # and batches of 64
    parts = {"data": data, "model": {"name": "mlp"}, "training": {"epochs": 3}, "schedule": cycle}
    short = Study(name="s", reference="a", arms={"a": {}}, **parts)
    if message is None:
        assert prepare.prepare(short)
        return
    with pytest.raises(StudyError) as caught:
        prepare.prepare(short)
    assert message in str(caught.value)
