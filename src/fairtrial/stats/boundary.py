"""Critical values under which all intervals of a study hold together.

The method is that of repeated confidence intervals (Jennison & Turnbull 1989, J. R. Stat. Soc. B 51, 305-361): a fixed
plan of looks, and critical values so large that, with probability 1 - alpha, the intervals of all arms at all looks
contain the true differences at once. It then does not matter why an arm stopped, or which arms continued.

Critical values have one free number, the level: look j uses the two-sided t quantile at nominal significance
level * n_j / n_J. The weights n_j / n_J leave a growing share to later looks, like error spending in proportion to the
seeds. Each arm at each look has a smallest level at which it is significant, p_j * n_J / n_j. The smallest of these in
a study without true differences is one random number. Its quantile is the level for an alpha, and its distribution
function gives the adjusted p-value for a level. Because the arms share the reference, the looks share seeds and the
tests share a spread, that distribution is simulated once for a plan, from normal noise with a fixed seed. Since nobody
knows how noisy arms are, it is simulated for many patterns of equal and unequal spread (`spreads`), and the level is
the smallest of theirs. One arm at one look needs no simulation: the level is alpha itself. Usual plans are tabulated in
``levels.json``, which ``benchmarks/levels.py`` writes.

A study that was extended after its results were seen has stages (`looks.Stage`). Each stage has a level of its own,
solved in turn: the largest at which it and all stages before it, each at its level, err together with probability at
most its share of alpha. What is added later can't change the level of a stage that was already judged.
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from fairtrial import progress
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.nulls import Nulls, noise
from fairtrial.stats.spreads import Spread, hard_spreads
from fairtrial.stats.variance import FloatArray, Pooling, Running

#: Studies simulated for a plan that is not tabulated, over all patterns of spread, and at least for each. The standard
#: error of an error rate of 5% is then 0.05 to 0.15 points, and levels are moved two of them to the safe side.
STUDIES, LEAST_STUDIES = 200_000, 20_000

#: Cells times seeds of all studies of a pattern; larger plans are solved from fewer studies, but at least from so many.
LARGE, FEWEST_STUDIES = 60_000_000, 2_000

#: Of a large plan, the patterns of spread count whose level is at most this many times the smallest.
NEAR = 2.0

#: Below this many simulated studies a tail is extrapolated rather than counted.
COUNTABLE = 25

#: Simulated studies whose means and scales at each look are kept, to compute power; fewer of a large plan, so that no
#: more numbers than this are kept of each.
PATHS, STORED = 20_000, 2_000_000

#: Of these, how many tell by how much a mean that stopped early is too large.
CORRECTIONS = 4_000

#: Error rates for which levels are solved; others are interpolated, and smaller ones extrapolated in proportion.
ALPHAS = np.r_[np.geomspace(1e-3, 0.5, 24), 0.7, 0.9, 0.99]

#: How much noisier arms apart are than others when levels are solved: so much that their errors are nearly independent.
_APART = 10.0


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
        means, scales = _paths(plan.arms - len(plan.apart), plan.looks, plan.pooling)
        df = np.array([plan.df(seeds) for seeds in plan.looks[: look + 1]])
        critical = np.array([float(plan.critical(level, j, df[j])) for j in range(look + 1)])
        least = np.full(len(means), np.inf)
        for j, needed in enumerate(critical / np.sqrt(plan.looks[: look + 1])):
            np.minimum(least, needed * scales[:, j] - means[:, j], out=least)
        return float(np.quantile(least, power))

    def corrected(self, alpha: float, mean: float) -> float:
        """The true difference of which arms have this mean on average when they stop; both in standard deviations.

        An arm stops at the first look at which the interval excludes zero, or after the last. That is the bias-adjusted
        estimate of Whitehead (1986, Biometrika 73, 573-581), from simulated studies of equal spread.
        """
        from scipy import optimize  # noqa: PLC0415  (takes a tenth of a second to load, and few plans need it)

        plan, level = self.plan, self.level(alpha)
        means, scales = (array[:CORRECTIONS] for array in _paths(plan.arms - len(plan.apart), plan.looks, plan.pooling))
        critical = [float(plan.critical(level, j, np.array(plan.df(seeds)))) for j, seeds in enumerate(plan.looks)]
        half = np.array(critical) / np.sqrt(plan.looks) * scales

        def excess(difference: float) -> float:
            reached = np.abs(means + difference) > half
            stop = np.where(reached.any(axis=1), reached.argmax(axis=1), len(plan.looks) - 1)
            return float((means[np.arange(len(means)), stop] + difference).mean()) - abs(mean)

        if excess(0.0) >= 0.0 or excess(abs(mean)) <= 0.0:
            return mean
        return float(np.copysign(optimize.brentq(excess, 0.0, abs(mean), xtol=1e-4), mean))


@lru_cache(maxsize=256)
def boundary(plan: LookPlan) -> Boundary:
    """Look up or solve the levels of a plan; the same plan always gives the same numbers.

    A plan that is not tabulated takes some seconds; the result is cached for the rest of the process.

    Example:
        >>> boundary(LookPlan.of(arms=1, looks=[5])).level(0.05)
        0.05
    """
    if plan.arms == 1 and len(plan.looks) == 1 and not plan.earlier:
        return Boundary(plan, None)
    if not plan.earlier:
        apart = range(plan.arms - len(plan.apart) + 1, plan.arms + 1)  # which arms they are makes no difference
        levels = _whole(LookPlan.of(plan.arms, plan.looks, plan.pooling, apart=apart))
        # The level for alpha is that of the whole plan for the share of alpha.
        within = ALPHAS * plan.share
        solved = np.exp(np.interp(np.log(within), np.log(ALPHAS), np.log(levels)))
        return Boundary(plan, np.where(within < ALPHAS[0], levels[0] * within / ALPHAS[0], solved))
    return Boundary(plan, solve(plan))


@lru_cache(maxsize=256)
def _whole(plan: LookPlan) -> FloatArray:
    """The levels of a plan without stages that spends all of alpha."""
    usual = (plan.pooling == "guarded" or plan.arms == 1) and not plan.apart
    found = _tabulated().get(table_key(plan.arms, plan.looks)) if usual else None
    return solve(plan) if found is None else np.array(found)


@cache
def _tabulated() -> dict[str, list[float]]:
    levels: dict[str, list[float]] = json.loads(Path(__file__).with_name("levels.json").read_text("utf-8"))
    return levels


def table_key(arms: int, looks: Sequence[int]) -> str:
    """The name of a plan in the table of levels."""
    return f"{arms}: {' '.join(map(str, looks))}"


def solve(plan: LookPlan, studies: int | None = None) -> FloatArray:
    """Solve the level for each of `ALPHAS`, from so many simulated studies of each pattern of spread.

    By default a large plan is solved from fewer studies than others, and without the patterns that a first simulation
    finds far from the hardest one. Its levels are then a little smaller.
    """
    spreads = _spreads(plan)
    if studies is None:
        studies = usual_studies(len(spreads))
        affordable = max(LARGE // _size(plan), FEWEST_STUDIES)
        if affordable < studies:
            studies, spreads = affordable, _hardest(plan, spreads)
    nulls = _smallest(plan, spreads, studies)
    before = [boundary(plan.stage(index)) for index in range(len(plan.earlier))]
    earlier = [[stage.level(alpha) for stage in before] for alpha in ALPHAS]
    already = plan.earlier[-1].share if before else 0.0
    levels = np.min([levels_of(null, earlier, already, plan.share) for null in nulls], axis=0)
    return np.maximum.accumulate(levels)


def usual_studies(patterns: int) -> int:
    """How many studies of each pattern are simulated for a plan that is not large."""
    return max(STUDIES // patterns, LEAST_STUDIES)


def _size(plan: LookPlan) -> int:
    """The cells times the seeds of a simulated study; the first looks cost more than others."""
    cells = max([plan.arms, *(cell for stage in plan.earlier for cell in stage.cells)]) + 1
    return cells * max([plan.looks[-1], *(stage.looks[-1] for stage in plan.earlier), 10])


def _hardest(plan: LookPlan, spreads: Sequence[Spread]) -> list[Spread]:
    """The patterns with a level near the smallest, by a simulation of few studies at few looks."""
    looks = sorted(_spaced(plan.looks))
    few = LookPlan.of(plan.arms, looks, plan.pooling, apart=plan.apart)
    nulls = _smallest(few, [spread.part(range(plan.arms + 1)) for spread in spreads], FEWEST_STUDIES // 2)
    levels = [float(np.quantile(null[0], 0.1)) for null in nulls]
    return [spread for spread, level in zip(spreads, levels, strict=True) if level <= NEAR * min(levels)]


def levels_of(
    null: FloatArray, earlier: Sequence[Sequence[float]] = (), already: float = 0.0, share: float = 1.0
) -> FloatArray:
    """The level for each of `ALPHAS`, from simulated studies under one pattern of spread.

    Args:
        null: (stages, studies), the smallest levels; those of the plan itself are last.
        earlier: for each alpha the level of each earlier stage.
        already: the share of alpha that the earlier stages may spend.
        share: the share that they and the plan may spend together.
    """
    null = null[:, np.argsort(null[-1])]
    levels = np.zeros(len(ALPHAS))
    for index, alpha in enumerate(ALPHAS):
        erred = np.zeros(null.shape[1], dtype=bool)
        for smallest, level in zip(null[:-1], earlier[index] if earlier else (), strict=True):
            erred |= smallest <= level * (1.0 - 1e-9)  # a level is just below a study's smallest, but for rounding
        # The second allowance, too, is within the share: the earlier stages are within theirs.
        allowed = max(share * alpha * len(erred) - float(erred.sum()), (share - already) * alpha * len(erred))
        levels[index] = _quantile(null[-1, ~erred], allowed)
    return levels


def _quantile(ascending: FloatArray, allowed: float) -> float:
    """The level with so many of the simulated studies at or below it, two standard errors to the safe side."""
    if allowed < COUNTABLE + 2.0 * np.sqrt(COUNTABLE):
        return float(ascending[COUNTABLE - 1] * allowed / (COUNTABLE + 2.0 * np.sqrt(COUNTABLE)))
    rank = int((np.sqrt(1.0 + allowed) - 1.0) ** 2)  # solves rank + 2 sqrt(rank) = allowed
    return float(np.nextafter(ascending[min(rank, len(ascending) - 1)], 0.0))


def _spreads(plan: LookPlan) -> list[Spread]:
    """The patterns of spread of a plan's cells and those of its earlier stages."""
    cells = max([plan.arms, *(cell for stage in plan.earlier for cell in stage.cells)]) + 1
    pooled = {part.pooling for part in (plan, *map(plan.stage, range(len(plan.earlier))))}
    kind: Pooling = "guarded" if "guarded" in pooled else "own" if "own" in pooled else "pooled"
    found = []
    for spread in hard_spreads(cells - 1 - len(plan.apart), kind):
        others = iter(spread.cells)
        found.append(
            Spread(tuple(_APART if cell in plan.apart else next(others) for cell in range(cells)), spread.kind)
        )
    return found


