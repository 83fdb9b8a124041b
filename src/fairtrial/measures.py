"""One number of a whole trial, from its epoch records. The names are those of `fairtrial.spec.measures`."""

import math
from collections.abc import Callable, Sequence

from fairtrial.spec import TO_TARGET, Target, better
from fairtrial.trial import EpochRecord

#: One number of a whole trial, from its epoch records in order; None if the records don't have it.
Measure = Callable[[Sequence[EpochRecord]], float | None]


def measure(name: str, target: Target | None = None) -> Measure:
    """Find a measure by its name.

    Args:
        name: ``best_NAME`` or ``final_NAME`` of what the epochs record, or one of `fairtrial.spec.WHOLE`.
        target: for ``epochs_to_target`` and ``seconds_to_target``.

    Returns:
        A function that never returns NaN or an infinite value.

    Raises:
        ValueError: there is no such measure, or it needs a target.

    Example:
        >>> measure("best_test_acc")([EpochRecord("a", 0, 1, {"test_acc": 0.4}), EpochRecord("a", 0, 2, {})])
        0.4
    """
    if name in TO_TARGET:
        if target is None:
            raise ValueError(f"{name} needs a target")
        return _to_target(target, seconds=name == "seconds_to_target")
    if name in _WHOLE:
        return _WHOLE[name]
    kind, _, metric = name.partition("_")
    if kind not in {"best", "final"} or not metric:
        raise ValueError(f"there is no measure {name}")
    return _best(metric) if kind == "best" else _final(metric)


def missed(target: Target, epochs: Sequence[EpochRecord]) -> bool:
    """Tell whether a trial recorded the target's metric and never reached it; without records nobody can tell."""
    return any(target.metric in record.metrics for record in epochs) and _reached(target, epochs) is None


def finite(value: float | None) -> float | None:
    """Give a plain float, or None for what is no finite number."""
    return None if value is None or not math.isfinite(value) else float(value)


def _best(metric: str) -> Measure:
    """Best value over the epochs that have one."""
    choose = min if better(metric) == "lower" else max

    def best(epochs: Sequence[EpochRecord]) -> float | None:
        values = [finite(record.metrics.get(metric)) for record in epochs]
        return choose((value for value in values if value is not None), default=None)

    return best


def _final(metric: str) -> Measure:
    """Value of the last epoch; an earlier one is no substitute."""

    def final(epochs: Sequence[EpochRecord]) -> float | None:
        return finite(epochs[-1].metrics.get(metric)) if epochs else None

    return final


def _seconds(epochs: Sequence[EpochRecord]) -> float | None:
    """Training and evaluation over all epochs; a loop that does not time its evaluation reports training alone."""
    times = [record.metrics.get("train_seconds") for record in epochs]
    known = [time for time in times if time is not None]
    if not epochs or len(known) < len(epochs):
        return None
    return finite(math.fsum(known) + math.fsum(record.metrics.get("eval_seconds", 0.0) for record in epochs))


def _test_acc_at_best_val(epochs: Sequence[EpochRecord]) -> float | None:
    """Test accuracy at the first epoch with the highest validation accuracy: selection never sees the test set."""
    scored = [(value, record) for record in epochs if (value := finite(record.metrics.get("val_acc"))) is not None]
    if not scored:
        return None
    _, best = max(scored, key=lambda pair: pair[0])  # max keeps the first of equals
    return finite(best.metrics.get("test_acc"))


def _generalisation_gap(epochs: Sequence[EpochRecord]) -> float | None:
    """Best training minus best test accuracy."""
    train, test = _best("train_acc")(epochs), _best("test_acc")(epochs)
    return None if train is None or test is None else train - test


def _to_target(target: Target, *, seconds: bool) -> Measure:
    """Epochs, or seconds of training and evaluation, until the target is first reached; None if it never is."""

    def to_target(epochs: Sequence[EpochRecord]) -> float | None:
        index = _reached(target, epochs)
        if index is None:
            return None
        return _seconds(epochs[: index + 1]) if seconds else float(epochs[index].epoch)

    return to_target


def _reached(target: Target, epochs: Sequence[EpochRecord]) -> int | None:
    """Index of the first epoch at or beyond the target."""
    sign = 1 if target.larger_is_better else -1
    for index, record in enumerate(epochs):
        value = finite(record.metrics.get(target.metric))
        if value is not None and sign * value >= sign * target.value:
            return index
    return None


_WHOLE = {
    "seconds": _seconds,
    "generalisation_gap": _generalisation_gap,
    "test_acc_at_best_val": _test_acc_at_best_val,
}
