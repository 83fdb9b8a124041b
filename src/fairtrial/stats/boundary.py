"""Critical values under which all intervals of a study hold together.

The method is that of repeated confidence intervals (Jennison & Turnbull 1989, J. R. Stat. Soc. B 51, 305-361): a fixed
plan of looks, and critical values so large that, with probability 1 - alpha, the intervals of all arms at all looks
contain the true differences at once. It then does not matter why an arm stopped, or which arms continued.

Critical values have one free number, the level: look j uses the two-sided t quantile at nominal significance
level * n_j / n_J. The weights n_j / n_J leave a growing share to later looks, like error spending in proportion to the
seeds. Each arm at each look has a smallest level at which it is significant, p_j * n_J / n_j. The smallest of these in
a study without true differences is one random number. Its quantile is the level for an alpha, and its distribution
function gives the adjusted p-value for a level. Because the arms share the reference, the looks share seeds and the
tests share a spread, that distribution is simulated once for a plan, from normal noise with a fixed seed. One arm at
one look needs no simulation: the level is alpha itself.

A study that was extended after its results were seen has stages (`Stage`). Each stage has a level of its own, solved in
turn: the largest at which it and all stages before it, each at its level, err together with probability at most its
share of alpha. What is added later can't change the level of a stage that was already judged.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
from scipy import special

from fairtrial.stats.variance import FloatArray, IntArray, Pooling, complete

#: Studies simulated for a plan: the standard error of an error rate of 5% is then 0.05 points.
STUDIES = 200_000

#: Below this many simulated studies a tail is extrapolated rather than counted.
COUNTABLE = 25

#: Simulated studies whose means and scales at each look are kept, to compute power.
PATHS = 20_000

#: Error rates for which levels are solved; others are interpolated, and smaller ones extrapolated in proportion.
ALPHAS = np.r_[np.geomspace(1e-3, 0.5, 40), 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]

#: The part of the alpha left that each stage leaves to the stages after it: the first spends 1 - 0.3, two 1 - 0.3^2.
REMAINDER = 0.3

_CHUNK = 1_000
_SEED = 20_240_601


@dataclass(frozen=True)
class Stage:
    """Looks that were planned together, by one study, at trials that a later study shares."""

    looks: tuple[int, ...]  # numbers of seeds
    share: float  # of alpha, that this stage and all before it may spend
    #: The arms, the stage's reference first: 0 is the reference of the plan, 1 to m are its arms, higher ones others.
    cells: tuple[int, ...]
    pooling: Pooling = "guarded"


@dataclass(frozen=True)
class LookPlan:
    """What critical values depend on besides alpha."""

    arms: int  # compared with the reference
    looks: tuple[int, ...]  # numbers of seeds, ascending
    pooling: Pooling  # see `variance.estimate`
    earlier: tuple[Stage, ...] = ()  # looks taken before these, in turn
    share: float = 1.0  # of alpha, that this plan and the earlier stages may spend together

    @classmethod
    def of(
        cls,
        arms: int,
        looks: Iterable[int],
        pooling: Pooling = "guarded",
        *,
        earlier: Iterable[Stage] = (),
        share: float = 1.0,
    ) -> "LookPlan":
        """Check and build a plan; raises ValueError for impossible ones."""
        looks, earlier = tuple(int(look) for look in looks), tuple(earlier)
        if arms < 1:
            raise ValueError(f"arms = {arms}: must be at least 1")
        for planned in (looks, *(stage.looks for stage in earlier)):
            if not planned or planned[0] < 2 or any(a >= b for a, b in pairwise(planned)):
                raise ValueError(f"looks = {list(planned)}: must be ascending numbers of seeds, each at least 2")
        if pooling not in {"guarded", "pooled", "own"}:
            raise ValueError(f'pooling = {pooling!r}: must be "guarded", "pooled" or "own"')
        shares = [0.0, *(stage.share for stage in earlier), share]
        if any(a >= b for a, b in pairwise(shares)) or share > 1:
            raise ValueError(f"shares = {shares[1:]}: must ascend with the stages, from above 0 to at most 1")
        for stage in earlier:
            if len(stage.cells) < 2 or len({*stage.cells}) < len(stage.cells) or min(stage.cells) < 0:
                raise ValueError(f"cells = {list(stage.cells)}: must be a reference and its arms, each named once")
        return cls(arms, looks, pooling if arms > 1 else "own", earlier, share)

    @property
    def weights(self) -> FloatArray:
        """Share of the level that each look uses."""
        return np.array(self.looks) / self.looks[-1]

    def stage(self, index: int) -> "LookPlan":
        """The plan of an earlier stage, as it was before the later ones; its own cells come first."""
        own = self.earlier[index]
        numbers = {cell: number for number, cell in enumerate(own.cells)}
        earlier = tuple(
            replace(stage, cells=tuple(numbers.setdefault(cell, len(numbers)) for cell in stage.cells))
            for stage in self.earlier[:index]
        )
        return LookPlan.of(len(own.cells) - 1, own.looks, own.pooling, earlier=earlier, share=own.share)

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
    """The critical values of a plan."""

    plan: LookPlan
    #: The level for each of `ALPHAS`; None where it is the plan's share of alpha itself.
    levels: FloatArray | None = field(repr=False)

    def level(self, alpha: float) -> float:
        """The level at which all arms and looks, with those of earlier stages, err with probability share * alpha."""
        if self.levels is None:
            return alpha * self.plan.share
        if alpha < ALPHAS[0]:
            return float(self.levels[0] * alpha / ALPHAS[0])
        return float(np.exp(np.interp(np.log(alpha), np.log(ALPHAS), np.log(self.levels))))

    def family_wise(self, level: float) -> float:
        """The smallest alpha whose level is this one or more.

        For a plan without stages that is the probability that a study without true differences has an arm
        significant at this level or below. Below the first of `ALPHAS` it is proportional to the level, like the sum of
        the nominal significances.
        """
        if self.levels is None:
            return min(level / self.plan.share, 1.0)
        if level < self.levels[0]:
            return float(ALPHAS[0] * level / self.levels[0])
        if level > self.levels[-1]:
            return 1.0
        return float(np.exp(np.interp(np.log(level), np.log(self.levels), np.log(ALPHAS))))

    def detectable(self, alpha: float, look: int, power: float) -> float:
        """Smallest difference found with this power up to a look, in standard deviations of a paired difference.

        In each simulated study of equal spread some difference is the smallest at which a look would have excluded zero
        on the right side; the answer is the power's quantile of those.
        """
        plan, level = self.plan, self.level(alpha)
        means, scales = _paths(LookPlan.of(plan.arms, plan.looks, plan.pooling))
        df = np.array([plan.df(seeds) for seeds in plan.looks[: look + 1]])
        critical = np.array([float(plan.critical(level, j, df[j])) for j in range(look + 1)])
        needed = critical / np.sqrt(plan.looks[: look + 1]) * scales[:, : look + 1] - means[:, : look + 1]
        return float(np.quantile(needed.min(axis=1), power))


@lru_cache(maxsize=256)
def boundary(plan: LookPlan) -> Boundary:
    """Solve the levels of a plan; the same plan always gives the same numbers.

    It takes about two seconds for four arms and ten looks; the result is cached for the rest of the process.

    Example:
        >>> boundary(LookPlan.of(arms=1, looks=[5])).level(0.05)
        0.05
    """
    if plan.arms == 1 and len(plan.looks) == 1 and not plan.earlier:
        return Boundary(plan, None)
    return Boundary(plan, np.maximum.accumulate(_levels(plan)))


def _levels(plan: LookPlan) -> FloatArray:
    """The level for each of `ALPHAS`: see the module's docstring."""
    *earlier, own = _smallest(plan)
    order = np.argsort(own)
    own, earlier = own[order], [stage[order] for stage in earlier]
    before = [boundary(plan.stage(index)) for index in range(len(earlier))]
    already = plan.earlier[-1].share if earlier else 0.0
    levels = []
    for alpha in ALPHAS:
        erred = np.zeros(len(own), dtype=bool)
        for stage, solved in zip(earlier, before, strict=True):
            erred |= stage <= solved.level(alpha)
        # The second allowance, too, is within the share: the earlier stages are within theirs.
        allowed = alpha * max(plan.share * len(own) - erred.sum() / alpha, (plan.share - already) * len(own))
        levels.append(_quantile(own[~erred], allowed))
    return np.array(levels)


