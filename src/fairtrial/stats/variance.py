"""Estimates of how much paired differences vary, for many studies at once; every interval uses them.

Seeds times arms is a two-way layout: y[s, a] = arm a + seed s + noise. A paired difference removes the seed, and the
rest has variance 2 sigma^2 for every arm if all arms are equally noisy. Then all arms, including the reference,
estimate one sigma with the degrees of freedom of the layout's residuals: at three seeds and four arms 8 instead of one
arm's own 2, which lowers the 97.5% quantile of t from 4.30 to 2.31.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Whose residuals estimate the spread of an arm's differences, see `estimate`.
Pooling: TypeAlias = Literal["guarded", "pooled", "own"]

#: How strongly the guard inflates variances with few degrees of freedom. Chosen by simulation (`benchmarks/stats.py`):
#: one arm three times as noisy as the rest raises errors from 5% to 7% without it, and to 6% with 3; larger values
#: would cost all studies seeds.
CAUTION = 3.0

#: A standard deviation below this fraction of the largest difference is rounding error.
ROUNDING = 1e-12


class Estimates(NamedTuple):
    """Mean and spread of each arm's paired differences; every array is (studies, arms)."""

    count: IntArray  # type: ignore[assignment]  # of paired seeds; hides tuple.count, which nobody needs here
    mean: FloatArray  # NaN without a pair
    sd: FloatArray  # the arm's own sample standard deviation; NaN below two pairs
    pooled: FloatArray  # standard deviation from the residuals of all arms; NaN without degrees of freedom
    scale: FloatArray  # the standard deviation of tests and intervals, by the kind of pooling; NaN below two pairs
    df: IntArray  # degrees of freedom of the scale; 0 without one


def estimate(differences: FloatArray, seen: BoolArray, pooling: Pooling = "guarded") -> Estimates:
    """Estimate mean and spread of paired differences.

    With ``"own"``, an arm's scale is the sample standard deviation of its differences. With ``"pooled"`` it is the
    residual standard deviation of the two-way layout by least squares, times the square root of 2. With ``"guarded"``,
    since arms need not be equally noisy, it is the largest of three: the pooled one; the arm's own; and that of the
    seeds' mean differences, which contain all of the reference's noise, while the pooled residuals dilute it. The
    latter two have few degrees of freedom, so their variances are multiplied by 1 + 3 (1 / own df - 1 / pooled df). The
    simulated boundary (`boundary`) accounts for the effect of the maximum under equal spread. With one arm all three
    kinds are the sample standard deviation.

    Differences are (studies, seeds, arms), arm minus reference; they are ignored where ``seen``, of the same shape, is
    false.
    """
    count = seen.sum(axis=1)
    mean = _divide(np.where(seen, differences, 0.0).sum(axis=1), count)
    rest = np.where(seen, differences - mean[:, None], 0.0)
    squares = (rest**2).sum(axis=1)
    largest = np.where(seen, np.abs(differences), 0.0).max(axis=1, initial=0.0)
    equal = squares <= (ROUNDING * largest) ** 2 * count  # up to rounding
    rest, squares = np.where(equal[:, None], 0.0, rest), np.where(equal, 0.0, squares)
    own = _divide(squares, count - 1)
    pooled, pooled_df = _pooled(rest, seen, squares)
    if pooling == "own":
        variance, df = own, count - 1
    elif pooling == "pooled":
        variance, df = pooled, np.broadcast_to(pooled_df, count.shape)
    else:
        variance = _guarded((pooled, pooled_df), _shared(rest, seen), (own, count - 1))
        df = np.broadcast_to(pooled_df, count.shape)
    usable = (count > 1) & (df > 0)
    return Estimates(
        count=count,
        mean=mean,
        sd=np.sqrt(own),
        pooled=np.broadcast_to(np.sqrt(pooled), count.shape),
        scale=np.sqrt(np.where(usable, variance, np.nan)),
        df=np.where(usable, df, 0),
    )


