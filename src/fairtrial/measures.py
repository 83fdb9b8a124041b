"""The measures on which a study can compare arms: one number of a whole trial, from its epoch records.

Each is one entry here, and the rest follows from it: its names in studies, which direction is better, unit and words in
reports, a column in the table, the table in docs/studies.md. A study names a user's own as ``module:Name``.
"""

import itertools
import math
from collections.abc import Sequence

from fairtrial.registry import MEASURES
from fairtrial.spec import Study, Target
from fairtrial.spec.measures import Measure, find_measure
from fairtrial.spec.metrics import EPOCHS, LOSS, PERCENT, PLAIN, SECONDS, Direction, Metric, finite
from fairtrial.trial import EpochRecord

__all__ = ["EPOCHS", "LOSS", "MEASURES", "PERCENT", "PLAIN", "SECONDS", "Measure", "measure", "missed", "values"]

#: Heads of the columns in every table, by metric.
_COLUMNS = {"test_acc": ("best test", "accuracy (%)"), "train_acc": ("best train", "accuracy (%)")}


def measure(name: str, direction: Direction | None = None) -> Measure:
    """Find a measure by its name in studies; the direction is the study's, for a name that does not imply one.

    Raises:
        ValueError: there is no such measure.
        StudyError: a ``module:Name`` can't be imported or is no measure.

    Example:
        >>> measure("best_test_acc").of([EpochRecord("a", 0, 1, {"test_acc": 0.4}), EpochRecord("a", 0, 2, {})])
        0.4
    """
    found = find_measure(name, direction)
    if found is None:
        raise ValueError(f"there is no measure {name}")
    return found


@MEASURES.register("best_NAME")
def best(metric: Metric) -> Measure:
    """Best value over the epochs that have one: the lowest of a loss, an error or a time, otherwise the highest."""
    choose = min if metric.direction == "lower" else max
    name = f"best_{metric.name}"
    return Measure(
        name=name,
        label=f"best {metric.label}",
        unit=metric.unit,
        direction=metric.direction,
        compute=lambda epochs: choose(values(epochs, metric.name), default=None),
        metrics=(metric.name,),
        column=_COLUMNS.get(metric.name, ()),
        note=f"{name} takes each trial's best epoch by the test set itself, so it is optimistic."
        if metric.name.startswith("test_")
        else "",
    )


@MEASURES.register("final_NAME")
def final(metric: Metric) -> Measure:
    """Value of the last epoch; an earlier one does not replace it."""
    return Measure(
        name=f"final_{metric.name}",
        label=f"final {metric.label}",
        unit=metric.unit,
        direction=metric.direction,
        compute=lambda epochs: epochs[-1].metrics.get(metric.name) if epochs else None,
        metrics=(metric.name,),
    )


@MEASURES.register("mean_lastK_NAME")
def mean_last(metric: Metric, number: int) -> Measure:
    """Mean over the last K epochs: steadier than the last alone; an arm that learns fast gains by it."""

    def mean(epochs: Sequence[EpochRecord]) -> float | None:
        last = values(epochs[-number:], metric.name)
        return math.fsum(last) / number if len(last) == number else None

    return Measure(
        name=f"mean_last{number}_{metric.name}",
        label=f"mean {metric.label} of the last {number} epochs" if number > 1 else f"last {metric.label}",
        unit=metric.unit,
        direction=metric.direction,
        compute=mean,
        metrics=(metric.name,),
        note=f"A mean over {number} epochs asks about speed, too: an arm that got there earlier gains by it."
        if number > 1
        else "",
        epochs=number,
    )


@MEASURES.register("mean_last_epoch_NAME")
def mean_last_epoch(metric: Metric) -> Measure:
    """Mean of the evaluations within the last epoch; needs `training.evaluations_last_epoch`."""

    def mean(epochs: Sequence[EpochRecord]) -> float | None:
        found = within_last_epoch(epochs, metric.name)
        return sum(found) / len(found) if len(found) > 1 else None

    return Measure(
        name=f"mean_last_epoch_{metric.name}",
        label=f"mean {metric.label} within the last epoch",
        unit=metric.unit,
        direction=metric.direction,
        compute=mean,
        metrics=(metric.name, f"eval1_{metric.name}"),
        note="Evaluations within the last epoch lie on average up to half an epoch before its end, "
        "so arms that learn fast gain slightly.",
    )


def seconds(epochs: Sequence[EpochRecord]) -> float | None:
    """Training and evaluation over all epochs; training alone if the loop does not time its evaluation."""
    times = [time for record in epochs if (time := record.metrics.get("train_seconds")) is not None]
    if not epochs or len(times) < len(epochs):
        return None
    return math.fsum(times) + math.fsum(record.metrics.get("eval_seconds", 0.0) for record in epochs)


