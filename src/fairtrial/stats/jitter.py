"""Split the spread of paired differences at the end of training: jitter within runs, and what runs differ by.

A run's accuracy moves up and down from one evaluation to the next, whatever the run has learned. The model for the
paired difference of arm a at seed s and evaluation t, among the last T, is::

    difference[a, s, t] = trend[a, t] + run[a, s] + jitter[a, s, t]

with independent terms. A repeated-measures analysis of variance estimates both variances by the method of moments
(Searle, Casella & McCulloch 1992, chapter 3): jitter by the mean square within runs, and runs by the mean square of the
runs' means less that, over T. Whatever drifts within a run counts as jitter.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from fairtrial.measures import within_last_epoch
from fairtrial.spec import Study
from fairtrial.spec.measures import Measure
from fairtrial.spec.metrics import LARGEST
from fairtrial.stats.joined import Key
from fairtrial.stats.paired import PairedData
from fairtrial.stats.variance import FloatArray
from fairtrial.trial import EpochRecord, TrialResult

#: Of runs of so many epochs the last ones are compared: by then the trend is nearly the same in all runs of an arm.
EPOCHS = {6: 3, 4: 2}
#: Fewer evaluations within the last epoch than this are not used.
LEAST_WITHIN = 3
#: Fewer degrees of freedom between runs than this say nothing.
LEAST_DF = 4.0
#: A measure that saves less than this share of the seeds is not worth a sentence.
WORTHWHILE = 0.15


@dataclass(frozen=True)
class Split:
    """The two standard deviations of a paired difference, and the share of jitter in its variance."""

    within: float  # of jitter: one evaluation of both runs
    between: float  # of runs: what remains in the mean of many evaluations; 0 if none can be seen
    share: float  # within^2 / (within^2 + between^2)
    interval: tuple[float, float]  # for the share, at 95%

    def variance(self, evaluations: float) -> float:
        """Variance of a difference between means of so many evaluations."""
        return self.between**2 + self.within**2 / evaluations


@dataclass(frozen=True)
class Jitter:
    """How much of a study's spread is jitter, and a measure with less of it, for the next study."""

    metric: str  # the metric of the epochs, such as ``"test_acc"``
    evaluations: int  # how many of each run were compared, the last one at the end of training
    within_epoch: bool  # whether they are within the last epoch; if not, each is at the end of an epoch
    split: Split
    steadier: str  # the measure that averages these evaluations
    seeds_ratio: float  # seeds that it would need for a difference of the same size, as a multiple of the study's own

    @property
    def sentences(self) -> Iterator[str]:
        """Say it, for the notes beside verdicts."""
        low, high = self.split.interval
        where = "between evaluations within the last epoch" if self.within_epoch else "from one epoch to the next"
        yield (
            f"About {self.split.share:.0%} (95% interval {low:.0%} to {high:.0%}) of the variance of differences in "
            f"{self.metric} at the end is jitter within runs, {where}; the rest is between runs."
        )
        if self.seeds_ratio <= 1 - WORTHWHILE:
            others = f"evaluations within the last epoch (mean_last_epoch_{self.metric}) ask less"
            speed = "" if self.within_epoch else f", but asks about speed, too; {others}"
            yield (
                f"For a next study: {self.steadier} would need about {self.seeds_ratio:.1f} times as many seeds for a "
                f"difference of the same size{speed}. This study keeps the measure that it set."
            )


def find_jitter(
    study: Study, results: Sequence[TrialResult], data: PairedData, measure: Measure, arms: Sequence[str]
) -> Jitter | None:
    """Estimate jitter from the stored records of a study; None if the measure or the records do not allow it.

    Args:
        study: the study.
        results: of its trials.
        data: the measure of these trials; a lost run has no part.
        measure: the best, final or mean value of one metric.
        arms: those whose differences from the reference count.
    """
    metric = measure.metrics[0] if measure.metrics else ""
    if study.imported is not None:  # its records may be those of steps, or a choice of them
        return None
    if not metric or not measure.name.endswith(f"_{metric}"):
        return None
    runs = {(one.arm, one.seed): one.epochs for one in results if (one.arm, one.seed) in data.values}
    ends = end_evaluations(runs, metric)
    if ends is None:
        return None
    number, is_within, traces = ends.number, ends.within_epoch, ends.traces
    missing = np.full(number, np.nan)
    table = np.array(
        [
            [
                traces.get((arm, seed), missing) - traces.get((study.reference, seed), missing)
                for seed in range(data.seeds)
            ]
            for arm in arms
        ]
    ).reshape(len(arms), data.seeds, number)
    split = split_variance(table)
    if split is None:
        return None
    steadier = f"mean_last_epoch_{metric}" if is_within else f"mean_last{number}_{metric}"
    own = _own_variance(measure, split, number, data.differences(study.reference, arms, data.seeds))
    return Jitter(metric, number, is_within, split, steadier, split.variance(number) / own) if own else None


