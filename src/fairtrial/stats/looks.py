"""Plans of looks: after how many seeds a study looks at its arms, and the looks taken before at the same trials."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy import special

from fairtrial.stats.variance import BoolArray, FloatArray, IntArray, Pooling

#: The part of the alpha left that each stage leaves to the stages after it: the first spends 1 - 0.3, two 1 - 0.3^2.
REMAINDER = 0.3


@dataclass(frozen=True)
class Stage:
    """Looks that were planned together, by one study, at trials that a later study shares."""

    looks: tuple[int, ...]  # numbers of seeds
    share: float  # of alpha, that this stage and all before it may spend
    #: The arms, the stage's reference first: 0 is the reference of the plan, 1 to m are its arms, higher ones others.
    cells: tuple[int, ...]
    pooling: Pooling = "guarded"


def next_share(share: float) -> float:
    """The share of alpha that one more stage and all before it may spend.

    Example:
        >>> [round(next_share(share), 4) for share in (0.0, 0.7, 0.91)]
        [0.7, 0.91, 0.973]
    """
    return 1.0 - REMAINDER * (1.0 - share)


@dataclass(frozen=True)
class LookPlan:
    """What critical values depend on besides alpha."""

    arms: int  # compared with the reference
    looks: tuple[int, ...]  # numbers of seeds, ascending
    pooling: Pooling  # see `variance.estimate`
    earlier: tuple[Stage, ...] = ()  # looks taken before these, in turn
    share: float = 1.0  # of alpha, that this plan and the earlier stages may spend together
    apart: tuple[int, ...] = ()  # arms, numbered from 1, that are judged by their own spread alone

    @classmethod
    def of(
        cls,
        arms: int,
        looks: Iterable[int],
        pooling: Pooling = "guarded",
        *,
        earlier: Iterable[Stage] = (),
        share: float = 1.0,
        apart: Iterable[int] = (),
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
        apart = tuple(sorted({*apart}))
        if apart and not 1 <= apart[0] <= apart[-1] <= arms:
            raise ValueError(f"apart = {list(apart)}: must be arms from 1 to {arms}")
        if pooling == "own" or arms - len(apart) < 2:
            pooling, apart = "own", ()
        return cls(arms, looks, pooling, earlier, share, apart)

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

    @property
    def alone(self) -> BoolArray:
        """Which arms are judged by their own spread alone, (arms,)."""
        return np.isin(np.arange(self.arms) + 1, self.apart)

    def df(self, seeds: int) -> int:
        """Degrees of freedom of the scale after this many seeds without gaps, of arms that are not apart."""
        return (seeds - 1) * (1 if self.pooling == "own" else self.arms - len(self.apart))

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
