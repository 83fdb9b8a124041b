"""Simulated studies without true differences, from which levels are solved.

Studies are simulated seed by seed, with running sums, so that memory does not grow with the seeds. Under every pattern
of spread, a difference is ``own[a] z[a] - reference[a] z[0]`` of the same noise z. So the sums of squares of all
patterns follow from the moments of the noise, which are summed once.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from scipy import special

from fairtrial.stats.spreads import Spread
from fairtrial.stats.variance import FloatArray, IntArray, Pooling, common_variances, complete_variance

#: Studies simulated together; fewer if they have so many cells that a seed of them would exceed `CELLS`.
CHUNK, CELLS = 1_000, 250_000
SEED = 20_240_601

#: p-values of which |t| is tabulated, to leave out the studies that a look can't change.
_P_VALUES = np.geomspace(1e-12, 1.0, 400)
_STEP = float(np.log(_P_VALUES[1] / _P_VALUES[0]))

#: Bounds are lowered by this part, which is more than rounding errors.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Chunk:
    """Standard normal noise of some studies: iterating gives (cells, studies) for one seed after the other."""

    number: int
    seeds: int
    cells: int
    studies: int

    def __iter__(self) -> Iterator[FloatArray]:
        rngs = (np.random.default_rng([SEED, self.number, seed]) for seed in range(self.seeds))
        return (rng.standard_normal((self.cells, self.studies)) for rng in rngs)


def noise(seeds: int, cells: int, studies: int) -> Iterator[Chunk]:
    """Yield chunks of at least so many studies.

    Fewer seeds or cells are a part of more, so that nested plans are solved on the same numbers.
    """
    size = min(CHUNK, max(CELLS // cells, 1))
    return (Chunk(number, seeds, cells, size) for number in range(-(-studies // size)))


class Nulls:
    """Studies of one plan under several patterns of spread: seeds are added, and looks taken between them.

    Args:
        own: (patterns, arms), see the module's first lines.
        reference: the same.
        pooling: see `fairtrial.stats.variance.estimate`.
        apart: arms, numbered from 1, that are tested by their own spread.
    """

    def __init__(self, own: FloatArray, reference: FloatArray, pooling: Pooling, apart: Collection[int] = ()) -> None:
        self.seeds = 0
        alone = [arm - 1 for arm in apart]
        together = [arm for arm in range(own.shape[1]) if arm not in alone]
        groups: list[tuple[list[int], Pooling]] = [(together, pooling), (alone, "own")]
        self._parts = [(arms, _Moments(own[:, arms], reference[:, arms], kind)) for arms, kind in groups if arms]

    @classmethod
    def of(cls, spreads: Sequence[Spread], pooling: Pooling, apart: Collection[int] = ()) -> Self:
        """Those of a plan whose arms are all cells of these patterns but the first, its reference."""
        own, reference = np.array([spread.weights for spread in spreads]).transpose(1, 0, 2)
        return cls(own[:, 1:], (own[:, :1] + reference)[:, 1:], pooling, apart)

    def add(self, noise: FloatArray) -> None:
        """Add a seed's noise of the reference and the arms, (cells, studies)."""
        self.seeds += 1
        for arms, moments in self._parts:
            moments.add(noise[1:] if len(arms) == len(noise) - 1 else noise[1:][arms], noise[0])

    def look(self, levels: FloatArray, weight: float = 1.0) -> None:
        """Lower each level, (patterns, studies), to the smallest p-value of any arm over a weight, if that is less."""
        for _, moments in self._parts:
            root = np.sqrt(moments.seeds)
            where, ratios = moments.exceeding(_least_t(moments.df, levels * weight) / root)
            p = 2.0 * special.stdtr(moments.df, -ratios * root)
            levels[where] = np.minimum(levels[where], p / weight)


