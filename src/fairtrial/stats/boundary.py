"""How large a difference must be at each look, so that all intervals of a study hold together.

The method is that of repeated confidence intervals (Jennison & Turnbull 1989, J. R. Stat. Soc. B 51, 305-361): a fixed
plan of looks, and critical values so large that, with probability 1 - alpha, the intervals of all arms at all looks
contain the true differences at once. It then does not matter why an arm stopped, nor which arms went on.

Critical values have one free number, the level: look j uses the two-sided t quantile at nominal significance
level * n_j / n_J. The weights n_j / n_J leave a growing share to later looks, as error spending in proportion to the
seeds does. Each arm at each look has the smallest level at which it is significant, p_j * n_J / n_j; the smallest of a
whole study with no true difference is one random number, whose distribution gives both the level for an alpha (its
quantile) and the adjusted p-value for a level (its distribution function). That distribution is simulated once for a
plan, from normal noise of equal spread and with a fixed seed, because the arms share the reference, the looks share
seeds and the tests share a spread; one arm at one look needs none, there the level is alpha itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import special

from fairtrial.stats.variance import FloatArray, IntArray, Pooling, complete

#: Studies simulated for a plan. The standard error of an error rate of 5% is then 0.05 points.
STUDIES = 200_000

#: Below this many simulated studies a tail is extrapolated rather than counted.
COUNTABLE = 400

#: Simulated studies kept as paths of means and scales, for questions of power.
PATHS = 20_000

_CHUNK = 1_000
_SEED = 20_240_601


@dataclass(frozen=True)
class LookPlan:
    """Arms, looks and kind of pooling: what critical values depend on besides alpha.

    Attributes:
        arms: number of arms that are compared with the reference.
        looks: numbers of seeds at which the evidence is looked at, ascending.
        pooling: see `spread.estimate`.
    """

    arms: int
    looks: tuple[int, ...]
    pooling: Pooling = "guarded"

    @classmethod
    def of(cls, arms: int, looks: Iterable[int], pooling: Pooling = "guarded") -> "LookPlan":
        """Check and build a plan.

        Raises:
            ValueError: no arm, no look, a look below 2 seeds or looks that do not ascend.
        """
        looks = tuple(int(look) for look in looks)
        if arms < 1:
            raise ValueError(f"arms = {arms}: must be at least 1")
        if not looks or looks[0] < 2 or any(a >= b for a, b in pairwise(looks)):
            raise ValueError(f"looks = {list(looks)}: must be ascending numbers of seeds, each at least 2")
        if pooling not in {"guarded", "pooled", "own"}:
            raise ValueError(f'pooling = {pooling!r}: must be "guarded", "pooled" or "own"')
        return cls(arms, looks, pooling if arms > 1 else "own")

    @property
    def weights(self) -> FloatArray:
        """Share of the level that each look uses."""
        return np.array(self.looks) / self.looks[-1]

    def df(self, seeds: int) -> int:
        """Degrees of freedom of the scale after this many complete seeds."""
        return (seeds - 1) * (1 if self.pooling == "own" else self.arms)

    def critical(self, level: float, look: int, df: IntArray) -> FloatArray:
        """Critical values of |t| at a look, for degrees of freedom of any shape; infinite where there are none."""
        tail = min(level * self.weights[look], 1.0) / 2
        values, where = np.unique(df, return_inverse=True)
        quantiles = np.where(values > 0, -special.stdtrit(np.maximum(values, 1), tail), np.inf)
        return np.asarray(quantiles[where].reshape(df.shape), dtype=np.float64)

    def levels(self, t: FloatArray, look: int, df: IntArray) -> FloatArray:
        """The smallest level at which each t is significant at this look; NaN stays NaN."""
        p = 2.0 * special.stdtr(np.maximum(df, 1), -np.abs(t))
        return np.asarray(p / self.weights[look], dtype=np.float64)


@dataclass(frozen=True)
class Boundary:
    """What a plan's study without true differences does, and hence its critical values.

    Attributes:
        plan: what it holds for.
        null: smallest level of each simulated study, ascending; None where the level is alpha itself.
        means: means of one arm's differences in units of their standard deviation, (paths, looks).
        scales: the scale that belongs to each, in the same units.
    """

    plan: LookPlan
    null: FloatArray | None = field(repr=False)
    means: FloatArray = field(repr=False)
    scales: FloatArray = field(repr=False)

    def level(self, alpha: float) -> float:
        """The level at which all arms and looks together err with probability alpha, or a trifle less."""
        if self.null is None:
            return alpha
        wanted = alpha * len(self.null)
        if wanted < _high(COUNTABLE):
            return float(self.null[COUNTABLE - 1] * wanted / _high(COUNTABLE))
        rank = int((np.sqrt(1.0 + wanted) - 1.0) ** 2)  # of which _high is what was wanted
        return float(np.nextafter(self.null[rank], 0.0))

    def family_wise(self, level: float) -> float:
        """Probability that a study without true differences has an arm significant at this level or a smaller one.

        In the far tail, below `COUNTABLE` simulated studies, it falls in proportion to the level, as the sum of the
        nominal significances does.
        """
        if self.null is None:
            return min(level, 1.0)
        count = float(np.searchsorted(self.null, level, side="right"))
        if count < COUNTABLE:
            return float(_high(COUNTABLE) / len(self.null) * level / self.null[COUNTABLE - 1])
        return min(_high(count) / len(self.null), 1.0)

    def detectable(self, alpha: float, look: int, power: float) -> float:
        """Smallest difference found at this look or an earlier one, in standard deviations of a paired difference.

        Each simulated study has a smallest difference at which one of its looks would have left zero out on the right
        side; the power's quantile of those over studies is the answer.

        Args:
            alpha: the family-wise error rate.
            look: index of the last look that counts.
            power: the probability with which it is found.
        """
        plan, level = self.plan, self.level(alpha)
        df = np.array([plan.df(seeds) for seeds in plan.looks[: look + 1]])
        critical = np.array([float(plan.critical(level, j, df[j])) for j in range(look + 1)])
        needed = critical / np.sqrt(plan.looks[: look + 1]) * self.scales[:, : look + 1] - self.means[:, : look + 1]
        return float(np.quantile(needed.min(axis=1), power))


def _high(count: float) -> float:
    """A count of simulated studies, two standard errors up: the simulation's own error is on the safe side."""
    return float(count + 2.0 * np.sqrt(count))


