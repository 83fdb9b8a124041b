"""Patterns of unequal spread, under each of which a plan must keep its error rate.

Nobody knows how noisy arms are before a study. The level of a guarded plan is therefore the smallest that any of these
patterns asks for: they were the hardest of several hundred for that rule, found by simulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairtrial.stats.variance import FloatArray, Pooling


@dataclass(frozen=True)
class Spread:
    """Standard deviations of the noise, of the reference and then of each arm."""

    cells: tuple[float, ...]
    #: How differences come about. "cells": each cell has noise of its own. "scaled": an arm's difference from the
    #: reference is that of equally noisy cells, times the arm's number. "independent": the reference has no noise.
    kind: str = "cells"

    def values(self, noise: FloatArray) -> FloatArray:
        """Values of (cells, studies) from standard normal noise of that shape."""
        own, reference = self.weights
        return own[:, None] * noise - reference[:, None] * noise[:1]

    def part(self, cells: Sequence[int]) -> "Spread":
        """The pattern of some cells, of which the first is the reference."""
        return Spread(tuple(self.cells[cell] for cell in cells), self.kind)

    @property
    def weights(self) -> tuple[FloatArray, FloatArray]:
        """A cell's value is the first times its own noise, less the second times the reference's; (cells,) each."""
        own = np.array(self.cells)
        if self.kind != "cells":
            own[0] = 0.0
        return own, own if self.kind == "scaled" else np.zeros(len(own))


def hard_spreads(arms: int, pooling: Pooling) -> tuple[Spread, ...]:
    """The patterns for a number of arms.

    Own spreads don't depend on how noisy the other arms are, so only the correlation between arms matters; it vanishes
    where the reference has no noise. Pooled spreads assume equal spread.

    Example:
        >>> [len(hard_spreads(arms, "guarded")) for arms in (1, 2, 4, 10)]
        [1, 11, 18, 22]
    """
    equal = Spread((1.0,) * (arms + 1))
    if arms == 1 or pooling == "pooled":
        return (equal,)
    independent = Spread((1.0, 10.0, *(1.0,) * (arms - 1)), "independent")
    if pooling == "own":
        return equal, independent

    def noisy(number: int, ratio: float) -> tuple[float, ...]:
        return (*(ratio,) * number, *(1.0,) * (arms - number))

    def some(*numbers: int) -> list[int]:
        return sorted({number for number in numbers if 1 <= number < arms})

    half = (arms + 1) // 2
    found = [equal, independent]
    found += [Spread((ratio, *noisy(0, 1.0))) for ratio in (2.0, 3.0, 5.0, 10.0)]
    found += [Spread((ratio, *noisy(k, ratio))) for ratio in (3.0, 10.0) for k in some(1, 2, half, arms - 1)]
    found += [Spread((1.0, *noisy(k, 3.0)), "scaled") for k in some(1, 2, 3, half, arms - 1)]
    found += [Spread((1.0, *noisy(k, 10.0)), "scaled") for k in some(1, 2)]
    found.append(Spread((3.0, 1.0, 3.0, *(1.0,) * (arms - 2))))
    return tuple(found)
