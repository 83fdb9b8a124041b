"""Metrics of an epoch: what their names say, and the units in which people read them."""

import math

import pytest

from fairtrial.spec.metrics import (
    EPOCHS,
    LOSS,
    METRICS,
    PERCENT,
    PLAIN,
    RELATIVE,
    SECONDS,
    Metric,
    finite,
    may_be_metric,
    may_be_percent,
    recorded_metrics,
    settings_needed,
)


@pytest.mark.parametrize(
    ("name", "direction", "unit", "label"),
    [
        ("test_acc", "higher", PERCENT, "test accuracy"),
        ("ema_val_acc", "higher", PERCENT, "ema validation accuracy"),
        ("eval12_test_acc", "higher", PERCENT, "eval12 test accuracy"),
        ("my_test_acc", "higher", PLAIN, "my test accuracy"),
        ("top5_accuracy", "higher", PLAIN, "top5 accuracy"),
        ("train_loss", "lower", LOSS, "training loss"),
        ("loss", "lower", LOSS, "loss"),
        ("val_error", "lower", PLAIN, "validation error"),
        ("train_seconds", "lower", SECONDS, "training seconds"),
        ("grad_norm", None, PLAIN, "grad norm"),
        ("lossy", None, PLAIN, "lossy"),
        ("accent", None, PLAIN, "accent"),
    ],
)
def test_a_name_implies_a_direction_and_only_fairtrials_own_metrics_are_fractions(name, direction, unit, label):
    metric = Metric.named(name)
    assert (metric.direction, metric.unit, metric.label) == (direction, unit, label)


def test_the_study_says_which_way_is_better_where_the_name_does_not():
    assert Metric.named("f1", "higher").direction == "higher"
    assert Metric.named("test_acc", "lower").direction == "higher"


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        *(
            (name, True)
            for name in ("acc", "test_accuracy", "valAcc", "top1", "acc5", "best_top5_test", "F1", "mean_iou")
        ),
        *(
            (name, False)
            for name in (
                "accent",
                "account",
                "grad_norm",
                "stopped",
                "f",
                "test_loss",
                "laptop",
                "iou_loss",
                "grad_acc_steps",
                "f1Count",
                "acc_seconds",
            )
        ),
    ],
)
def test_names_that_read_like_a_fraction_or_percent(name, percent):
    assert may_be_percent(name) == percent


@pytest.mark.parametrize(
    ("unit", "value", "amount"),
    [
        (PERCENT, 0.0131, "1.31 points"),
        (PERCENT, -0.002, "-0.20 points"),
        (PERCENT, -1e-9, "0.00 points"),
        (LOSS, -0.01234, "-0.0123"),
        (SECONDS, 12.34, "12.3 s"),
        (EPOCHS, 1.25, "1.2 epochs"),
        (PLAIN, 1234.5, "1.23e+03"),
        (RELATIVE, 0.0213, "2.1%"),
    ],
)
def test_differences_are_read_in_their_unit(unit, value, amount):
    assert unit.amount(value) == amount


def test_a_range_names_no_unit():
    assert RELATIVE.between(-0.01, 0.02) == "-1.0 to 2.0"


def test_validation_is_recorded_only_where_images_are_held_out():
    assert recorded_metrics(validation=True) == METRICS
    assert set(METRICS) - set(recorded_metrics(validation=False)) == {"val_loss", "val_acc"}


def test_other_evaluations_have_metrics_of_their_own():
    assert recorded_metrics(validation=False, evaluations=3)[len(METRICS) - 2 :] == (
        *("eval1_test_loss", "eval1_test_acc", "eval2_test_loss", "eval2_test_acc"),
    )
    everything = recorded_metrics(validation=True, evaluations=2, recalibrated=True, ema=True)
    assert len(set(everything)) == len(METRICS) + 4 + 6 + 4


@pytest.mark.parametrize(
    ("metric", "settings"),
    [
        ("test_acc", []),
        ("val_acc", ["data.validation"]),
        ("eval12_test_loss", ["training.evaluations_last_epoch"]),
        ("eval1_val_acc", ["training.evaluations_last_epoch", "data.validation"]),
        ("recalibrated_train_acc", ["training.recalibrate_batch_norm"]),
        ("ema_val_loss", ["training.ema", "data.validation"]),
        ("ema_train_acc", []),
        ("eval0_test_acc", []),
        ("grad_norm", []),
    ],
)
def test_settings_that_a_metric_needs(metric, settings):
    assert settings_needed(metric) == settings


def test_what_a_users_loop_may_record():
    assert all(map(may_be_metric, ["f1", "_x", "top5_accuracy"]))
    assert not any(map(may_be_metric, ["1f", "a b", "", "größe"]))


@pytest.mark.parametrize(
    ("value", "plain"), [(0.5, 0.5), (1, 1.0), (None, None), (math.nan, None), (-math.inf, None), (-1e200, None)]
)
def test_only_finite_numbers_are_numbers(value, plain):
    assert finite(value) == plain