def _quantile(ascending: FloatArray, allowed: float) -> float:
    """The level with so many of the simulated studies at or below it, two standard errors to the safe side."""
    if allowed < COUNTABLE + 2.0 * np.sqrt(COUNTABLE):
        return float(ascending[COUNTABLE - 1] * allowed / (COUNTABLE + 2.0 * np.sqrt(COUNTABLE)))
    rank = int((np.sqrt(1.0 + allowed) - 1.0) ** 2)  # solves rank + 2 sqrt(rank) = allowed
    return float(np.nextafter(ascending[rank], 0.0))


def _smallest(plan: LookPlan) -> list[FloatArray]:
    """The smallest level of each simulated study without true differences, for the earlier stages and the plan."""
    parts = [(plan.stage(index), stage.cells) for index, stage in enumerate(plan.earlier)]
    parts.append((plan, tuple(range(plan.arms + 1))))
    seeds = max(part.looks[-1] for part, _ in parts)
    size = max(max(cells) for _, cells in parts) + 1
    found: list[list[FloatArray]] = [[] for _ in parts]
    for noise in _noise(seeds, size, STUDIES):
        for (part, cells), smallest in zip(parts, found, strict=True):
            mean, scale = complete(_differences(noise[:, : part.looks[-1], list(cells)]), part.looks, part.pooling)
            t = np.abs(mean / scale).max(axis=2) * np.sqrt(part.looks)
            levels = [part.levels(t[:, j], j, np.array(part.df(look))) for j, look in enumerate(part.looks)]
            smallest.append(np.min(levels, axis=0))
    return [np.concatenate(smallest) for smallest in found]


@lru_cache(maxsize=64)
def _paths(plan: LookPlan) -> tuple[FloatArray, FloatArray]:
    """Means of one arm's differences and their scales in simulated studies of equal spread; both (paths, looks)."""
    chunks = [
        complete(_differences(noise), plan.looks, plan.pooling)
        for noise in _noise(plan.looks[-1], plan.arms + 1, PATHS)
    ]
    means, scales = (np.concatenate([array[:, :, 0] for array in arrays]) for arrays in zip(*chunks, strict=True))
    return means, scales


def _differences(noise: FloatArray) -> FloatArray:
    """Paired differences of unit variance, from noise of unit variance with the reference's first."""
    differences: FloatArray = (noise[..., 1:] - noise[..., :1]) / np.sqrt(2.0)
    return differences


def _noise(seeds: int, cells: int, studies: int) -> Iterator[FloatArray]:
    """Yield normal noise, (studies, seeds, cells), in chunks that fit the cache.

    Fewer seeds or cells are a part of more, so that nested plans are solved on the same numbers.
    """
    for chunk in range(studies // _CHUNK):
        rngs = (np.random.default_rng([_SEED, chunk, seed]) for seed in range(seeds))
        yield np.stack([rng.standard_normal((cells, _CHUNK)).T for rng in rngs], axis=1)
