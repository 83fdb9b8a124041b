"""The names of what is measured: of an epoch, by the training loop, and of a whole trial, by the evidence.

A trial's measures are ``best_NAME`` and ``final_NAME`` for every NAME that its epochs record, and those of `WHOLE`. The
best of a metric is its lowest value over the epochs if `better` says so, and its highest otherwise.
"""

import re
from collections.abc import Collection
from typing import Literal, TypeAlias

#: Metrics of an epoch record in the order in which tables and exports show them; a training loop may add its own.
METRICS = (
    "train_loss",
    "train_acc",
    "test_loss",
    "test_acc",
    "val_loss",
    "val_acc",
    "train_seconds",
    "eval_seconds",
)

#: Measures of a trial that are neither the best nor the final value of one metric: seconds of all epochs; best training
#: minus best test accuracy; test accuracy at the first epoch with the best validation accuracy; epochs, and seconds,
#: until a metric first reaches its target.
WHOLE = ("seconds", "generalisation_gap", "test_acc_at_best_val", "epochs_to_target", "seconds_to_target")

#: What a table would show first.
_USUAL = ("best_test_acc", "final_test_acc", "best_train_acc", "final_train_loss")

#: Measures that need a target.
TO_TARGET = ("epochs_to_target", "seconds_to_target")

#: Which way is better.
Direction: TypeAlias = Literal["higher", "lower"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OF_ONE_METRIC = re.compile(rf"(?:best|final)_({_NAME.pattern})")
_LOWER = re.compile(r"(.*_)?(loss|seconds|error)|generalisation_gap|(epochs|seconds)_to_target")
_HIGHER = re.compile(r"(.*_)?acc(uracy)?|test_acc_at_best_val")


def recorded_metrics(*, validation: bool) -> tuple[str, ...]:
    """List what fairtrial's own loop records of an epoch, with or without a validation split."""
    return tuple(name for name in METRICS if validation or not name.startswith("val_"))


def measures_of(metrics: Collection[str]) -> tuple[str, ...]:
    """List the measures of a trial whose epochs record these metrics, the most usual ones first."""
    kinds = [f"{kind}_{name}" for kind in ("best", "final") for name in metrics]
    usual = [name for name in _USUAL if name in kinds]
    whole = [name for name in WHOLE if name != "test_acc_at_best_val" or "val_acc" in metrics]
    return tuple(dict.fromkeys([*usual, *whole, *kinds]))


def may_be_metric(name: str) -> bool:
    """Tell whether a training loop of a user's own could record a metric of this name."""
    return _NAME.fullmatch(name) is not None


def may_be_measure(name: str) -> bool:
    """Tell whether a trial of a user's own training loop could have a measure of this name."""
    return name in WHOLE or _OF_ONE_METRIC.fullmatch(name) is not None


def better(name: str) -> Direction | None:
    """Tell which way a metric or measure is better, by its name; None if the name does not say.

    Example:
        >>> better("best_test_acc"), better("final_train_loss"), better("final_grad_norm")
        ('higher', 'lower', None)
    """
    if _HIGHER.fullmatch(name):
        return "higher"
    return "lower" if _LOWER.fullmatch(name) else None
