"""The names of measures: which there are, and which way they are better."""

import pytest

from fairtrial.spec.measures import (
    METRICS,
    WHOLE,
    better,
    may_be_measure,
    may_be_metric,
    measures_of,
    recorded_metrics,
)


@pytest.mark.parametrize(
    ("name", "direction"),
    {
        "test_acc": "higher",
        "best_test_acc": "higher",
        "final_top5_accuracy": "higher",
        "test_acc_at_best_val": "higher",
        "loss": "lower",
        "final_train_loss": "lower",
        "seconds": "lower",
        "best_train_seconds": "lower",
        "generalisation_gap": "lower",
        "epochs_to_target": "lower",
        "seconds_to_target": "lower",
        "final_error": "lower",
        "final_grad_norm": None,
        "final_lossy": None,
        "final_accent": None,
    }.items(),
)
def test_a_name_says_which_way_is_better(name, direction):
    assert better(name) == direction


def test_every_measure_of_fairtrials_own_loop_has_a_direction():
    assert None not in {better(name) for name in measures_of(METRICS)}


def test_measures_follow_from_metrics_the_usual_ones_first():
    names = measures_of(("test_acc", "grad_norm"))
    assert names[:2] == ("best_test_acc", "final_test_acc")
    assert set(names) == {*WHOLE, "best_test_acc", "final_test_acc", "best_grad_norm", "final_grad_norm"} - {
        "test_acc_at_best_val"
    }
    assert len(names) == len(set(names))
    assert "test_acc_at_best_val" in measures_of(METRICS)


def test_validation_is_recorded_only_where_images_are_held_out():
    assert recorded_metrics(validation=True) == METRICS
    assert set(METRICS) - set(recorded_metrics(validation=False)) == {"val_loss", "val_acc"}


def test_what_a_users_loop_may_measure():
    assert all(map(may_be_measure, ["best_x", "final_f1_score", *WHOLE]))
    assert not any(map(may_be_measure, ["best_", "x", "best_a b", "finally", "final_1"]))
    assert may_be_metric("f1")
    assert not may_be_metric("1f")