@dataclass(frozen=True)
class Ends:
    """The last evaluations of some runs, the one at the end of training last, as many of each."""

    number: int
    within_epoch: bool  # whether they are within the last epoch; if not, each is at the end of an epoch
    traces: Mapping[Key, FloatArray]  # by arm and seed; NaN where one is missing


def end_evaluations(runs: Mapping[Key, Sequence[EpochRecord]], metric: str) -> Ends | None:
    """Take the evaluations at the ends of runs that jitter is estimated from; None if there are too few.

    Args:
        runs: their records in order, by arm and seed.
        metric: of the epochs.
    """
    within = min((len(within_last_epoch(epochs, metric)) for epochs in runs.values()), default=0)
    epochs = min((len(epochs) for epochs in runs.values()), default=0)
    is_within = within >= LEAST_WITHIN
    number = within if is_within else next((last for least, last in EPOCHS.items() if epochs >= least), 0)
    if not number:
        return None
    traces = {key: _trace(epochs, metric, number, within_epoch=is_within) for key, epochs in runs.items()}
    return Ends(number, is_within, traces)


def split_variance(differences: FloatArray) -> Split | None:
    """Split the variance of paired differences, (arms, seeds, evaluations); a run with a NaN, or beyond 1e99, is out.

    The arms' differences share the reference, and so are correlated by a half: the interval, of the ratio of two mean
    squares by the F distribution, takes their degrees of freedom over ``1 + (arms - 1) / 4``.

    Returns:
        None if there are too few runs, or there is no jitter at all.

    Example:
        >>> jitter = np.random.default_rng(0).normal(0.0, 0.01, size=(3, 8, 4))
        >>> split_variance(jitter).share > 0.8
        True
    """
    points = differences.shape[2]
    runs = [rows[(np.abs(rows) <= 2 * LARGEST).all(axis=1)] for rows in differences]
    rest = [rows - rows.mean(axis=0) for rows in runs if len(rows) > 1]
    df = sum(len(rows) - 1 for rows in rest)
    effective = df / (1 + (len(rest) - 1) / 4) if rest else 0.0
    if effective < LEAST_DF:
        return None
    means = [rows.mean(axis=1, keepdims=True) for rows in rest]
    between = points * sum(float((mean**2).sum()) for mean in means) / df
    within = sum(float(((rows - mean) ** 2).sum()) for rows, mean in zip(rest, means, strict=True)) / df / (points - 1)
    if not within > 0.0:
        return None
    upper, lower = special.fdtri(effective, effective * (points - 1), [0.975, 0.025])
    ratios = [max(0.0, (between / within / quantile - 1) / points) for quantile in (upper, 1.0, lower)]
    largest, share, least = (float(1 / (1 + ratio)) for ratio in ratios)
    return Split(math.sqrt(within), math.sqrt(within * ratios[1]), share, (least, largest))


def _own_variance(measure: Measure, split: Split, evaluations: int, differences: FloatArray) -> float:
    """The variance of the study's own measure: by the model if it is a mean of evaluations, else as it is."""
    if not measure.name.startswith("best_"):
        return split.variance(evaluations if measure.name.startswith("mean_last_epoch_") else measure.epochs)
    columns = [column[np.isfinite(column)] for column in differences.T]
    columns = [column for column in columns if len(column) > 1]
    return sum(float(((one - one.mean()) ** 2).sum()) for one in columns) / sum(len(one) - 1 for one in columns)


def _trace(epochs: Sequence[EpochRecord], metric: str, number: int, *, within_epoch: bool) -> FloatArray:
    """A run's last evaluations; NaN where one is missing."""
    found = within_last_epoch(epochs, metric) if within_epoch else [one.metrics.get(metric, math.nan) for one in epochs]
    return np.array(found[-number:])