def _smallest(plan: LookPlan, spreads: Sequence[Spread], studies: int) -> list[FloatArray]:
    """The smallest level of each simulated study, for each pattern (stages, studies), the plan itself last."""
    parts = [(plan.stage(index), stage.cells) for index, stage in enumerate(plan.earlier)]
    parts.append((plan, tuple(range(plan.arms + 1))))
    seeds = max(part.looks[-1] for part, _ in parts)
    chunks, found, done = [*noise(seeds, len(spreads[0].cells), studies)], [], 0
    for chunk in chunks:
        simulated = [_Simulated(*part, spreads, chunk.studies) for part in parts]
        for coarse in (True, False):
            for part in simulated:
                part.begin(coarse=coarse)
            for values in chunk:
                for part in simulated:
                    part.add(values)
                done += 1
                progress.report(done, 2 * seeds * len(chunks), "critical values")
        found.append(np.array([part.levels for part in simulated]))
    return list(np.concatenate(found, axis=2).transpose(1, 0, 2))


class _Simulated:
    """Simulated studies of one plan, and the smallest level of each at the looks so far, (patterns, studies).

    They are run twice: first for a few looks, which leave little to do at most of the others.
    """

    def __init__(self, plan: LookPlan, cells: tuple[int, ...], spreads: Sequence[Spread], studies: int) -> None:
        self._plan, self._cells, self._spreads = plan, list(cells), spreads
        self.levels = np.full((len(spreads), studies), np.inf)

    def begin(self, *, coarse: bool) -> None:
        """Begin a run, of the few looks or of all others."""
        few = {*_spaced(self._plan.looks)}
        weights = zip(self._plan.looks, self._plan.weights, strict=True)
        self._weights = {look: weight for look, weight in weights if (look in few) is coarse}
        self._nulls = self._begun()
        self._seeds = 0

    def _begun(self) -> list[Nulls]:
        """Nulls for all patterns, or one for each where the stage had another reference than the plan."""
        if self._cells[0]:
            equal = np.ones((1, self._plan.arms))
            return [Nulls(equal, equal, self._plan.pooling, self._plan.apart) for _ in self._spreads]
        return [Nulls.of([one.part(self._cells) for one in self._spreads], self._plan.pooling, self._plan.apart)]

    def add(self, noise: FloatArray) -> None:
        """Add a seed, and look if one is planned after it."""
        self._seeds += 1
        if self._seeds > max(self._weights, default=0):
            return
        if self._cells[0]:
            for spread, nulls in zip(self._spreads, self._nulls, strict=True):
                nulls.add(spread.values(noise)[self._cells])
        else:
            self._nulls[0].add(noise[self._cells])
        if weight := self._weights.get(self._seeds):
            for levels, nulls in zip(np.split(self.levels, len(self._nulls)), self._nulls, strict=True):
                nulls.look(levels, weight)


