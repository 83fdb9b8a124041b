"""Estimates of how much paired differences vary, for many studies at once; every interval uses them.

Seeds times arms is a two-way layout: y[s, a] = arm a + seed s + noise. A paired difference removes the seed, and the
rest has variance 2 sigma^2 for every arm if all arms are equally noisy. Then all arms, including the reference,
estimate one sigma with the degrees of freedom of the layout's residuals: at three seeds and four arms 8 instead of one
arm's own 2, which lowers the 97.5% quantile of t from 4.30 to 2.31.
"""

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

#: Whose residuals estimate the spread of an arm's differences, see `estimate`.
Pooling: TypeAlias = Literal["guarded", "pooled", "own"]

#: How strongly the guard raises the variance of an arm that varies more than the others: see `estimate`. Chosen by
#: simulation (`benchmarks/stats.py`): the larger it is, the less a noisy arm can gain from the others' degrees of
#: freedom, and the more does an arm suffer whose few differences happen to vary much.
GAMMA = 0.8

#: How strongly the guard raises the variance of the seeds' mean differences, which has few degrees of freedom.
CAUTION = 1.5

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


def estimate(
    differences: FloatArray,
    seen: BoolArray,
    pooling: Pooling = "guarded",
    *,
    apart: BoolArray | None = None,
    floor: FloatArray | None = None,
) -> Estimates:
    """Estimate mean and spread of paired differences.

    With ``"own"``, an arm's scale is the sample standard deviation of its differences. With ``"pooled"`` it is the
    residual standard deviation of the two-way layout by least squares, times the square root of 2. With ``"guarded"``,
    since arms need not be equally noisy, its square is the largest of three variances: P, the pooled one;
    (1 + 1.5 X) h for the variance h of the seeds' mean differences, which contain all of the reference's noise, while
    the pooled residuals dilute it; and o (o / g)^0.8 for the arm's own variance o and the geometric mean g of all arms'
    own variances. X is 1 / (degrees of freedom of h) - 1 / (those of P), at least 0. Critical values (`boundary`) make
    up for what the maximum lacks or exceeds. With one arm all three kinds are the sample standard deviation.

    Args:
        differences: (studies, seeds, arms), arm minus reference; ignored where ``seen`` is false.
        seen: of the same shape.
        pooling: as above.
        apart: (arms,), which arms have a scale of their own and do not enter that of others.
        floor: (studies, arms), the variance with which an arm at least enters g. An arm that settled early often did so
            because its variance came out small, which says little about the others.
    """
    if apart is not None and apart.any():
        return _apart(differences, seen, pooling, apart, floor)
    count = seen.sum(axis=1)
    mean = _divide(np.where(seen, differences, 0.0).sum(axis=1), count)
    rest = np.where(seen, differences - mean[:, None], 0.0)
    squares = (rest**2).sum(axis=1)
    largest = np.where(seen, np.abs(differences), 0.0).max(axis=1, initial=0.0)
    equal = squares <= (ROUNDING * largest) ** 2 * count  # up to rounding
    rest, squares = np.where(equal[:, None], 0.0, rest), np.where(equal, 0.0, squares)
    own = _divide(squares, count - 1)
    pooled, pooled_df = _pooled(rest, seen, squares)
    if pooling == "own" or seen.shape[2] == 1:
        variance, df = own, count - 1
    elif pooling == "pooled":
        variance, df = pooled, np.broadcast_to(pooled_df, count.shape)
    else:
        variance = _guarded((pooled, pooled_df), _shared(rest, seen), own, 0.0 if floor is None else floor)
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


def _apart(
    differences: FloatArray, seen: BoolArray, pooling: Pooling, apart: BoolArray, floor: FloatArray | None
) -> Estimates:
    """Estimate some arms apart from the others; their pooled standard deviation is their own."""
    found = estimate(differences, seen, "own")
    found = found._replace(pooled=found.sd.copy())
    if apart.all():
        return found
    own = None if floor is None else floor[:, ~apart]
    others = estimate(differences[..., ~apart], seen[..., ~apart], pooling, floor=own)
    for array, part in zip(found, others, strict=True):
        array[:, ~apart] = part
    return found


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


class Running:
    """Mean and scale of complete data after each seed, for many studies at once; far faster than `estimate`.

    It uses running sums of squares, so it suits simulated noise around zero, not measured values. All arrays are
    (arms, studies), so that its memory does not grow with the seeds.
    """

    def __init__(self, pooling: Pooling) -> None:
        self._seeds, self._pooling = 0, pooling
        self._sum = self._squares = self._rows = np.zeros(1)

    def add(self, differences: FloatArray) -> None:
        """Add one seed's paired differences."""
        self._seeds += 1
        self._sum = self._sum + differences
        self._squares = self._squares + differences**2
        self._rows = self._rows + differences.sum(axis=0) ** 2

    def estimate(self) -> tuple[FloatArray, FloatArray]:
        """Mean and scale of each arm's differences."""
        mean = self._sum / self._seeds
        squares = self._squares - self._seeds * mean**2
        between = self._rows - self._seeds * mean.sum(axis=0) ** 2
        scale = np.sqrt(complete_variance(squares, between, self._seeds, self._pooling))
        return mean, np.broadcast_to(scale, mean.shape)