def _pooled(rest: FloatArray, seen: BoolArray, squares: FloatArray) -> tuple[FloatArray, IntArray]:
    """Variance of a paired difference from the two-way residuals, and its degrees of freedom; both (studies, 1).

    Least squares with the seeds swept out: the residual sum of squares is q - b' A^-1 b with the reference's effect set
    to zero. In a complete layout b is zero, because arm means are already removed from `rest`.
    """
    cells = seen.sum(axis=2)  # besides the reference, which exists wherever a difference does
    weight = 1.0 / (cells + 1)
    rows = rest.sum(axis=2)
    residual = squares.sum(axis=1) - (rows**2 * weight).sum(axis=1)
    gaps = ~(seen == seen[:, :1]).all(axis=(1, 2))
    if gaps.any():
        here = seen[gaps].astype(np.float64)
        b = (here * (rows * weight)[gaps][..., None]).sum(axis=1)
        normal = -np.einsum("nsa,ns,nsb->nab", here, weight[gaps], here, optimize=True)
        diagonal = np.arange(seen.shape[2])
        counts = here.sum(axis=1)
        normal[:, diagonal, diagonal] += np.where(counts > 0, counts, 1.0)  # an arm without a pair has no effect
        residual[gaps] -= (b * np.linalg.solve(normal, b[..., None])[..., 0]).sum(axis=1)
    df = cells.sum(axis=1) - seen.any(axis=1).sum(axis=1)
    return _divide(2.0 * np.maximum(residual, 0.0), df)[:, None], df[:, None]


def complete(
    differences: FloatArray, looks: Sequence[int], pooling: Pooling = "guarded"
) -> tuple[FloatArray, FloatArray]:
    """Mean and scale at several looks of complete data, both (studies, looks, arms); far faster than `estimate`.

    It uses running sums of squares, so it suits simulated noise around zero, not measured values.
    """
    arms = differences.shape[2]
    seeds = np.array(looks)[:, None]
    at = seeds[:, 0] - 1
    mean = differences.cumsum(axis=1)[:, at] / seeds
    squares = (differences**2).cumsum(axis=1)[:, at] - seeds * mean**2
    own = squares / (seeds - 1)
    if pooling == "own":
        return mean, np.sqrt(own)
    rows = differences.sum(axis=2, keepdims=True)
    between = (rows**2).cumsum(axis=1)[:, at] - seeds * mean.sum(axis=2, keepdims=True) ** 2
    pooled_df = (seeds - 1) * arms
    pooled = 2.0 * (squares.sum(axis=2, keepdims=True) - between / (arms + 1)) / pooled_df
    if pooling == "pooled":
        return mean, np.sqrt(np.broadcast_to(pooled, mean.shape))
    shared = 2.0 * between / (arms * (arms + 1) * (seeds - 1))
    return mean, np.sqrt(_guarded((pooled, pooled_df), (shared, seeds - 1), (own, seeds - 1)))


def _shared(rest: FloatArray, seen: BoolArray) -> tuple[FloatArray, IntArray]:
    """Variance of a paired difference from the seeds' mean differences, and its degrees of freedom; both (studies, 1).

    A seed's mean over m arms has variance sigma^2 (1 + 1 / m) under equal spread, and a paired difference 2 sigma^2.
    """
    cells = seen.sum(axis=2)
    weight = np.where(cells > 0, 2.0 / np.maximum(cells * (cells + 1), 1), 0.0)
    df = (cells > 0).sum(axis=1) - 1
    return _divide((rest.sum(axis=2) ** 2 * weight).sum(axis=1), df)[:, None], df[:, None]


def _guarded(pooled: tuple[FloatArray, IntArray], *others: tuple[FloatArray, IntArray]) -> FloatArray:
    """The largest of several variances, each with its degrees of freedom; those with few are first inflated."""
    largest, pooled_df = pooled
    for variance, df in others:
        caution = 1.0 + CAUTION * np.maximum(_divide(1.0, df) - _divide(1.0, pooled_df), 0.0)
        largest = np.fmax(largest, variance * caution)
    return largest


def _divide(numerator: FloatArray | float, denominator: IntArray) -> FloatArray:
    """Divide, with NaN where the denominator is not positive."""
    numerator = np.broadcast_to(np.asarray(numerator, dtype=np.float64), denominator.shape)
    counted = np.where(denominator > 0, denominator, 1)
    return np.where(denominator > 0, numerator / counted, np.nan)