def _spaced(looks: Sequence[int]) -> Iterator[int]:
    """The last look, and earlier ones at a distance: each has at most four fifths of the seeds of the next."""
    last = math.inf
    for look in reversed(looks):
        if look <= 0.8 * last:
            yield look
            last = look


@lru_cache(maxsize=64)
def _paths(arms: int, looks: tuple[int, ...], pooling: Pooling) -> tuple[FloatArray, FloatArray]:
    """Means of one arm's differences and their scales in simulated studies of equal spread; both (paths, looks)."""
    affordable = min(PATHS, STORED // len(looks), LARGE // ((arms + 1) * looks[-1]))
    chunks = [*noise(looks[-1], arms + 1, max(affordable, FEWEST_STUDIES))]
    found = np.empty((2, len(looks), sum(chunk.studies for chunk in chunks)))
    columns = {seeds: index for index, seeds in enumerate(looks)}
    for number, chunk in enumerate(chunks):
        running, here = Running(pooling), slice(number * chunk.studies, (number + 1) * chunk.studies)
        for seeds, cells in enumerate(chunk, start=1):
            running.add((cells[1:] - cells[:1]) / np.sqrt(2.0))
            if seeds in columns:
                found[:, columns[seeds], here] = [array[0] for array in running.estimate()]
    means, scales = found.transpose(0, 2, 1)
    return means, scales