def generalization_gap(epochs: Sequence[EpochRecord]) -> float | None:
    """Best training accuracy minus best test accuracy."""
    train, test = values(epochs, "train_acc"), values(epochs, "test_acc")
    return max(train) - max(test) if train and test else None


def test_acc_at_best_val(epochs: Sequence[EpochRecord]) -> float | None:
    """Test accuracy at the first epoch with the highest validation accuracy: selection never sees the test set."""
    scored = [record for record in epochs if record.metrics.get("val_acc") is not None]
    if not all(math.isfinite(record.metrics["val_acc"]) for record in scored):
        return math.nan
    # max returns the first of equals
    return max(scored, key=lambda record: record.metrics["val_acc"]).metrics.get("test_acc") if scored else None


def epochs_to_target(epochs: Sequence[EpochRecord], target: Target) -> float | None:
    """Epochs until a metric first reaches its target."""
    found = _until(target, epochs)
    return None if found is None else math.nan if not found else float(found[-1].epoch)


def seconds_to_target(epochs: Sequence[EpochRecord], target: Target) -> float | None:
    """Seconds of training and evaluation until a metric first reaches its target."""
    found = _until(target, epochs)
    return None if found is None else math.nan if not found else seconds(found)


_WHOLE = (
    Measure("seconds", "time", SECONDS, "lower", seconds, ("train_seconds",), column=("time (s)",)),
    Measure(
        "generalization_gap",
        "generalization gap",
        PERCENT,
        "lower",
        generalization_gap,
        ("train_acc", "test_acc"),
        note="The best test accuracy in it is selected on the test set, so the gap is understated.",
        # Old studies use the old spelling, which is part of their hash.
        aliases=("generalisation_gap",),
    ),
    Measure(
        "test_acc_at_best_val",
        "test accuracy at the best validation epoch",
        PERCENT,
        "higher",
        test_acc_at_best_val,
        ("val_acc", "test_acc"),
        column=("test acc. at", "best val. (%)"),
        note="test_acc_at_best_val is taken at the epoch with the best validation accuracy, blind to the test set.",
    ),
    Measure("epochs_to_target", "epochs to the target", EPOCHS, "lower", epochs_to_target, needs_target=True),
    Measure("seconds_to_target", "seconds to the target", SECONDS, "lower", seconds_to_target, needs_target=True),
)
for _entry in _WHOLE:
    MEASURES.register(_entry.name)(_entry)


def missed(target: Target, epochs: Sequence[EpochRecord]) -> bool:
    """Tell whether a trial recorded the target's metric but never reached it."""
    return any(target.metric in record.metrics for record in epochs) and _until(target, epochs) is None


def values(epochs: Sequence[EpochRecord], metric: str) -> list[float]:
    """List the values of a metric that were recorded; all are NaN if one of them is NaN, infinite or beyond 1e99.

    So a measure computed from them is NaN too, and the trial counts as lost: nothing is computed around a NaN.

    Example:
        >>> values([EpochRecord("a", 0, 1, {"f1": 0.4}), EpochRecord("a", 0, 2, {"f1": math.inf})], "f1")
        [nan, nan]
    """
    found = [float(value) for record in epochs if (value := record.metrics.get(metric)) is not None]
    return found if all(finite(value) is not None for value in found) else [math.nan] * len(found)


def within_last_epoch(epochs: Sequence[EpochRecord], metric: str) -> list[float]:
    """List a metric's evaluations within the last epoch, the one at its end last; none if that is missing.

    Example:
        >>> within_last_epoch([EpochRecord("a", 0, 1, {"eval1_test_acc": 0.4, "test_acc": 0.5})], "test_acc")
        [0.4, 0.5]
    """
    last = epochs[-1].metrics if epochs else {}
    if metric not in last:
        return []
    names = itertools.takewhile(last.__contains__, (f"eval{number}_{metric}" for number in itertools.count(1)))
    return [*(last[name] for name in names), last[metric]]


def _until(target: Target, epochs: Sequence[EpochRecord]) -> Sequence[EpochRecord] | None:
    """The epochs up to the first at or beyond the target; none of them if a value there is NaN or infinite.

    None if the target was not reached.
    """
    sign = 1 if target.larger_is_better else -1
    for index, record in enumerate(epochs):
        value = record.metrics.get(target.metric)
        if value is not None and not math.isfinite(value):
            return ()
        if value is not None and sign * value >= sign * target.value:
            return epochs[: index + 1]
    return None


def compares_times(study: Study) -> bool:
    """Tell whether a study asks about seconds, which idle cores that help some trials would distort.

    Example:
        >>> compares_times(fairtrial.load("paper")), compares_times(fairtrial.load("quick"))
        (True, False)
    """
    asked = {study.evidence.metric, *(also.metric for also in study.evidence.also or ())}
    return any(study.measure(name).unit == SECONDS for name in asked | {claim.metric for claim in study.claims})
