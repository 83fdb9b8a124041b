"""Verdicts from paired differences."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.boundary import LookPlan, boundary
from fairtrial.stats.power import MOST_SEEDS, detectable, further_seeds
from fairtrial.stats.sequential import EQUIVALENT, HIGHER, LOWER, UNDECIDED, Judged, judge_many
from fairtrial.stats.variance import FloatArray, Pooling
from fairtrial.stats.verdicts import Comparison, Verdict

#: An arm whose own variance beside the pooled one has a smaller p-value than this is said to spread differently.
UNEQUAL = 0.01

#: Squares of larger differences might not fit a float; nothing comparable is as large.
LARGEST = 1e100


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
    plan = LookPlan.of(values.shape[1], looks, pooling)
    names = [f"arm_{index + 1}" for index in range(plan.arms)] if arms is None else list(arms)
    if len(names) != plan.arms:
        raise ValueError(f"{len(names)} names of arms for {plan.arms} columns of differences")
    judged = judge_many(values[None], plan, alpha, margin)
    found = tuple(_Arm.of(judged, column, name) for column, name in enumerate(names))
    question = _Question(plan, alpha, margin, larger_is_better, len(values), found)
    return tuple(_comparison(question, arm) for arm in found)


def final(seeds: int) -> str:
    """The caveat of an arm that is undecided after the last planned look."""
    return f"This was the last look planned, after {seeds} seeds: the verdict is final."


def _checked(differences: npt.ArrayLike, margin: float | None, alpha: float) -> FloatArray:
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"differences have shape {values.shape}: must be (seeds, arms)")
    if (np.abs(values) > LARGEST).any():
        raise ValueError(f"differences lie beyond ±{LARGEST:g}: give NaN where an arm has no comparable result")
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin = {margin}: must be a positive number, or None")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: must lie between 0 and 1")
    return values


@dataclass(frozen=True)
class _Arm:
    """One arm of a judged study; fields as of `Judged` and `Estimates`, NaN where there is nothing."""

    name: str
    finding: int
    look: int
    half: float
    level: float
    count: int
    mean: float
    sd: float
    pooled: float
    scale: float
    df: int

    @classmethod
    def of(cls, judged: Judged, column: int, name: str) -> "_Arm":
        own = (judged.finding, judged.look, judged.half_width, judged.level, *judged.estimates)
        return cls(name, *(array[0, column].item() for array in own))


@dataclass(frozen=True)
class _Question:
    """What the arms of one study were judged by."""

    plan: LookPlan
    alpha: float
    margin: float | None
    larger_is_better: bool
    rows: int
    arms: tuple[_Arm, ...]

    @property
    def sign(self) -> int:
        return 1 if self.larger_is_better else -1

    @property
    def going_on(self) -> int:
        """Number of arms that take part in further seeds."""
        return sum(arm.finding == UNDECIDED for arm in self.arms)


def _comparison(question: _Question, arm: _Arm) -> Comparison:
    known = not math.isnan(arm.half)
    more = _more_seeds(question, arm) if known and arm.finding == UNDECIDED else None
    spreads = arm.sd > 0.0
    return Comparison(
        arm=arm.name,
        seeds=arm.count,
        mean_difference=arm.mean if arm.count else None,
        sd=arm.sd if arm.count > 1 else None,
        interval=(arm.mean - arm.half, arm.mean + arm.half) if known else None,
        p_adjusted=None if math.isnan(arm.level) else boundary(question.plan).family_wise(arm.level),
        effect_size=question.sign * arm.mean / arm.sd if spreads else None,
        probability_better=_probability(question.sign * arm.mean / arm.sd, arm.count) if spreads else None,
        smallest_detectable=_detectable(question, arm) if known else None,
        verdict=_verdict(arm.finding * question.sign) if arm.finding != EQUIVALENT else Verdict.EQUIVALENT,
        more_seeds=more,
        caveats=tuple(_caveats(question, arm, more)),
    )


def _verdict(direction: int) -> Verdict:
    return {HIGHER: Verdict.BETTER, LOWER: Verdict.WORSE, UNDECIDED: Verdict.UNDECIDED}[direction]


def _probability(effect: float, count: int) -> float:
    """Chance of a new difference on the better side: predictive t distribution of a normal sample."""
    return float(special.stdtr(count - 1, effect / math.sqrt(1.0 + 1.0 / count)))


def _detectable(question: _Question, arm: _Arm) -> float:
    """For the arm's spread, or for the pooled one where that counts and is larger; missing pairs add to it."""
    spread = arm.sd if question.plan.pooling == "own" else max(arm.sd, arm.pooled)
    seeds = question.plan.looks[arm.look]
    return spread * detectable(question.plan, question.alpha, arm.look) * math.sqrt(seeds / arm.count)


