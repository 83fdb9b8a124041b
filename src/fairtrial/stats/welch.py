"""Critical values for the difference of two means, from unpaired normal samples with any two variances.

The statistic is Welch's: the difference over its standard error, where each variance is the sample's own. Its
distribution depends on the unknown ratio of the true variances (Behrens-Fisher problem), and no critical value is exact
at all ratios. Two are combined here, as functions of R, the first sample's share of the squared standard error:

- Banerjee's (1960), ``c^2 = R t1^2 + (1 - R) t2^2`` with Student's quantiles of both samples. It errs in at most alpha
  at any ratio, but is wide where the variances are alike, because degrees of freedom are never added.
- Welch's (1947), a Student quantile with the degrees of freedom of Satterthwaite (1946), which adds them. At few runs
  it errs too often: at 5%, in 5.9% for three runs each and in 12% for two and twelve, and relatively more at the small
  levels that several arms need.

The critical value is the smaller of the two, and Welch's is taken at a lower level: the highest at which the smaller
one errs in at most alpha at every ratio. This error is exact. Given R, the statistic is a multiple of Student's t with
``n1 + n2 - 2`` degrees of freedom, and the first sum of squares, in its own variance, has a beta-distributed share of
both (Ray & Pitman 1961; Lee & Gurland 1975 computed sizes and powers that way). So one integral gives the error at a
ratio, and the largest over the ratios is what counts.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from scipy import special

from fairtrial.stats.variance import FloatArray, IntArray

#: By how much the level of Banerjee's critical values is below alpha, so that the combination has something to spend.
SLACK = 1e-3
#: Logarithms of the ratios of variances that are tried: how far, either way, and in what steps. Beyond these ratios the
#: error is that of Banerjee's values.
REACH, STEP = 20.0, 0.5
#: Levels of p-values are solved in steps of this factor, and interpolated between them.
FACTOR = 3.0
SMALLEST_P = 1e-12
#: Welch's critical value at a level below this share of alpha is never the smaller one where it matters.
LOWEST = 1e-15


def critical(first: int, second: int, share: FloatArray | float, alpha: float) -> FloatArray:
    """Compute critical values of the absolute statistic, at which it errs in at most alpha at any ratio of variances.

    Args:
        first: degrees of freedom of the first sample, its number of runs less one, at least 1.
        second: those of the second sample.
        share: of the first sample in the squared standard error, from 0 to 1.
        alpha: two-sided error rate.

    Example:
        >>> critical(2, 2, 0.5, 0.05).round(2), critical(2, 2, 1.0, 0.05).round(2)
        (np.float64(3.03), np.float64(4.3))
    """
    shares = np.asarray(share, dtype=np.float64)
    return _smaller(first, second, shares, alpha, level(min(first, second), max(first, second), alpha))


def satterthwaite(first: int, second: int, share: FloatArray | float) -> FloatArray:
    """Effective degrees of freedom of a squared standard error (Satterthwaite 1946, equation 17)."""
    shares = np.asarray(share, dtype=np.float64)
    return 1.0 / (shares**2 / first + (1.0 - shares) ** 2 / second)


@lru_cache(maxsize=8192)
def level(first: int, second: int, alpha: float) -> float:
    """Solve for the level of Welch's critical values, for ``first <= second``; 0 if they are not to be used at all."""
    from scipy import optimize  # noqa: PLC0415  (takes a tenth of a second to load, and few plans need it)

    errors = _Errors(first, second, alpha)

    def excess(log_level: float) -> float:
        return math.log(errors.largest(math.exp(log_level)) / alpha)

    high = math.log(alpha)
    if excess(high) <= 0.0:
        return alpha
    low, step, lowest = high, 0.03, high + math.log(LOWEST)
    while low > lowest:
        low, step = low - step, 4.0 * step
        if excess(low) <= 0.0:
            accuracy = 1e-4
            return math.exp(float(optimize.brentq(excess, low, high, xtol=accuracy)) - accuracy)
        high = low
    return 0.0


def p_value(first: int, second: int, share: float, statistic: float, alpha: float) -> float:
    """The smallest error rate at which the critical value is below the absolute statistic; `SMALLEST_P` at least.

    It is solved for at levels that are steps of `FACTOR` from alpha. Between them its logarithm is interpolated against
    that of Welch's p-value. So it is below alpha exactly if the statistic exceeds the critical value at alpha.
    """
    levels, df = _levels(alpha), float(satterthwaite(first, second, share))

    def at(index: int) -> float:
        return float(critical(first, second, share, levels[index]))

    def welchs(value: float) -> float:
        return math.log(2.0 * special.stdtr(df, -value))

    passed = bisect_right(range(len(levels)), statistic, key=at)
    if passed == len(levels):
        return levels[-1]
    above, below = (welchs(at(passed - 1)), math.log(levels[passed - 1])) if passed else (0.0, 0.0), welchs(at(passed))
    weight = (welchs(statistic) - above[0]) / (below - above[0])
    return math.exp((1.0 - weight) * above[1] + weight * math.log(levels[passed]))


@lru_cache(maxsize=64)
def _levels(alpha: float) -> list[float]:
    above = int(math.log(0.9 / alpha) / math.log(FACTOR))
    below = max(0, math.ceil(math.log(alpha / SMALLEST_P) / math.log(FACTOR)))
    return [alpha * FACTOR**-number for number in range(-above, below + 1)]