class _Moments:
    """Sums and products of noise over the seeds so far, and what they say of some arms' differences; as `Nulls`."""

    def __init__(self, own: FloatArray, reference: FloatArray, pooling: Pooling) -> None:
        self.seeds = 0
        self._pooling: Pooling = "own" if own.shape[1] == 1 else pooling
        # Groups of arms that have the same weights under every pattern; the first arm of each stands for it.
        _, group = np.unique(np.concatenate([own, reference]), axis=1, return_inverse=True)
        self._order = np.argsort(group, kind="stable")
        self._own, self._reference = own[:, self._order], reference[:, self._order]
        self._starts = np.flatnonzero(np.diff(group[self._order], prepend=-1))
        # Over seeds: of each arm's noise the sum, the sum of squares, and that of products with the reference's.
        self._sum = self._squares = self._products = np.zeros(1)
        self._first = self._first_squares = np.zeros(1)  # the reference's
        # Of the squared sum over arms, (patterns, studies): that sum is one over groups and the reference.
        self._weights = np.column_stack([own[:, self._order[self._starts]], -reference.sum(axis=1)])
        self._rows = np.zeros(1)

    @property
    def df(self) -> int:
        """Degrees of freedom of the scale."""
        return (self.seeds - 1) * (1 if self._pooling == "own" else self._own.shape[1])

    def add(self, noise: FloatArray, first: FloatArray) -> None:
        """Add a seed's noise of the arms, (arms, studies), and of the reference."""
        self.seeds += 1
        noise = noise[self._order]
        groups = np.concatenate([np.add.reduceat(noise, self._starts), first[None]])
        self._sum = self._sum + noise
        self._squares = self._squares + noise**2
        self._products = self._products + noise * first
        self._first, self._first_squares = self._first + first, self._first_squares + first**2
        self._rows = self._rows + (self._weights @ groups) ** 2

    def exceeding(self, bound: FloatArray) -> tuple[tuple[IntArray, IntArray], FloatArray]:
        """Find where some arm's |mean| / scale exceeds a bound, (patterns, studies), and the largest ratios there.

        Only where a simple bound on them does is anything computed for each arm.
        """
        between = self._between()
        near = self._largest_sum() ** 2 >= (bound * self.seeds) ** 2 * self._least_variance(between)
        patterns, studies = np.nonzero(near)
        size = max(CELLS // len(self._order), 1)
        blocks = [slice(start, start + size) for start in range(0, len(patterns), size)]
        ratios = [self._ratios(patterns[block], studies[block], between) for block in blocks]
        found = np.concatenate([np.zeros(0), *ratios])
        above = found > bound[patterns, studies]
        return (patterns[above], studies[above]), found[above]

    def _between(self) -> FloatArray:
        """Sum of squares of the seeds' sums over arms, around their mean; (patterns, studies)."""
        groups = np.concatenate([np.add.reduceat(self._sum, self._starts), self._first[None]])
        return np.asarray(self._rows - (self._weights @ groups) ** 2 / self.seeds)

    def _largest_sum(self) -> FloatArray:
        """The largest |sum of differences| of any arm, (patterns, studies)."""
        high, low = (extreme.reduceat(self._sum, self._starts) for extreme in (np.maximum, np.minimum))
        found = np.zeros((len(self._own), len(self._first)))
        for group, arm in enumerate(self._starts):
            own, first = self._own[:, arm, None], self._reference[:, arm, None] * self._first
            np.maximum(found, np.maximum(own * high[group] - first, first - own * low[group]), out=found)
        return found

    def _least_variance(self, between: FloatArray) -> FloatArray:
        """What no arm's scale is below when squared, (patterns, studies)."""
        arms = len(self._order)
        if self._pooling == "own" and arms > 1:
            return np.zeros_like(between)
        squares = np.add.reduceat(self._squares - self._sum**2 / self.seeds, self._starts)
        products = np.add.reduceat(self._products - self._sum * self._first / self.seeds, self._starts)
        own, reference = self._own[:, self._starts], self._reference[:, self._starts]
        first = (self._reference**2).sum(axis=1, keepdims=True)
        total = own**2 @ squares - 2.0 * (own * reference) @ products
        total += first * (self._first_squares - self._first**2 / self.seeds)
        if self._pooling == "own":
            return total / (self.seeds - 1) * (1.0 - _ROUNDING)
        pooled, shared = common_variances(total, between, arms, self.seeds)
        return np.maximum(pooled, shared if self._pooling == "guarded" else 0.0) * (1.0 - _ROUNDING)

    def _ratios(self, patterns: IntArray, studies: IntArray, between: FloatArray) -> FloatArray:
        """The largest |mean| / scale of any arm in each of some studies."""
        own, reference = self._own[patterns].T, self._reference[patterns].T
        sums = own * self._sum[:, studies] - reference * self._first[studies]
        squares = own**2 * self._squares[:, studies] - 2.0 * own * reference * self._products[:, studies]
        squares += reference**2 * self._first_squares[studies] - sums**2 / self.seeds
        variance = complete_variance(squares, between[patterns, studies], self.seeds, self._pooling)
        ratios: FloatArray = np.abs(sums / np.sqrt(variance)).max(axis=0) / self.seeds
        return ratios


def _least_t(df: int, p: FloatArray) -> FloatArray:
    """Values of |t| whose p-values are at least these, and not much larger."""
    steps = np.ceil(np.log(np.clip(p, _P_VALUES[0], 2.0) / _P_VALUES[0]) / _STEP).astype(np.int64)
    return np.asarray(_critical(df)[np.minimum(steps, len(_P_VALUES))])


@lru_cache(maxsize=4_096)
def _critical(df: int) -> FloatArray:
    """The |t| for each of `_P_VALUES`, a little too small, and then 0."""
    return np.append(-special.stdtrit(df, _P_VALUES / 2.0) * (1.0 - _ROUNDING), 0.0)
