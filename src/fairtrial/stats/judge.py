"""Verdicts from paired differences."""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.boundary import boundary
from fairtrial.stats.looks import LookPlan, Stage
from fairtrial.stats.power import MOST_SEEDS, detectable, further_seeds
from fairtrial.stats.sequential import EQUIVALENT, HIGHER, LOWER, UNDECIDED, judge_many
from fairtrial.stats.variance import FloatArray, Pooling
from fairtrial.stats.verdicts import Comparison, Verdict

#: An arm spreads differently if the p-value of its own variance against the others' is below this.
UNEQUAL = 0.01

_VERDICTS = {
    HIGHER: Verdict.BETTER,
    LOWER: Verdict.WORSE,
    UNDECIDED: Verdict.UNDECIDED,
    EQUIVALENT: Verdict.EQUIVALENT,
}

#: Squares of larger differences might overflow a float.
LARGEST = 1e100


#: Said of a plan that is over, with its number of seeds.
LAST_LOOK = "This was the last look planned, after {} seeds."


def judge(
    differences: npt.ArrayLike,
    margin: float | None = None,
    alpha: float = 0.05,
    looks: Iterable[int] = range(3, 13),
    *,
    arms: Sequence[str] | None = None,
    larger_is_better: bool = True,
    pooling: Pooling = "guarded",
    earlier: Iterable[Stage] = (),
    share: float = 1.0,
    apart: Collection[str] = (),
    one_sided: bool = False,
) -> tuple[Comparison, ...]:
    """Compare each arm with the reference: is it better, worse, equivalent, or undecided?

    With probability 1 - alpha the intervals of all arms at all looks contain the true differences, and then no
    verdict of the study is wrong. Looking after every seed and stopping settled arms is allowed: a study is replayed
    look by look, and a settled arm keeps its verdict whatever is recorded later. docs/evidence.md gives the method, its
    assumptions and its sources.

    Args:
        differences: (seeds so far, arms), arm minus reference in the same seed, in the order in which the seeds
            finished. NaN where an arm has no pair: a value is missing, or the arm was settled and stopped before.
        margin: differences within plus or minus this do not matter, in the metric's unit; set it before the data are
            seen. An interval within the margin makes the verdict equivalent even if it excludes zero. None for no such
            verdict.
        alpha: error rate of all arms and looks together.
        looks: the numbers of seeds at which the study is evaluated, planned beforehand. After the last one verdicts are
            final.
        arms: names, one for each column; ``arm_1`` and so on by default.
        larger_is_better: False for losses and times. It reverses verdicts, not differences.
        pooling: whose residuals estimate the spread: ``"guarded"``, ``"pooled"`` or ``"own"``, see
            `fairtrial.stats.variance.estimate`.
        earlier: stages of looks that were taken before these at shared trials, see `fairtrial.stats.looks.Stage`.
        share: of alpha, that these looks and the earlier ones may spend together.
        apart: names of arms that are judged by their own spread alone and do not enter that of others.
        one_sided: whether the margin counts on the worse side alone, so that arms are non-inferior, worse or undecided.
            Each side of the intervals errs with probability alpha / 2.

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
    names = [f"arm_{index + 1}" for index in range(values.shape[1])] if arms is None else list(arms)
    if len(names) != values.shape[1]:
        raise ValueError(f"{len(names)} names of arms for {values.shape[1]} columns of differences")
    if strangers := sorted({*apart} - {*names}):
        raise ValueError(f"apart = {strangers}: must be among the arms {', '.join(names)}")
    numbers = [number for number, name in enumerate(names, start=1) if name in apart]
    plan = LookPlan.of(len(names), looks, pooling, earlier=earlier, share=share, apart=numbers)
    sign = 1 if larger_is_better else -1
    judged = judge_many(values[None], plan, alpha, margin, sign if one_sided else 0)
    alone = plan.alone | (plan.pooling == "own")
    found = tuple(
        _Arm(name, bool(alone[column]), *(array[0, column].item() for array in judged))
        for column, name in enumerate(names)
    )
    judgment = _Judgment(plan, alpha, margin, sign, len(values), found, one_sided=one_sided)
    return tuple(_comparison(judgment, arm) for arm in found)


#: How the caveats about further seeds begin; see `needed` and `_outlook`.
_OUTLOOKS = ("With about ", "A new study of about ", "If it goes on as it began, ")


def needed(seeds: int, *, more_to_come: bool) -> str:
    """The caveat of an arm that has about an even chance of a verdict with so many seeds, more than were planned."""
    if more_to_come:
        chance = f"With about {seeds} seeds in all there is about an even chance of a verdict"
        return f"{chance}; further looks are allowed for."
    return f"A new study of about {seeds} seeds would have about an even chance of a verdict."


def without_outlook(caveats: Sequence[str]) -> tuple[str, ...]:
    """Leave out what `judge` says of further seeds, for a question that they can't settle.

    Example:
        >>> without_outlook([needed(12, more_to_come=True), "All differences are zero."])
        ('All differences are zero.',)
    """
    return tuple(line for line in caveats if not line.startswith(_OUTLOOKS))


def _checked(differences: npt.ArrayLike, margin: float | None, alpha: float) -> FloatArray:
    values = np.asarray(differences, dtype=np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise ValueError(f"differences have shape {values.shape}: must be (seeds, arms), or (seeds,) for one arm")
    if (np.abs(values) > LARGEST).any():
        raise ValueError(f"differences exceed ±{LARGEST:g}: use NaN where an arm has no comparable result")
    check_standard(margin, alpha)
    return values


def check_standard(margin: float | None, alpha: float) -> None:
    """Raise a ValueError for a margin or an error rate that is out of range."""
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin = {margin}: must be a positive number, or None")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha = {alpha}: must be between 0 and 1")


class _Arm(NamedTuple):
    """One arm of a judged study; fields as in `Judged`, NaN where missing."""

    name: str
    alone: bool  # whether it is judged by its own spread alone
    finding: int
    look: int
    half: float
    level: float
    count: int  # type: ignore[assignment]  # hides tuple.count
    mean: float
    sd: float
    pooled: float
    scale: float
    df: int


@dataclass(frozen=True)
class _Judgment:
    """The arms of one study and the rules that they were judged by."""

    plan: LookPlan
    alpha: float
    margin: float | None
    sign: int  # 1 if larger is better, otherwise -1
    rows: int  # of the differences
    arms: tuple[_Arm, ...]
    one_sided: bool = False

    @property
    def side(self) -> int:
        """The side of zero on which the margin counts; 0 for both."""
        return self.sign if self.one_sided else 0

    @cached_property
    def undecided(self) -> int:
        """The undecided arms that are judged together."""
        return sum(one.finding == UNDECIDED and not one.alone for one in self.arms)

    def typical_sd(self, arm: _Arm) -> float | None:
        """Median standard deviation of the other arms that are judged together; None if none has any spread."""
        position = bisect_left(self._sds, arm.sd)
        others = len(self._sds) - 1
        if not arm.sd > 0.0:  # it is not among them
            position, others = len(self._sds), others + 1
        if not others:
            return None
        middle = (others - 1) // 2, others // 2
        low, high = (self._sds[index + (index >= position)] for index in middle)
        return (low + high) / 2

    @cached_property
    def _sds(self) -> list[float]:
        return sorted(one.sd for one in self.arms if one.sd > 0.0 and not one.alone)


def _comparison(judgment: _Judgment, arm: _Arm) -> Comparison:
    known = not math.isnan(arm.half)
    more = _more_seeds(judgment, arm) if known and arm.finding == UNDECIDED else None
    ratio = judgment.sign * arm.mean / arm.sd if arm.sd > 0.0 else None
    return Comparison(
        arm=arm.name,
        seeds=arm.count,
        mean_difference=arm.mean if arm.count else None,
        sd=arm.sd if arm.count > 1 else None,
        interval=(arm.mean - arm.half, arm.mean + arm.half) if known else None,
        p_adjusted=None if math.isnan(arm.level) else boundary(judgment.plan).family_wise(arm.level),
        effect_size=_effect_size(judgment, arm),
        probability_better=None if ratio is None else _probability(ratio, arm.count),
        smallest_detectable=_detectable(judgment, arm) if known else None,
        verdict=verdict_of(arm.finding, judgment.sign, one_sided=judgment.one_sided),
        more_seeds=more,
        caveats=tuple(_caveats(judgment, arm, more)),
    )


def verdict_of(finding: int, sign: int, *, one_sided: bool = False) -> Verdict:
    """The verdict that a finding of `judge_many` means where larger is better (1) or worse (-1)."""
    if one_sided and finding in {EQUIVALENT, HIGHER * sign}:
        return Verdict.NON_INFERIOR
    return _VERDICTS[finding if finding == EQUIVALENT else finding * sign]


def _probability(ratio: float, count: int) -> float:
    """Chance that a new difference is on the better side, by the predictive t distribution of a normal sample.

    The ratio is the mean difference over its standard deviation, positive if the arm is better.
    """
    return float(special.stdtr(count - 1, ratio / math.sqrt(1.0 + 1.0 / count)))


def _effect_size(judgment: _Judgment, arm: _Arm) -> float | None:
    """Mean difference over the pooled standard deviation; a single degree of freedom gives no estimate."""
    if arm.df < 2 or not arm.sd > 0.0:
        return None
    return judgment.sign * hedges_factor(arm.df) * arm.mean / _spread(judgment, arm)


def hedges_factor(df: float) -> float:
    """The factor that makes an effect size unbiased, for more than one degree of freedom.

    Hedges (1981), J. Educ. Stat. 6, 107-128, equation 6e: gamma(df / 2) / (sqrt(df / 2) gamma((df - 1) / 2)).
    """
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def _spread(judgment: _Judgment, arm: _Arm) -> float:
    """The standard deviation of an arm's differences, pooled if its interval's is."""
    return arm.sd if judgment.plan.pooling == "own" else arm.pooled


def _detectable(judgment: _Judgment, arm: _Arm) -> float:
    """The smallest detectable difference for the larger of own and pooled spread; missing pairs increase it."""
    spread = arm.sd if judgment.plan.pooling == "own" else max(arm.sd, arm.pooled)
    seeds = judgment.plan.looks[arm.look]
    return spread * detectable(judgment.plan, judgment.alpha, arm.look) * math.sqrt(seeds / arm.count)


def _more_seeds(judgment: _Judgment, arm: _Arm) -> int | None:
    seeds = judgment.plan.looks[arm.look]
    return further_seeds(
        judgment.plan,
        judgment.alpha,
        seeds=seeds,
        missing=seeds - arm.count,
        mean=arm.mean,
        scale=arm.scale,
        df=arm.df,
        growth=1 if arm.alone else judgment.undecided,
        margin=judgment.margin,
        side=judgment.side,
    )


def _caveats(judgment: _Judgment, arm: _Arm, more: int | None) -> Iterator[str]:
    looks = judgment.plan.looks
    seeds = min(judgment.rows, looks[0]) if arm.look < 0 else looks[arm.look]
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
        yield from _unequal_spread(judgment, arm)
    if arm.finding == EQUIVALENT and abs(arm.mean) > arm.half and judgment.side * arm.mean <= 0.0:
        yield "The difference is real, since the interval excludes zero, but it is within the margin."
    if looks[-1] == 2:
        least = detectable(judgment.plan, judgment.alpha, 0)
        yield f"Two seeds find only differences of {least:.0f} times their standard deviation or more (80% power)."
    if arm.finding in {HIGHER, LOWER} and arm.look < len(looks) - 1:
        spread = _spread(judgment, arm)
        corrected = boundary(judgment.plan).corrected(judgment.alpha, arm.mean / spread) * spread
        much = f"about {100 * (1 - corrected / arm.mean):.0f}%" if abs(corrected) < 0.99 * abs(arm.mean) else "under 1%"
        yield f"It stopped when the difference was clear: such a mean is too large on average, here by {much}."
    if arm.finding == UNDECIDED and arm.look >= 0:
        yield from _outlook(judgment, arm, more)


def _equal_differences(arm: _Arm) -> Iterator[str]:
    what = "All differences are zero" if arm.mean == 0.0 else "All differences are equal"
    if arm.scale > 0.0:
        yield f"{what}: the interval uses the spread of the other arms alone."
    else:
        yield f"{what}: without spread there is no interval and no verdict."


def _unequal_spread(judgment: _Judgment, arm: _Arm) -> Iterator[str]:
    """Report an arm that spreads differently from the rest, by F tests that treat the two sides as independent."""
    typical = None if arm.alone else judgment.typical_sd(arm)
    if typical is None:
        return
    df = arm.count - 1
    if special.fdtrc(df, df, (arm.sd / typical) ** 2) < UNEQUAL:
        yield f"Its differences spread {arm.sd / typical:.1f} times as much as other arms', which widens its interval."
    elif arm.pooled > 0.0 and special.fdtr(df, arm.df, (arm.sd / arm.pooled) ** 2) < UNEQUAL:
        yield f"Noisier arms widen its interval: its own spread is {arm.sd / arm.pooled:.2g} times the pooled one."


def _outlook(judgment: _Judgment, arm: _Arm, more: int | None) -> Iterator[str]:
    looks = judgment.plan.looks
    seeds = looks[arm.look]
    if judgment.rows > seeds:
        yield f"The last planned look so far was after {seeds} seeds; later seeds are not used."
    more_to_come = judgment.plan.share < 1.0
    if arm.look == len(looks) - 1 and not more_to_come:
        yield LAST_LOOK.format(seeds)
    if math.isnan(arm.half):
        return
    if more is None:
        yield f"If it goes on as it began, {MOST_SEEDS} seeds would hardly settle it."
    elif seeds + more > looks[-1]:
        yield needed(seeds + more, more_to_come=more_to_come)