def complete_variance(squares: FloatArray, between: FloatArray, seeds: int, pooling: Pooling) -> FloatArray:
    """The square of the scale in complete layouts; (arms, studies), or (1, studies) if the arms share it.

    Args:
        squares: (arms, studies), sum of squares of each arm's differences around their mean.
        between: (studies,), the same of the seeds' sums over arms.
        seeds: their number.
        pooling: see `estimate`.
    """
    arms, own = len(squares), squares / (seeds - 1)
    if pooling == "own" or arms == 1:
        return own
    pooled, shared = common_variances(squares.sum(axis=0), between, arms, seeds)
    if pooling == "pooled":
        return pooled[None]
    return _guarded((pooled, np.array((seeds - 1) * arms)), (shared, np.array(seeds - 1)), own, axis=0)


def common_variances(squares: FloatArray, between: FloatArray, arms: int, seeds: int) -> tuple[FloatArray, FloatArray]:
    """Variance of a difference from the two-way residuals of a complete layout, and from the seeds' mean differences.

    ``squares`` are those of `complete_variance`, summed over arms.
    """
    pooled = 2.0 * (squares - between / (arms + 1)) / ((seeds - 1) * arms)
    return pooled, 2.0 * between / (arms * (arms + 1) * (seeds - 1))


def _shared(rest: FloatArray, seen: BoolArray) -> tuple[FloatArray, IntArray]:
    """Variance of a paired difference from the seeds' mean differences, and its degrees of freedom; both (studies, 1).

    A seed's mean over m arms has variance sigma^2 (1 + 1 / m) under equal spread, and a paired difference 2 sigma^2.
    The sum of squares is divided by its exact expectation under equal spread, whatever is missing.
    """
    cells = seen.sum(axis=2)
    weight = np.where(cells > 0, 2.0 / np.maximum(cells * (cells + 1), 1), 0.0)
    df = (cells > 0).sum(axis=1) - 1
    expected = df.astype(np.float64)
    gaps = ~(seen == seen[:, :1]).all(axis=(1, 2))
    if gaps.any():
        expected[gaps] = _expected(seen[gaps].astype(np.float64), weight[gaps])
    found = _divide((rest.sum(axis=2) ** 2 * weight).sum(axis=1), df)
    return (found * df / np.where(expected > 1e-9, expected, 1.0))[:, None], df[:, None]  # 0 where no arm has two pairs


def _expected(seen: FloatArray, weight: FloatArray) -> FloatArray:
    """Expectation of the weighted sum of squared row sums, for paired differences of variance 1; (studies,).

    The sum of row s is that of d[t, a] * seen[s, a] * (1[s = t] - seen[t, a] / count[a]) over seeds t and arms a.
    Differences of one seed have covariance 1 / 2, so its variance is half of the sum over t of their squared sum over
    arms and of the sum of their squares.
    """
    share = seen / np.maximum(seen.sum(axis=1, keepdims=True), 1.0)
    same = np.einsum("nsa,nta->nst", seen, share, optimize=True)
    squares = np.einsum("nsa,nta->nst", seen, share**2, optimize=True)
    diagonal = np.arange(seen.shape[1])
    cells = seen.sum(axis=2)
    squares[:, diagonal, diagonal] += cells - 2.0 * same[:, diagonal, diagonal]
    same[:, diagonal, diagonal] -= cells
    found: FloatArray = (weight * (same**2 + squares).sum(axis=2)).sum(axis=1) / 2.0
    return found


def _guarded(
    pooled: tuple[FloatArray, IntArray],
    shared: tuple[FloatArray, IntArray],
    own: FloatArray,
    floor: FloatArray | float = 0.0,
    axis: int = -1,  # of the arms
) -> FloatArray:
    """The largest of the three variances of a guarded scale; see `estimate`."""
    caution = 1.0 + CAUTION * np.maximum(_divide(1.0, shared[1]) - _divide(1.0, pooled[1]), 0.0)
    positive = own > 0.0
    logs = np.log(np.where(positive, np.fmax(own, floor), 1.0))
    typical = np.exp(_divide(logs.sum(axis=axis, keepdims=True), np.maximum(positive.sum(axis=axis, keepdims=True), 1)))
    raised = np.where(positive, own * (own / typical) ** GAMMA, 0.0)
    return np.fmax(np.fmax(pooled[0], caution * shared[0]), raised)


def _divide(numerator: FloatArray | float, denominator: IntArray) -> FloatArray:
    """Divide, with NaN where the denominator is not positive."""
    numerator = np.broadcast_to(np.asarray(numerator, dtype=np.float64), denominator.shape)
    counted = np.where(denominator > 0, denominator, 1)
    return np.where(denominator > 0, numerator / counted, np.nan)
