"""One number a trial: what it is, and when there is none."""

import math

import pytest

from fairtrial.measures import measure, missed
from fairtrial.spec import METRICS, Target
from fairtrial.spec.measures import measures_of
from fairtrial.trial import EpochRecord

NAN = math.nan


def records(*epochs):
    return [EpochRecord("a", 0, number, metrics) for number, metrics in enumerate(epochs, start=1)]


def column(name, *values):
    return records(*({name: value} if value is not None else {} for value in values))


@pytest.mark.parametrize(
    ("name", "metric", "values", "expected"),
    [
        ("best_test_acc", "test_acc", (0.3, 0.5, 0.4), 0.5),
        ("best_test_acc", "test_acc", (0.3, None), 0.3),
        ("best_test_acc", "test_acc", (0.3, None, NAN), None),  # nothing is computed around a NaN
        ("best_test_loss", "test_loss", (2.0, 1.5, 1.7), 1.5),  # of a loss the lowest is best
        ("best_grad_norm", "grad_norm", (1.0, 3.0, 2.0), 3.0),
        ("best_test_acc", "val_acc", (0.3,), None),
        ("final_train_loss", "train_loss", (2.0, 1.0), 1.0),
        ("final_train_loss", "train_loss", (2.0, None), None),  # an earlier epoch is no substitute
        ("final_train_loss", "train_loss", (2.0, math.inf), None),
        ("final_train_loss", "train_loss", (), None),
    ],
)
def test_best_and_final_of_one_metric(name, metric, values, expected):
    assert measure(name).of(column(metric, *values)) == expected


def test_the_generalization_gap_is_of_the_best_accuracies():
    epochs = records({"train_acc": 0.7, "test_acc": 0.65}, {"train_acc": 0.9, "test_acc": 0.6})
    assert measure("generalization_gap").of(epochs) == pytest.approx(0.25)
    assert measure("generalization_gap").of(column("train_acc", 0.7)) is None
    assert measure("generalisation_gap") is measure("generalization_gap")  # as studies used to spell it


def test_targets_are_reached_from_below_or_for_a_loss_from_above():
    times = {"train_seconds": 10.0, "eval_seconds": 1.0}
    epochs = records(*({"test_acc": acc, "test_loss": 1 - acc, **times} for acc in (0.4, 0.6, 0.5, 0.7)))
    up, down = Target(metric="test_acc", value=0.55), Target(metric="test_loss", value=0.4)
    assert measure("epochs_to_target").of(epochs, up) == 2
    assert measure("seconds_to_target").of(epochs, up) == 22.0
    assert measure("epochs_to_target").of(epochs, down) == 2
    assert measure("epochs_to_target").of(epochs, Target(metric="test_acc", value=0.6)) == 2  # at the value itself


def test_a_miss_is_no_number_and_neither_is_what_was_never_recorded():
    target = Target(metric="test_acc", value=0.9)
    epochs = column("test_acc", 0.4, 0.6)
    assert measure("epochs_to_target").of(epochs, target) is None
    assert missed(target, epochs)
    assert not missed(Target(metric="test_acc", value=0.5), epochs)
    assert not missed(Target(metric="val_acc", value=0.5), epochs)


def test_every_measure_that_a_study_may_name_can_be_taken():
    target = Target(metric="test_acc", value=0.5)
    epochs = records(*[dict.fromkeys(METRICS, 0.6)] * 3)
    assert all(measure(name).of(epochs, target) is not None for name in measures_of(METRICS))
    assert all(measure(name).of([], target) is None for name in measures_of(METRICS))


@pytest.mark.parametrize(
    ("name", "broken", "expected"),
    [
        ("best_nll", (0.4, NAN, 0.3), True),
        ("best_nll", (0.4, None, 0.3), False),
        ("final_nll", (NAN, 0.3), False),  # an epoch that the measure does not look at
        ("final_nll", (0.3, math.inf), True),
        ("final_nll", (0.3, -1e200), True),  # its square is no float
        ("mean_last2_nll", (1e308, 1e308), True),  # nor is its sum
        ("mean_last2_nll", (NAN, 0.3, 0.2), False),
        ("mean_last2_nll", (0.3, NAN), True),
    ],
)
def test_a_nan_in_an_epoch_that_the_measure_looks_at_breaks_it(name, broken, expected):
    found = measure(name, "lower")
    assert found.is_broken(column("nll", *broken)) is expected
    assert (found.of(column("nll", *broken)) is None) is expected


