"""The plateau against torch's own, epoch by epoch, and what it refuses."""

import numpy as np
import pytest
import torch

from fairtrial.errors import StudyError
from fairtrial.spec import Study
from fairtrial.training.rates import build_schedule
from fairtrial.training.schedules.plateau import Plateau

EPOCHS = 60


def of_torch(values, mode, **keys):
    """The rate after each epoch where the first is 2."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    keys["min_lr"] = 2.0 * keys.pop("final", 0.0)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, eps=0.0, **keys)
    rates = []
    for value in values:
        schedule.step(value)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def ours(values, metric, **keys):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = build_schedule(Plateau(metric=metric, **keys), optimizer, steps_per_epoch=2, epochs=len(values))
    rates = []
    for value in values:
        schedule.step()
        schedule.step()
        schedule.end_epoch({"train_loss": np.nan, "val_acc": np.nan, metric: value})
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize(("metric", "mode"), [("train_loss", "min"), ("val_acc", "max")])
@pytest.mark.parametrize(
    "keys",
    [
        {"patience": 2},
        {"patience": 0, "factor": 0.5},
        {"patience": 1, "factor": 0.7, "cooldown": 3},
        {"patience": 1, "factor": 0.5, "threshold": 0.05},
        {"patience": 1, "factor": 0.5, "final": 0.2},
    ],
)
def test_a_plateau_is_torchs(metric, mode, keys):
    rng = np.random.default_rng(1)
    course = np.exp(-np.arange(EPOCHS) / 8) + 0.3 + 0.05 * rng.normal(size=EPOCHS)
    values = list(course if mode == "min" else 1 - course / 2)
    expected = of_torch(values, mode, **keys)
    assert len(set(expected)) > 2  # it drops more than once, so a wrong count would show
    np.testing.assert_allclose(ours(values, metric, **keys), expected, rtol=1e-12)


def test_a_metric_that_is_not_a_number_is_no_improvement():
    values = [1.0, np.nan, np.nan, np.nan, 0.5]
    np.testing.assert_allclose(ours(values, "train_loss", patience=2), of_torch(values, "min", patience=2))


def test_only_a_warm_up_changes_the_rate_within_an_epoch():
    schedule = Plateau(warmup_epochs=1.0)
    assert [schedule.lr_factor(step / 4, 5, 1 / 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"metric": "test_loss"}, 'schedule.metric = "test_loss": the rate must not follow the test images; '),
        ({"metric": "val_loss"}, 'schedule.metric = "val_loss": needs data.validation'),
        ({"metric": "train_los"}, 'schedule.metric = "train_los": did you mean `train_loss`?'),
        (
            {"patience": 8},
            "schedule.patience = 8: the rate could never drop within 10 epochs; at most 7",
        ),
    ],
)
def test_what_can_not_work_is_refused(schedule, message):
    with pytest.raises(StudyError) as caught:
        Study(name="s", reference="a", schedule={"name": "plateau"} | schedule, arms={"a": {}})
    assert message in str(caught.value)


def test_the_longest_patience_that_is_allowed_can_matter():
    Study(name="s", reference="a", schedule={"name": "plateau", "patience": 7}, arms={"a": {}})
    assert Plateau(patience=7).after_records([1.0] * 8) == 1.0
    assert Plateau(patience=7).after_records([1.0] * 9) == 0.1  # so the tenth epoch has a lower rate


def test_two_epochs_have_no_plateau():
    with pytest.raises(StudyError, match="a plateau needs at least 3"):
        Study(name="s", reference="a", schedule={"name": "plateau"}, training={"epochs": 2}, arms={"a": {}})
