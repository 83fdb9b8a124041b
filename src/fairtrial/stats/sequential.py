"""Looks after seeds: which arms settle when, for many studies at once.

A study is replayed from its first look on, whatever is known by now. So an arm that settled keeps the verdict that it
had then, and what was recorded of it later counts nowhere, neither for it nor for the spread of the others.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fairtrial.stats.boundary import LookPlan, boundary
from fairtrial.stats.variance import BoolArray, Estimates, FloatArray, IntArray, estimate

#: What may be said of a mean difference, whichever direction is better.
UNDECIDED: Final = 0
HIGHER: Final = 1
LOWER: Final = -1
EQUIVALENT: Final = 2

_CHUNK = 4_000


@dataclass(frozen=True)
class Judged:
    """Where every arm of every study stands; all arrays are (studies, arms).

    Attributes:
        finding: `UNDECIDED`, `HIGHER`, `LOWER` or `EQUIVALENT`.
        look: index of the look that the finding is from: the one that settled the arm, or the last one taken; -1
            before the first.
        estimates: mean and spread at that look.
        half_width: half the interval's width at that look; NaN where there is no interval.
        level: smallest level at which a look up to that one would have left zero out; NaN where there is none.
    """

    finding: npt.NDArray[np.int8]
    look: IntArray
    estimates: Estimates
    half_width: FloatArray
    level: FloatArray


def judge_many(differences: FloatArray, plan: LookPlan, alpha: float = 0.05, margin: float | None = None) -> Judged:
    """Judge many simulated studies of one plan.

    Args:
        differences: (studies, seeds, arms), arm minus reference, seeds in the order in which they finished; NaN where
            there is none.
        plan: arms, looks and kind of pooling.
        alpha: error rate of all arms and looks together.
        margin: differences within plus or minus this do not matter; None for no verdict of equivalence.

    Example:
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).normal(size=(100, 12, 4))
        >>> judge_many(noise + 3.0, LookPlan.of(arms=4, looks=range(3, 13))).finding.min()
        np.int8(1)
    """
    starts = range(0, len(differences), _CHUNK)
    parts = [_replay(differences[start : start + _CHUNK], plan, alpha, margin) for start in starts]
    return Judged(
        finding=np.concatenate([part.finding for part in parts]),
        look=np.concatenate([part.look for part in parts]),
        estimates=Estimates(
            *(np.concatenate(field) for field in zip(*(part.estimates for part in parts), strict=True))
        ),
        half_width=np.concatenate([part.half_width for part in parts]),
        level=np.concatenate([part.level for part in parts]),
    )


def _replay(differences: FloatArray, plan: LookPlan, alpha: float, margin: float | None) -> Judged:
    level = boundary(plan).level(alpha)
    seen = np.isfinite(differences)
    if differences.shape[1] < plan.looks[0]:
        return _unlooked(estimate(differences, seen, plan.pooling))
    now = _look(differences, seen, plan, 0, level, margin)
    for index, seeds in enumerate(plan.looks[1:], start=1):
        settled = now.finding != UNDECIDED
        if seeds > differences.shape[1] or settled.all():
            break
        seen[:, plan.looks[index - 1] :] &= ~settled[:, None]
        now = _merge(settled, now, _look(differences, seen, plan, index, level, margin))
    return now


def _look(  # noqa: PLR0917  (the replay's own step)
    differences: FloatArray, seen: BoolArray, plan: LookPlan, index: int, level: float, margin: float | None
) -> Judged:
    """What one look by itself says."""
    seeds = plan.looks[index]
    found = estimate(differences[:, :seeds], seen[:, :seeds], plan.pooling)
    error = np.where(found.scale > 0.0, found.scale, np.nan) / np.sqrt(np.maximum(found.count, 1))
    half = np.where(found.df > 0, plan.critical(level, index, found.df), np.nan) * error
    finding = np.where(found.mean > half, HIGHER, np.where(-found.mean > half, LOWER, UNDECIDED))
    if margin is not None:
        finding = np.where(np.abs(found.mean) + half <= margin, EQUIVALENT, finding)
    return Judged(
        finding=finding.astype(np.int8),
        look=np.full(finding.shape, index),
        estimates=found,
        half_width=half,
        level=plan.levels(found.mean / error, index, found.df),
    )


def _unlooked(found: Estimates) -> Judged:
    """What can be said before the first look: nothing."""
    nothing = np.full(found.mean.shape, np.nan)
    return Judged(np.zeros(found.mean.shape, np.int8), np.full(found.mean.shape, -1), found, nothing, nothing)


def _merge(settled: BoolArray, before: Judged, after: Judged) -> Judged:
    """Keep what was settled before, take the later look for the rest."""
    return Judged(
        finding=np.where(settled, before.finding, after.finding),
        look=np.where(settled, before.look, after.look),
        estimates=Estimates(
            *(np.where(settled, *pair) for pair in zip(before.estimates, after.estimates, strict=True))
        ),
        half_width=np.where(settled, before.half_width, after.half_width),
        level=np.where(settled, before.level, np.fmin(before.level, after.level)),
    )