def _more_seeds(question: _Question, arm: _Arm) -> int | None:
    seeds = question.plan.looks[arm.look]
    return further_seeds(
        question.plan,
        question.alpha,
        seeds=seeds,
        missing=seeds - arm.count,
        mean=arm.mean,
        scale=arm.scale,
        df=arm.df,
        growth=1 if question.plan.pooling == "own" else question.going_on,
        margin=question.margin,
    )


def _caveats(question: _Question, arm: _Arm, more: int | None) -> Iterator[str]:
    """What a reader must know beside the verdict, a sentence each."""
    looks = question.plan.looks
    seeds = min(question.rows, looks[0]) if arm.look < 0 else looks[arm.look]
    if arm.count < seeds:
        lacking = seeds - arm.count
        yield f"{lacking} of {seeds} seeds {'has' if lacking == 1 else 'have'} no pair in this arm."
    if arm.look < 0:
        yield f"The first look is planned after {looks[0]} seeds; before it there is no interval and no verdict."
    elif arm.count < 2:
        yield "Fewer than two pairs show no spread, so there is no interval."
    if arm.count > 1 and arm.sd == 0.0:
        yield from _equal_differences(arm)
    elif arm.look >= 0:
        yield from _unequal_spread(question, arm)
    if arm.finding == EQUIVALENT and abs(arm.mean) > arm.half:
        yield "The difference is real, since the interval leaves zero out, but lies within the margin."
    if arm.finding == UNDECIDED and arm.look >= 0:
        yield from _outlook(question, arm, more)


def _equal_differences(arm: _Arm) -> Iterator[str]:
    what = "All differences are zero" if arm.mean == 0.0 else "All differences are equal"
    if arm.scale > 0.0:
        yield f"{what}: the interval rests on the spread of the other arms alone."
    else:
        yield f"{what}: without spread there is no interval and no verdict."


def _unequal_spread(question: _Question, arm: _Arm) -> Iterator[str]:
    """Say so where the arm spreads otherwise than the rest, by F tests that take the two sides for independent."""
    others = [other.sd for other in question.arms if other is not arm and other.sd > 0.0]
    if question.plan.pooling == "own" or not others:
        return
    typical = statistics.median(others)
    df = arm.count - 1
    if special.fdtrc(df, df, (arm.sd / typical) ** 2) < UNEQUAL:
        yield f"Its differences spread {arm.sd / typical:.1f} times as much as other arms': allowed for in part only."
    elif arm.pooled > 0.0 and special.fdtr(df, arm.df, (arm.sd / arm.pooled) ** 2) < UNEQUAL:
        yield f"Noisier arms widen its interval: its own spread is {arm.sd / arm.pooled:.2g} times the pooled one."


def _outlook(question: _Question, arm: _Arm, more: int | None) -> Iterator[str]:
    looks = question.plan.looks
    seeds = looks[arm.look]
    last = arm.look == len(looks) - 1
    if question.rows > seeds:
        yield f"The last planned look so far was after {seeds} seeds; later seeds are not used."
    if last:
        yield final(seeds)
    if math.isnan(arm.half):
        return
    if more is None:
        yield f"If mean and spread stay as they are, {MOST_SEEDS} seeds would not settle it."
    elif seeds + more > looks[-1]:
        yield f"It would take a new study of about {seeds + more} seeds to settle it."
