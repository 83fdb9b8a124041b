"""Verdicts from paired differences."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.evidence.boundary import Plan, boundary
from fairtrial.evidence.power import MOST_SEEDS, detectable, further_seeds
from fairtrial.evidence.sequence import EQUIVALENT, HIGHER, LOWER, UNDECIDED, Judged, judge_many
from fairtrial.evidence.spread import Estimates, FloatArray, Pooling, estimate
from fairtrial.evidence.verdicts import Comparison, Verdict

#: An arm whose own variance beside the pooled one has a smaller p-value than this is said to spread differently.
UNEQUAL = 0.01


def judge(
    differences: npt.ArrayLike,
    margin: float | None = None,
    alpha: float = 0.05,
    looks: Iterable[int] = range(3, 13),
    *,
    arms: Sequence[str] | None = None,
    larger_is_better: bool = True,
    pooling: Pooling = "guarded",
) -> tuple[Comparison, ...]:
    """Say of each arm whether it is better or worse than the reference, equivalent to it, or undecided.

    With probability 1 - alpha the intervals of all arms at all looks contain the true differences, and then no
    verdict of the study is wrong. Looking after every seed and stopping settled arms is allowed for: a study is
    replayed look by look, and a settled arm keeps its verdict whatever is recorded later. How, under which
    assumptions and from which sources: docs/evidence.md.

    Args:
        differences: (seeds so far, arms), arm minus reference in the same seed, in the order in which the seeds
            finished. NaN where an arm has no pair: a value is missing, or the arm was settled and stopped before.
        margin: differences within plus or minus this do not matter, in the metric's unit; set it before the data are
            seen. An interval within the margin makes the verdict equivalent even where it leaves zero out. None for no
            such verdict.
        alpha: error rate of all arms and looks together.
        looks: the numbers of seeds at which the study was to be looked at, planned beforehand. After the last one
            verdicts are final.
        arms: names, one for each column; ``arm_1`` and so on by default.
        larger_is_better: False for losses and times. It turns verdicts round, not differences.
        pooling: whose residuals tell the spread, see `spread.estimate`.

    Returns:
        A comparison for each arm, in the order of the columns.

    Raises:
        ValueError: an argument has the wrong shape or is out of range.

    Example:
        >>> better, same = judge([[0.021, 0.001], [0.019, -0.001], [0.022, 0.0]], margin=0.01)
        >>> better.verdict, same.verdict
        (<Verdict.BETTER: 'better'>, <Verdict.EQUIVALENT: 'equivalent'>)
    """
    values = _checked(differences, margin, alpha)
    plan = Plan.of(values.shape[1], looks, pooling)
    names = [f"arm_{index + 1}" for index in range(plan.arms)] if arms is None else list(arms)
    if len(names) != plan.arms:
        raise ValueError(f"{len(names)} names of arms for {plan.arms} columns of differences")
    if len(values) < plan.looks[0]:
        return tuple(_early(name, values, index, plan, larger_is_better) for index, name in enumerate(names))
    judged = judge_many(values[None], plan, alpha, margin)
    study = _Study(values, plan, alpha, margin, larger_is_better, judged)
    return tuple(study.comparison(index, name) for index, name in enumerate(names))
