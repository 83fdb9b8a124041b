"""Sources of the noise between runs: initial weights, batch order, or neither of them alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.spec import Study
from fairtrial.stats.comparison import evidence_for
from fairtrial.stats.paired import PairedData
from fairtrial.stats.variance import FloatArray
from fairtrial.trial import TrialResult


@dataclass(frozen=True)
class Component:
    """One part of the variance between runs."""

    variance: float  # in the metric's unit squared; an unbiased estimate, which may be below zero
    interval: tuple[float, float]  # confidence interval of the variance
    share: float | None  # of the sum of all components, from 0 to 1; None where that sum is not positive


@dataclass(frozen=True)
class NoiseComponents:
    """The variance between runs of one arm, split."""

    runs: int  # how many
    mean: float
    total: float  # sum of the components: the variance of a single run with both seeds drawn anew
    init: Component | None  # of the initial weights; None if they were not varied
    order: Component | None  # of the batch order; None if it was not varied
    #: Their interaction, and differences between runs with equal seeds; None, and a part of the other, if only one of
    #: the two was varied.
    rest: Component | None
    caveats: tuple[str, ...] = ()  # what a reader must know beside the numbers, a sentence each


@dataclass(frozen=True)
class ArmNoise:
    """The variance between the runs of one arm."""

    arm: str
    components: NoiseComponents | None  # None if too few runs have a result
    runs: int  # that the components are estimated from
    left_out: int  # runs with a result that are not used, because others of their row or column have none


def split_noise(study: Study, results: Sequence[TrialResult], *, metric: str | None = None) -> tuple[ArmNoise, ...]:
    """Split the variance between runs of each arm into the parts of initial weights and batch order.

    A run without a result leaves a hole in the grid; its row of initial weights or its column of batch orders is then
    left out, whichever costs fewer runs. The metric is a measure, the study's own by default. Returns one per arm, in
    the study's order; empty for a study without ``[noise]``.
    """
    if not study.noise.designed:
        return ()
    evidence = evidence_for(study, metric)
    data = PairedData.of(study, results, evidence.metric, evidence.target).sifted(study.seeds)
    return tuple(_arm(study, arm.name, data) for arm in study.arms)


def _arm(study: Study, arm: str, data: PairedData) -> ArmNoise:
    values = {study.noise.of(seed): value for (name, seed), value in data.values.items() if name == arm}
    shape = (max((study.noise.of(seed)[axis] for seed in range(study.seeds)), default=0) + 1 for axis in (0, 1))
    grid = np.full(tuple(shape), np.nan)
    for cell, value in values.items():
        grid[cell] = value
    while np.isnan(grid).any():  # leave out the row or column with the largest share of holes
        rows, columns = np.isnan(grid).mean(axis=1), np.isnan(grid).mean(axis=0)
        axis, worst = (0, rows.argmax()) if rows.max() >= columns.max() else (1, columns.argmax())
        grid = np.delete(grid, worst, axis=axis)
    if grid.size < 2:
        return ArmNoise(arm, None, 0, len(values))
    return ArmNoise(arm, noise_components(grid), int(grid.size), len(values) - int(grid.size))


def noise_components(values: npt.ArrayLike, confidence: float = 0.95) -> NoiseComponents:
    """Split the variance of one arm's runs between initial weights and batch order.

    Runs form a crossed grid: y[i, j] = mean + init i + order j + rest, where all effects are random and each has its
    own variance. The estimates are those of the method of moments (Searle, Casella & McCulloch 1992, Variance
    Components, section 4.3, one run per cell): (MS_init - MS_rest) / orders, (MS_order - MS_rest) / inits and MS_rest.
    They are unbiased, so that they may be averaged over arms and studies, and negative where a small variance happens
    to be estimated below zero; set to zero, a small variance would be doubled on average. Intervals are exact
    (chi-squared) for the rest and for a grid of one row or column; for a difference of mean squares they are those of
    Ting, Burdick, Graybill, Jeyaratnam & Lu 1990 (J. Stat. Comput. Simul. 35, 135-143), cut off at zero. All assume
    normal effects.

    Args:
        values: (init seeds, order seeds), the metric of each run; one row or one column if only one was varied.
        confidence: of each single interval.

    Raises:
        ValueError: not a grid, fewer than two runs, a value that is not finite, or a confidence outside 0 to 1.

    Example:
        >>> split = noise_components([[0.61, 0.62, 0.60], [0.66, 0.66, 0.65], [0.63, 0.64, 0.63]])
        >>> round(split.init.share, 2)
        0.91
    """
    grid = _checked(values, confidence)
    if 1 in grid.shape:
        return _one_way(grid, confidence)
    inits, orders = grid.shape
    shifted = grid - grid[0, 0]  # so that equal runs differ by exactly zero
    rows, columns = shifted.mean(axis=1), shifted.mean(axis=0)
    rest = shifted - rows[:, None] - columns + shifted.mean()
    squares = [
        _Square(orders * float(np.var(rows, ddof=1)), inits - 1),
        _Square(inits * float(np.var(columns, ddof=1)), orders - 1),
        _Square(float((rest**2).sum()) / ((inits - 1) * (orders - 1)), (inits - 1) * (orders - 1)),
    ]
    init, order = (squares[0].mean - squares[2].mean) / orders, (squares[1].mean - squares[2].mean) / inits
    variances = [init, order, squares[2].mean]
    intervals = [
        _difference_interval(squares[0], squares[2], orders, confidence),
        _difference_interval(squares[1], squares[2], inits, confidence),
        _interval(squares[2], confidence),
    ]
    total = math.fsum(variances)
    init_part, order_part, rest_part = (
        Component(variance, interval, min(max(variance / total, 0.0), 1.0) if total > 0 else None)
        for variance, interval in zip(variances, intervals, strict=True)
    )
    names = [name for name, value in (("initial weights", init), ("batch order", order)) if value < 0]
    caveats = [f"The estimate for the {name} came out negative: it is small." for name in names]
    return NoiseComponents(
        runs=grid.size,
        mean=float(grid.mean()),
        total=total,
        init=init_part,
        order=order_part,
        rest=rest_part,
        caveats=(*caveats, *_no_spread(total)),
    )


class _Square(NamedTuple):
    """A mean square and its degrees of freedom."""

    mean: float
    df: int


def _checked(values: npt.ArrayLike, confidence: float) -> FloatArray:
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 2 or grid.size < 2:
        raise ValueError(f"values have shape {grid.shape}: must be (init seeds, order seeds) with two runs or more")
    if not np.isfinite(grid).all():
        i, j = np.argwhere(~np.isfinite(grid))[0]
        raise ValueError(
            f"the run of init seed {i} and order seed {j} has no finite value: leave its row or column out"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence}: must be between 0 and 1")
    return grid


def _one_way(grid: FloatArray, confidence: float) -> NoiseComponents:
    """Only one of the two was varied; its component includes the rest."""
    square = _Square(float(np.var(grid - grid[0, 0], ddof=1)), grid.size - 1)
    part = Component(square.mean, _interval(square, confidence), 1.0 if square.mean > 0 else None)
    init = grid.shape[0] > 1
    varied, fixed = ("initial weights were", "batch order was") if init else ("batch order was", "initial weights were")
    caveat = f"Only the {varied} varied; the {fixed} held fixed, so this component includes their interaction."
    return NoiseComponents(
        runs=grid.size,
        mean=float(grid.mean()),
        total=square.mean,
        init=part if init else None,
        order=None if init else part,
        rest=None,
        caveats=(caveat, *_no_spread(square.mean)),
    )


def _no_spread(total: float) -> tuple[str, ...]:
    return () if total > 0 else ("All runs are equal: there is no variance to split.",)


def _interval(square: _Square, confidence: float) -> tuple[float, float]:
    """Exact interval of the variance that a mean square estimates."""
    tail = (1.0 - confidence) / 2
    low, high = (square.df * square.mean / float(special.chdtri(square.df, p)) for p in (tail, 1.0 - tail))
    return low, high


def _difference_interval(first: _Square, second: _Square, runs: int, confidence: float) -> tuple[float, float]:
    """Interval of (first - second) / runs; the notation is that of Ting et al., for the difference of two."""
    tail = (1.0 - confidence) / 2
    f_high, f_low = (float(special.fdtri(first.df, second.df, p)) for p in (1.0 - tail, tail))
    g1, g2 = (1.0 - square.df / float(special.chdtri(square.df, tail)) for square in (first, second))
    h1, h2 = (square.df / float(special.chdtri(square.df, 1.0 - tail)) - 1.0 for square in (first, second))
    g12 = ((f_high - 1.0) ** 2 - (g1 * f_high) ** 2 - h2**2) / f_high
    h12 = ((1.0 - f_low) ** 2 - (h1 * f_low) ** 2 - g2**2) / f_low
    a, b = first.mean, second.mean
    below = (g1 * a) ** 2 + (h2 * b) ** 2 + g12 * a * b
    above = (h1 * a) ** 2 + (g2 * b) ** 2 + h12 * a * b
    low = (a - b - math.sqrt(max(below, 0.0))) / runs
    high = (a - b + math.sqrt(max(above, 0.0))) / runs
    return max(low, 0.0), max(high, 0.0)
