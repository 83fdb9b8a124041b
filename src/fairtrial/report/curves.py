"""The data behind a figure of learning curves: tested as numbers, then drawn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairtrial.spec import Study
from fairtrial.stats.summary import join
from fairtrial.trial import Outcome, TrialResult


@dataclass(frozen=True)
class Point:
    """One arm at one epoch: mean, lowest and highest value over the finished trials that have a finite one."""

    epoch: int  # from 1
    mean: float
    low: float
    high: float
    values: Mapping[int, float]  # by seed


@dataclass(frozen=True)
class ArmCurve:
    """One arm's learning curve.

    Attributes:
        arm: the arm's name.
        points: one for each epoch at which some finished trial has a value, ascending.
        diverged: the finite values of its diverged trials, by seed and epoch; they enter no mean.
        omitted: number of its failed, interrupted or running trials, which are not shown.
    """

    arm: str
    points: tuple[Point, ...]
    diverged: Mapping[int, Mapping[int, float]]
    omitted: int


@dataclass(frozen=True)
class CurveData:
    """A metric over the epochs of a study, in its recorded unit: a curve for each arm, also for those without data."""

    metric: str
    curves: tuple[ArmCurve, ...]

    @property
    def counts(self) -> frozenset[int]:
        """Each number of seeds that some mean is over."""
        return frozenset(len(point.values) for curve in self.curves for point in curve.points)

    @property
    def epochs(self) -> int:
        """The last epoch that has a value; 0 if there is nothing to draw."""
        means = {point.epoch for curve in self.curves for point in curve.points}
        return max(means.union(*(values for curve in self.curves for values in curve.diverged.values())), default=0)


def curve_data(study: Study, results: Sequence[TrialResult], metric: str) -> CurveData:
    """Collect a metric's curves.

    Raises:
        ValueError: a result is not of this study, or one trial is there twice.
    """
    trials = list(join(study, results).values())
    return CurveData(metric, tuple(_curve(arm.name, trials, metric) for arm in study.arms))


def _curve(arm: str, trials: Sequence[TrialResult], metric: str) -> ArmCurve:
    own = [trial for trial in trials if trial.arm == arm]
    finished = {trial.seed: _values(trial, metric) for trial in own if trial.outcome is Outcome.FINISHED}
    diverged = {trial.seed: _values(trial, metric) for trial in own if trial.outcome is Outcome.DIVERGED}
    points = []
    for epoch in sorted({epoch for values in finished.values() for epoch in values}):
        values = {seed: each[epoch] for seed, each in finished.items() if epoch in each}
        mean = math.fsum(values.values()) / len(values)
        points.append(Point(epoch, mean, min(values.values()), max(values.values()), values))
    return ArmCurve(arm, tuple(points), diverged, omitted=len(own) - len(finished) - len(diverged))


def _values(trial: TrialResult, metric: str) -> dict[int, float]:
    """A trial's finite values by epoch, ascending."""
    values = {record.epoch: record.metrics.get(metric, math.nan) for record in trial.epochs}
    return {epoch: values[epoch] for epoch in sorted(values) if math.isfinite(values[epoch])}
