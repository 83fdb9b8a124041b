"""Critical values under which all intervals of a study hold together.

The method is that of repeated confidence intervals (Jennison & Turnbull 1989, J. R. Stat. Soc. B 51, 305-361): a fixed
plan of looks, and critical values so large that, with probability 1 - alpha, the intervals of all arms at all looks
contain the true differences at once. It then does not matter why an arm stopped, or which arms continued.

Critical values have one free number, the level: look j uses the two-sided t quantile at nominal significance
level * n_j / n_J. The weights n_j / n_J leave a growing share to later looks, like error spending in proportion to the
seeds. Each arm at each look has a smallest level at which it is significant, p_j * n_J / n_j. The smallest of these in
a study without true differences is one random number. Its quantile is the level for an alpha, and its distribution
function gives the adjusted p-value for a level. Because the arms share the reference, the looks share seeds and the
tests share a spread, that distribution is simulated once for a plan, from normal noise of equal spread with a fixed
seed. One arm at one look needs no simulation: the level is alpha itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import special

from fairtrial.stats.variance import FloatArray, IntArray, Pooling, complete

#: Studies simulated for a plan: the standard error of an error rate of 5% is then 0.05 points.
STUDIES = 200_000

#: Below this many simulated studies a tail is extrapolated rather than counted.
COUNTABLE = 400

#: Simulated studies whose means and scales at each look are kept, to compute power.
PATHS = 20_000

_CHUNK = 1_000
_SEED = 20_240_601


@dataclass(frozen=True)
class LookPlan:
    """What critical values depend on besides alpha."""

    arms: int  # compared with the reference
    looks: tuple[int, ...]  # numbers of seeds, ascending
    pooling: Pooling  # see `variance.estimate`

    @classmethod
    def of(cls, arms: int, looks: Iterable[int], pooling: Pooling = "guarded") -> "LookPlan":
        """Check and build a plan; raises ValueError for impossible ones."""
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
        """Degrees of freedom of the scale after this many seeds without gaps."""
        return (seeds - 1) * (1 if self.pooling == "own" else self.arms)

    def critical(self, level: float, look: int, df: IntArray) -> FloatArray:
        """Critical values of |t| at a look, one for each element of df; infinite where it is 0."""
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
    """Simulated studies of a plan without true differences, and the critical values that follow."""

    plan: LookPlan
    #: Smallest level of each simulated study, ascending; None where the level is alpha itself.
    null: FloatArray | None = field(repr=False)
    #: Means of one arm's differences and their scales, in standard deviations; both (paths, looks).
    means: FloatArray = field(repr=False)
    scales: FloatArray = field(repr=False)

    def level(self, alpha: float) -> float:
        """The level at which all arms and looks together err with probability alpha, or very slightly less."""
        if self.null is None:
            return alpha
        wanted = alpha * len(self.null)
        if wanted < _high(COUNTABLE):
            return float(self.null[COUNTABLE - 1] * wanted / _high(COUNTABLE))
        rank = int((np.sqrt(1.0 + wanted) - 1.0) ** 2)  # solves _high(rank) = wanted
        return float(np.nextafter(self.null[rank], 0.0))

    def family_wise(self, level: float) -> float:
        """Probability that a study without true differences has an arm significant at this level or below.

        In the far tail, below `COUNTABLE` simulated studies, it is proportional to the level, like the sum of
        the nominal significances.
        """
        if self.null is None:
            return min(level, 1.0)
        count = float(np.searchsorted(self.null, level, side="right"))
        if count < COUNTABLE:
            return float(_high(COUNTABLE) / len(self.null) * level / self.null[COUNTABLE - 1])
        return min(_high(count) / len(self.null), 1.0)

    def detectable(self, alpha: float, look: int, power: float) -> float:
        """Smallest difference found with this power up to a look, in standard deviations of a paired difference.

        In each simulated study some difference is the smallest at which a look would have excluded zero on the right
        side; the answer is the power's quantile of those.
        """
        plan, level = self.plan, self.level(alpha)
        df = np.array([plan.df(seeds) for seeds in plan.looks[: look + 1]])
        critical = np.array([float(plan.critical(level, j, df[j])) for j in range(look + 1)])
        needed = critical / np.sqrt(plan.looks[: look + 1]) * self.scales[:, : look + 1] - self.means[:, : look + 1]
        return float(np.quantile(needed.min(axis=1), power))


def _high(count: float) -> float:
    """A count of simulated studies plus two standard errors, so that the simulation errs on the safe side."""
    return float(count + 2.0 * np.sqrt(count))


@lru_cache(maxsize=64)
def boundary(plan: LookPlan) -> Boundary:
    """Simulate studies of a plan without true differences; the same plan always gives the same numbers.

    It takes about two seconds for four arms and ten looks; the result is cached for the rest of the process.

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
    """Yield paired differences of unit variance without true differences, in chunks that fit the cache."""
    rng = np.random.default_rng(_SEED)
    for start in range(0, studies, _CHUNK):
        cells = rng.standard_normal((min(_CHUNK, studies - start), plan.looks[-1], plan.arms + 1))
        yield (cells[..., 1:] - cells[..., :1]) / np.sqrt(2.0)
