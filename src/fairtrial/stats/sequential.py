"""Sequential looks: which arms settle when, for many studies at once.

A study is always replayed from its first look. So an arm that settled keeps the verdict that it had then, and results
recorded for it later count neither for it nor for the spread of the others.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from fairtrial.stats.boundary import boundary
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.variance import BoolArray, FloatArray, IntArray, estimate

#: Findings about a mean difference, whichever direction is better.
UNDECIDED: Final = 0
HIGHER: Final = 1
LOWER: Final = -1
EQUIVALENT: Final = 2

#: On which side of zero the margin counts, if not on both: `EQUIVALENT` then means above minus the margin, or below it.
ABOVE: Final = 1
BELOW: Final = -1

#: A settled arm enters the typical variance with at least this part of the variance pooled when it settled: arms with a
#: small one settle first, and would make all others look noisy (6.5% errors instead of 5%, by simulation).
SETTLED_FLOOR = 0.5

_CHUNK = 4_000


class Judged(NamedTuple):
    """The findings about every arm of every study, and its `Estimates` at that look; all arrays (studies, arms)."""

    finding: npt.NDArray[np.int8]
    look: IntArray  # index of the look that settled the arm, or of the last one taken; -1 before the first
    half_width: FloatArray  # of the interval at that look; NaN without one
    level: FloatArray  # smallest level at which a look up to that one would have excluded zero; NaN without one
    count: IntArray  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    mean: FloatArray
    sd: FloatArray
    pooled: FloatArray
    scale: FloatArray
    df: IntArray


def judge_many(
    differences: FloatArray, plan: LookPlan, alpha: float = 0.05, margin: float | None = None, side: int = 0
) -> Judged:
    """Judge many simulated studies of one plan.

    Differences are (studies, seeds, arms), arm minus reference, seeds in the order in which they finished; NaN if
    missing. Alpha and margin are those of `judge`. Arms apart in the plan are judged by their own spread. The margin
    counts on both sides of zero, or on the side that is `ABOVE` minus the margin or `BELOW` it.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(100, 12, 4))
        >>> judge_many(noise + 3.0, LookPlan.of(arms=4, looks=range(3, 13))).finding.min()
        np.int8(1)
    """
    starts = range(0, len(differences), _CHUNK)
    parts = [_replay(differences[start : start + _CHUNK], plan, alpha, margin, side) for start in starts]
    return Judged(*(np.concatenate(chunks) for chunks in zip(*parts, strict=True)))


class Looks:
    """The looks of one study, taken as its seeds come.

    Looks that were taken are not taken again, unless rows that they saw have changed.

    Example:
        >>> import numpy as np
        >>> differences = np.random.default_rng(0).normal(size=(12, 4)) + [0.0, 0.0, 3.0, 3.0]
        >>> looks = Looks(LookPlan.of(arms=4, looks=range(3, 13)))
        >>> [looks.take(differences[:seeds]).finding.tolist() for seeds in (3, 6, 12)][-1]
        [0, 0, 1, 1]
    """

    def __init__(self, plan: LookPlan, alpha: float = 0.05, margin: float | None = None, side: int = 0) -> None:
        self._plan, self._alpha, self._margin, self._side = plan, alpha, margin, side
        self._rows = np.zeros((0, plan.arms))
        self._judged: Judged | None = None

    def take(self, differences: FloatArray) -> Judged:
        """Judge the study after these seeds, (seeds, arms); the arrays of the answer are (arms,)."""
        seeds = len(self._rows)
        same = np.array_equal(differences[:seeds], self._rows, equal_nan=True)
        past = self._judged if same else None
        now = self._judged = _replay(differences[None], self._plan, self._alpha, self._margin, self._side, past)
        self._rows = differences.copy()
        return Judged(*(array[0] for array in now))


def _replay(  # noqa: PLR0917  (as `judge_many`)
    differences: FloatArray, plan: LookPlan, alpha: float, margin: float | None, side: int, now: Judged | None = None
) -> Judged:
    """Take the looks that these seeds allow, from the one after those that gave the findings ``now`` on."""
    seen = np.isfinite(differences)
    if differences.shape[1] < plan.looks[0]:
        found = estimate(differences, seen, plan.pooling, apart=plan.alone)
        nothing = np.full(found.mean.shape, np.nan)
        return Judged(np.zeros(found.mean.shape, np.int8), np.full(found.mean.shape, -1), nothing, nothing, *found)
    level = boundary(plan).level(alpha)  # which may have to be solved
    if now is None or (now.look < 0).any():
        now = _look(differences, seen, plan, 0, level, margin, side)
    else:
        rows = np.arange(differences.shape[1])[:, None]
        seen &= (now.finding == UNDECIDED)[:, None] | (rows < np.array(plan.looks)[now.look][:, None])
    for index in range(int(now.look.max()) + 1, len(plan.looks)):
        settled, seeds = now.finding != UNDECIDED, plan.looks[index]
        if seeds > differences.shape[1] or settled.all():
            break
        seen[:, plan.looks[index - 1] :] &= ~settled[:, None]
        floor = np.where(settled, SETTLED_FLOOR * now.pooled**2, 0.0)
        later = _look(differences, seen, plan, index, level, margin, side, floor)
        later = later._replace(level=np.fmin(now.level, later.level))
        now = Judged(*(np.where(settled, *pair) for pair in zip(*[now, later], strict=True)))
    return now


def _look(  # noqa: PLR0917  (the replay's own step)
    differences: FloatArray,
    seen: BoolArray,
    plan: LookPlan,
    index: int,
    level: float,
    margin: float | None,
    side: int,
    floor: FloatArray | None = None,
) -> Judged:
    """The findings of one look alone."""
    seeds = plan.looks[index]
    found = estimate(differences[:, :seeds], seen[:, :seeds], plan.pooling, apart=plan.alone, floor=floor)
    error = np.where(found.scale > 0.0, found.scale, np.nan) / np.sqrt(np.maximum(found.count, 1))
    half = np.where(found.df > 0, plan.critical(level, index, found.df), np.nan) * error
    finding = np.where(found.mean > half, HIGHER, np.where(-found.mean > half, LOWER, UNDECIDED))
    if margin is not None:
        worst = -side * found.mean if side else np.abs(found.mean)
        finding = np.where(worst + half <= margin, EQUIVALENT, finding)
    levels = plan.levels(found.mean / error, index, found.df)
    return Judged(finding.astype(np.int8), np.full(finding.shape, index), half, levels, *found)