@lru_cache(maxsize=64)
def boundary(plan: LookPlan) -> Boundary:
    """Simulate a plan's study without true differences; the same plan gives the same numbers every time.

    It takes about two seconds for four arms and ten looks, and is kept for the rest of the process.

    Example:
        >>> boundary(LookPlan.of(arms=1, looks=[5])).level(0.05)
        0.05
    """
    exact = plan.arms == 1 and len(plan.looks) == 1
    smallest: list[FloatArray] = []
    means: list[FloatArray] = []
    scales: list[FloatArray] = []
    for noise in _noise(plan, PATHS if exact else STUDIES):
        mean, scale = complete(noise, plan.looks, plan.pooling)
        if len(means) * _CHUNK < PATHS:
            means.append(mean[:, :, 0])
            scales.append(scale[:, :, 0])
        t = np.abs(mean / scale).max(axis=2) * np.sqrt(plan.looks)
        levels = [plan.levels(t[:, j], j, np.array(plan.df(seeds))) for j, seeds in enumerate(plan.looks)]
        smallest.append(np.min(levels, axis=0))
    null = None if exact else np.sort(np.concatenate(smallest))
    return Boundary(plan, null, np.concatenate(means), np.concatenate(scales))


def _noise(plan: LookPlan, studies: int) -> Iterator[FloatArray]:
    """Paired differences of unit variance without true differences, in chunks that fit the cache."""
    rng = np.random.default_rng(_SEED)
    for start in range(0, studies, _CHUNK):
        cells = rng.standard_normal((min(_CHUNK, studies - start), plan.looks[-1], plan.arms + 1))
        yield (cells[..., 1:] - cells[..., :1]) / np.sqrt(2.0)