@lru_cache(maxsize=8192)
def detectable(first: int, second: int, share: float, alpha: float, power: float = 0.8) -> float:
    """The smallest true difference, in true standard errors, that is found with this power; ``share`` is the true one.

    Example:
        >>> round(detectable(400, 400, 0.5, 0.05), 2)  # the normal quantiles of 97.5% and 80%, added
        2.81
    """
    from scipy import optimize  # noqa: PLC0415  (takes a tenth of a second to load, and few plans need it)

    errors = _Errors(first, second, alpha)
    critical_values = critical(first, second, errors.shares(share), alpha) * errors.scales(share)
    total = first + second
    reach = 8.0 * math.sqrt(2.0 / total)
    logs = np.linspace(-reach - 20.0 / total, reach, 50)  # of chi-squared over its mean
    density = total / 2.0 * (logs + math.log(total / 2.0)) - total / 2.0 * np.exp(logs) - math.lgamma(total / 2.0)
    weights = np.exp(density) * (logs[1] - logs[0])
    limits = np.exp(logs / 2.0)[:, None] * critical_values

    def lacking(effect: float) -> float:
        found = special.ndtr(effect - limits) + special.ndtr(-effect - limits)
        return float(weights @ found @ errors.weights) - power

    high = 1.0
    while lacking(high) < 0.0:
        high *= 2.0
    return float(optimize.brentq(lacking, 0.0, high, rtol=1e-5))


def _smaller(first: int, second: int, shares: FloatArray, alpha: float, level: float) -> FloatArray:
    """The smaller one of Banerjee's critical values, at just under alpha, and of Welch's at a level."""
    ones, others = (special.stdtrit(df, alpha * (1.0 - SLACK) / 2.0) ** 2 for df in (first, second))
    banerjee: FloatArray = np.sqrt(shares * ones + (1.0 - shares) * others)
    if not level:
        return banerjee
    smaller: FloatArray = np.minimum(banerjee, -special.stdtrit(satterthwaite(first, second, shares), level / 2.0))
    return smaller


@dataclass(frozen=True)
class _Errors:
    """Errors of critical values at all ratios of the two true variances of means.

    The beta-distributed share and the ratio are on grids of their logits that have one step, so that R, whose logit is
    the sum of both, has few values: critical values are computed once for each. In its logit the density falls off
    exponentially, so that the trapezoidal rule is as good as exact.
    """

    first: int
    second: int
    alpha: float

    @cached_property
    def step(self) -> float:
        """Of the logit of the beta-distributed share."""
        return min(0.5, 0.5 * math.sqrt(2.0 / self.first + 2.0 / self.second))

    @cached_property
    def _numbers(self) -> IntArray:
        """The points of the logit, in steps; beyond them the density does not matter to errors of alpha."""
        first, second = self.first / 2.0, self.second / 2.0
        ends = -80.0 / first, 80.0 / second
        points: IntArray = np.arange(math.floor(ends[0] / self.step), math.ceil(ends[1] / self.step) + 1)
        return points[self._log_density(self.step * points.astype(np.float64)) > math.log(self.alpha) - 14.0]

    def _log_density(self, logits: FloatArray) -> FloatArray:
        first, second = self.first / 2.0, self.second / 2.0
        logs = -first * np.logaddexp(0.0, -logits) - second * np.logaddexp(0.0, logits)
        return logs - float(special.betaln(first, second))

    @cached_property
    def weights(self) -> FloatArray:
        """Probabilities of the points."""
        return np.exp(self._log_density(self.step * self._numbers.astype(np.float64))) * self.step

    @cached_property
    def _parts(self) -> tuple[FloatArray, FloatArray]:
        """Both samples' variances over their true ones, if their sums of squares over them were 1 together."""
        logits, total = self._numbers * self.step, self.first + self.second
        return special.expit(logits) * total / self.first, special.expit(-logits) * total / self.second

    def scales(self, share: FloatArray | float) -> FloatArray:
        """What turns critical values into those of Student's t; ``share`` is that of the true variances of means."""
        ours, theirs = self._parts
        scales: FloatArray = np.sqrt(share * ours + (1.0 - share) * theirs)
        return scales

    def shares(self, share: float) -> FloatArray:
        """The share R at each point."""
        ours, theirs = (part * true for part, true in zip(self._parts, (share, 1.0 - share), strict=True))
        return ours / (ours + theirs)

    @cached_property
    def _stride(self) -> int:
        return max(1, round(STEP / self.step))

    @cached_property
    def _ratios(self) -> IntArray:
        """Logits of the true shares, in steps."""
        most = math.ceil(REACH / self.step / self._stride)
        ratios: IntArray = np.arange(-most, most + 1)
        spaced: IntArray = self._stride * ratios
        return spaced

    @cached_property
    def _ratio_scales(self) -> FloatArray:
        return self.scales(special.expit(self._ratios * self.step)[:, None])

    @cached_property
    def _all_shares(self) -> FloatArray:
        numbers = np.arange(self._numbers[0] + self._ratios[0], self._numbers[-1] + self._ratios[-1] + 1)
        shares: FloatArray = special.expit(numbers * self.step + math.log(self.second / self.first))
        return shares

    def at_all(self, level: float) -> FloatArray:
        """The error at each ratio, with Welch's critical values at a level."""
        values = _smaller(self.first, self.second, self._all_shares, self.alpha, level)
        windows = np.lib.stride_tricks.sliding_window_view(values, len(self._numbers))[:: self._stride]
        tails = special.stdtr(self.first + self.second, -windows * self._ratio_scales)
        errors: FloatArray = 2.0 * tails @ self.weights
        return errors

    def largest(self, level: float) -> float:
        """The largest error over all ratios: that of a parabola through the largest on the grid and its neighbors."""
        logs = np.log(self.at_all(level))
        top = int(logs.argmax())
        left, peak, right = logs[max(top - 1, 0)], logs[top], logs[min(top + 1, len(logs) - 1)]
        curvature = 2.0 * peak - left - right
        return math.exp(peak + ((left - right) ** 2 / (8.0 * curvature) if curvature > 0.0 else 0.0))
