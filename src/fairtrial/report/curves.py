"""The data behind a figure of learning curves: tested as numbers, then drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairtrial.spec import Study
from fairtrial.stats.summary import join
from fairtrial.trial import Outcome, TrialResult


@dataclass(frozen=True)
class Point:
    """One arm at one epoch, over its finished trials.

    Attributes:
        epoch: from 1.
        mean: over the values.
        low: smallest value.
        high: largest value.
        values: by seed, ascending; trials without a finite value at this epoch are not there.
    """

    epoch: int
    mean: float
    low: float
    high: float
    values: Mapping[int, float]

    @property
    def n(self) -> int:
        """Number of seeds behind the mean."""
        return len(self.values)


@dataclass(frozen=True)
class BrokenCurve:
    """A diverged trial, as far as its values are finite.

    Attributes:
        seed: the replicate.
        epochs: from 1; empty if the trial diverged before it had a finite value.
        values: one an epoch.
    """

    seed: int
    epochs: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class ArmCurve:
    """One arm's learning curve.

    Attributes:
        arm: the arm's name.
        points: one an epoch that some finished trial has a value for, ascending.
        diverged: its diverged trials, by seed; they enter no mean.
        omitted: number of trials that are neither in the means nor among the diverged: failed, interrupted or
            running ones.
    """

    arm: str
    points: tuple[Point, ...]
    diverged: tuple[BrokenCurve, ...]
    omitted: int


@dataclass(frozen=True)
class CurveData:
    """A metric over the epochs of a study.

    Attributes:
        metric: name in the epoch records; values keep its unit.
        curves: one an arm, in the study's order; an arm without data is there as well.
    """

    metric: str
    curves: tuple[ArmCurve, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(curve.points or any(broken.epochs for broken in curve.diverged) for curve in self.curves)

    @property
    def counts(self) -> frozenset[int]:
        """Each number of seeds that some mean is over."""
        return frozenset(point.n for curve in self.curves for point in curve.points)

    @property
    def epochs(self) -> int:
        """The last epoch that has a value; 0 if there is none."""
        means = [point.epoch for curve in self.curves for point in curve.points]
        broken = [epoch for curve in self.curves for trial in curve.diverged for epoch in trial.epochs]
        return max([*means, *broken], default=0)


def curve_data(study: Study, results: Sequence[TrialResult], metric: str) -> CurveData:
    """Collect a metric's curves: mean, lowest and highest value over finished trials, diverged trials apart.

    Args:
        study: the study.
        results: its trials, in any order.
        metric: name in the epoch records, such as ``"test_acc"``.

    Raises:
        ValueError: a result is not of this study, or one trial is there twice.
    """
    trials = list(join(study, results).values())
    return CurveData(metric, tuple(_curve(arm.name, trials, metric) for arm in study.arms))


def _curve(arm: str, trials: Sequence[TrialResult], metric: str) -> ArmCurve:
    own = [trial for trial in trials if trial.arm == arm]
    finished = {trial.seed: _values(trial, metric) for trial in own if trial.outcome is Outcome.FINISHED}
    diverged = {trial.seed: _values(trial, metric) for trial in own if trial.outcome is Outcome.DIVERGED}
    epochs = sorted({epoch for values in finished.values() for epoch in values})
    return ArmCurve(
        arm=arm,
        points=tuple(_point(epoch, finished) for epoch in epochs),
        diverged=tuple(BrokenCurve(seed, tuple(each), tuple(each.values())) for seed, each in diverged.items()),
        omitted=len(own) - len(finished) - len(diverged),
    )


def _values(trial: TrialResult, metric: str) -> dict[int, float]:
    """A trial's finite values by epoch, ascending."""
    values = {record.epoch: record.metrics.get(metric, math.nan) for record in trial.epochs}
    return {epoch: values[epoch] for epoch in sorted(values) if math.isfinite(values[epoch])}


def _point(epoch: int, finished: Mapping[int, Mapping[int, float]]) -> Point:
    values = {seed: each[epoch] for seed, each in finished.items() if epoch in each}
    mean = math.fsum(values.values()) / len(values)
    return Point(epoch, mean, min(values.values()), max(values.values()), values)