def test_a_nan_breaks_measures_of_several_metrics_too():
    epochs = records({"val_acc": 0.4, "test_acc": 0.4}, {"val_acc": NAN, "test_acc": 0.5})
    assert measure("test_acc_at_best_val").is_broken(epochs)
    assert measure("generalization_gap").is_broken(records({"train_acc": NAN, "test_acc": 0.5}))
    target = Target(metric="test_acc", value=0.45)
    assert measure("epochs_to_target").is_broken(column("test_acc", 0.4, NAN, 0.5), target)
    assert not measure("epochs_to_target").is_broken(column("test_acc", 0.4, 0.5, NAN), target)


def test_no_measure_is_nan():
    target = Target(metric="test_acc", value=0.5)
    for epochs in (records(dict.fromkeys(METRICS, NAN)), records(dict.fromkeys(METRICS, math.inf))):
        values = [measure(name).of(epochs, target) for name in measures_of(METRICS)]
        assert all(value is None or math.isfinite(value) for value in values)


@pytest.mark.parametrize("name", ["mean_test_acc", "best", "best_"])
def test_what_is_no_measure_is_refused(name):
    with pytest.raises(ValueError, match=name):
        measure(name)


def test_a_mean_within_the_last_epoch_takes_all_its_evaluations():
    within = {"eval1_test_acc": 0.4, "eval2_test_acc": 0.5, "test_acc": 0.9}
    found = measure("mean_last_epoch_test_acc")
    assert found.of(records({"test_acc": 0.1}, within)) == pytest.approx(0.6)
    assert found.of(records(within, {"test_acc": 0.9})) is None  # the last epoch was evaluated once
    assert found.of(records({"eval1_test_acc": 0.4})) is None
    assert found.is_broken(records(within | {"eval1_test_acc": NAN}))
    assert measure("mean_last_epoch_val_loss").label == "mean validation loss within the last epoch"


def test_means_say_what_else_they_ask_about():
    assert "asks about speed" in measure("mean_last3_test_acc").note
    assert measure("mean_last1_test_acc").note == ""
    assert "asks a little about speed, too" in measure("mean_last_epoch_test_acc").note


def test_a_measure_without_its_target_is_a_bug():
    with pytest.raises(ValueError, match="epochs_to_target needs a target"):
        measure("epochs_to_target").of(column("test_acc", 0.5))


def test_of_a_metric_whose_name_does_not_say_it_the_study_says_which_is_best():
    epochs = column("grad_norm", 2.0, 1.0, 3.0)
    assert measure("best_grad_norm", "lower").of(epochs) == 1.0
    assert measure("best_grad_norm", "higher").of(epochs) == 3.0
    assert measure("best_test_acc", "lower").direction == "higher"


def test_a_note_says_what_was_selected_on_the_test_set():
    assert "by the test set itself" in measure("best_test_acc").note
    assert measure("best_val_acc").note == measure("final_test_acc").note == ""


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("mean_last2_test_acc", (0.1, 0.4, 0.6), 0.5),
        ("mean_last3_test_acc", (0.3, 0.3, 0.6), 0.4),
        ("mean_last1_test_acc", (0.1, 0.4), 0.4),
        ("mean_last3_test_acc", (0.4, 0.6), None),  # fewer epochs are no substitute
        ("mean_last2_test_acc", (0.4, 0.5, None), None),
        ("mean_last2_test_acc", (0.4, NAN, 0.5), None),
    ],
)
def test_a_mean_over_the_last_epochs(name, values, expected):
    found = measure(name).of(column("test_acc", *values))
    assert found == (None if expected is None else pytest.approx(expected))
    assert measure(name).direction == "higher"
    assert measure("mean_last5_val_loss").label == "mean validation loss of the last 5 epochs"


@pytest.mark.parametrize("name", ["mean_last_test_acc", "mean_last0_test_acc", "mean_lastK_test_acc", "mean_last2_"])
def test_the_number_of_epochs_is_at_least_one(name):
    with pytest.raises(ValueError, match=name):
        measure(name)
