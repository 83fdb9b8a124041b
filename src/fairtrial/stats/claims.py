"""Tests of a paper's claims: each claim's range of differences against intervals that hold together.

A claim says in which range the difference between two arms is (`Claim.region`). It is supported if the interval of
that difference is inside the range, contradicted if it is outside, and otherwise undecided. A claim against all others
is supported if every difference is in its range, and contradicted if one is outside.

Claims that compare the same arm on the same metric share one family of intervals, made as `judge` makes them: together
for all other arms and all looks at which the study could have stopped. Each family gets an equal part of alpha. So with
probability 1 - alpha every interval of every family holds, and then no claim is wrongly called supported or
contradicted: the controlled error is that of any wrong finding about any claim.

A family that serves one claim alone, about one direction, can do better (`_tails`): to be wrong about it takes an error
on one side.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import special

from fairtrial.errors import StudyError
from fairtrial.history import History
from fairtrial.question import measure_key
from fairtrial.spec import ALL_OTHERS, Claim, Study, Target
from fairtrial.spec.metrics import RELATIVE, Unit
from fairtrial.stats import caveats
from fairtrial.stats.alerts import alerts, outlier_alerts
from fairtrial.stats.boundary import boundary
from fairtrial.stats.comparison import complete_seeds
from fairtrial.stats.identical import Sameness
from fairtrial.stats.joint import JointFinding, join_findings
from fairtrial.stats.looks import LookPlan, Stage
from fairtrial.stats.paired import LostSeeds, PairedData, seed_list
from fairtrial.stats.pairing import pairing_caveats, pairing_conflict
from fairtrial.stats.sequential import SETTLED_FLOOR
from fairtrial.stats.stages import Standing, standing, without
from fairtrial.stats.variance import FloatArray, estimate
from fairtrial.stats.verdicts import ClaimVerdict
from fairtrial.trial import TrialResult

#: Probability that a single new run of each arm falls into the plausible range.
PREDICTION = 0.95


@dataclass(frozen=True)
class ClaimDifference:
    """A claim's arm minus one other arm, in the metric's unit, or as a fraction of the other's for a relative claim."""

    other: str
    finding: ClaimVerdict  # what this difference alone says about the claim
    seeds: int  # number of pairs
    measured: float | None  # mean difference; None without a pair
    interval: tuple[float, float] | None  # None without an estimate of spread
    paper: float | None  # the difference of the paper's figures; None if it does not give both
    #: Whether the paper's difference is in the 95% prediction interval of a single new run of each arm, with
    #: independent seeds, since papers seldom name them; None if unknown.
    plausible: bool | None
    note: str = ""  # what a reader must know, in sentences


@dataclass(frozen=True)
class TestedClaim:
    """A claim, the finding about it, and the difference to each arm that it is against."""

    __test__ = False  # tells pytest that this is no test class

    claim: Claim
    finding: ClaimVerdict
    against: tuple[ClaimDifference, ...]
    unit: Unit  # of the differences: the measure's, or that of fractions for a relative claim

    @property
    def decisive(self) -> ClaimDifference:
        """The difference that decided the finding: of those with that finding, the one that fits the claim least."""
        low, high = self.claim.region
        return min(
            (one for one in self.against if one.finding is self.finding),
            key=lambda one: -math.inf if one.measured is None else min(one.measured - low, high - one.measured),
        )


@dataclass(frozen=True)
class StudyClaims:
    """The tested claims of a study, in its order."""

    study: str  # the study's name
    hash: str
    reference: str
    alpha: float  # probability of any wrong "supported" or "contradicted"
    looks: tuple[int, ...]  # numbers of seeds after which the study is evaluated
    claims: tuple[TestedClaim, ...]
    caveats: tuple[str, ...]  # what a reader must know about all of them, a sentence each
    joint: tuple[JointFinding, ...] = ()  # the findings about the study's joint claims
    stage: int = 1  # which look, or plan of looks, at these trials it is
    spent: tuple[str, ...] = ()  # arms in the claims for which earlier looks left nothing of alpha
    exploratory: tuple[str, ...] = ()  # why this is no test of what was set beforehand, each without a full stop
    alerts: tuple[str, ...] = ()  # what can make the findings false, a sentence each; see `stats.alerts`


def check_claims(study: Study, results: Sequence[TrialResult], *, history: History | None = None) -> StudyClaims:
    """Test the claims of a study on results of its trials, in any order.

    A seed that one of two arms lost (its trial diverged, failed or missed the target) and the other did not opens the
    interval on the side on which that arm is worse; see `fairtrial.stats.paired.LostSeeds`.

    Raises:
        StudyError: the study has claims and only one arm.
        ValueError: a result is not of this study, or a trial appears twice. Both are bugs of the caller.

    Example:
        >>> [(one.claim.text, one.finding.value) for one in check_claims(study, results).claims]
        [('low_beta2 is behind.', 'supported')]
    """
    if study.claims and len(study.arms) < 2:
        raise StudyError(f"{study.label}: has one arm, and a claim needs another to compare it with")
    families = [_Family.of(study, claim) for claim in study.claims]
    alpha = study.evidence.alpha / max(len(set(families)), 1)
    standings = {
        family: standing(study, history, family.metric, family.target, base=family.arm) for family in set(families)
    }
    served = {
        family: [one for one, its in zip(study.claims, families, strict=True) if its == family] for family in standings
    }
    intervals = {
        family: _intervals(study, results, family, _tails(claims, family, alpha), standings[family])
        for family, claims in served.items()
    }
    pairs = zip(study.claims, families, strict=True)
    tested = tuple(_test(study, claim, results, intervals[family]) for claim, family in pairs)
    metrics = dict.fromkeys(claim.metric for claim in study.claims)
    own = PairedData.of(study, results, study.evidence.metric, study.evidence.target).sifted(study.seeds)
    lines = [line for metric in metrics for line in caveats.of_metric(metric)]
    lines += [
        *caveats.of_records(study, own),
        *caveats.held_fixed(study, results),
    ]
    joint = join_findings(study.joint_claims, {one.claim.id: one.finding for one in tested})
    late, beside = list[str](), list[str]()
    if history is not None and study.claims:
        beside += history.alerts(study.reference, measure_key(study.evidence.metric, study.evidence.target))
        late += history.claimed_afterwards(study)
        late += [said for one in families for said in history.repeated(measure_key(one.metric, one.target))]
    return StudyClaims(
        study=study.name,
        hash=study.hash,
        reference=study.reference,
        alpha=study.evidence.alpha,
        looks=standing(study, history, study.evidence.metric, study.evidence.target).looks,
        claims=tested,
        caveats=tuple(lines),
        joint=joint,
        exploratory=tuple(dict.fromkeys([*late, *(said for one in standings.values() for said in one.reasons)])),
        stage=max((one.number for one in standings.values()), default=1),
        spent=tuple(dict.fromkeys(arm for one in standings.values() for arm in one.spent)),
        alerts=(*beside, *alerts(study, results), *outlier_alerts(own, study.measure(study.evidence.metric).unit)),
    )


class _Family(NamedTuple):
    """A family of intervals: one arm minus each other on one metric."""

    arm: str
    metric: str
    target: Target | None
    relative: bool

    @classmethod
    def of(cls, study: Study, claim: Claim) -> "_Family":
        """The family that answers a claim: of two arms, that of the reference, so that families are few.

        A relative difference is a fraction of the other arm's value, so it needs the claim's own arm.
        """
        turned = claim.against == study.reference and not claim.relative
        target = claim.target or study.evidence.target
        return cls(claim.against if turned else claim.arm, claim.metric, target, claim.relative)


def _tails(claims: Sequence[Claim], family: _Family, alpha: float) -> tuple[float, float]:
    """The alpha of the two-sided intervals of which a family takes the lower ends, and of those for the upper ends.

    Of intervals at twice alpha that hold together, one end of a single one is wrong with probability alpha or less,
    because noise is symmetric. A single claim about one direction is wrongly supported only if it is false; then one
    true difference at least is out of its range, and that arm's end on that side was wrong, however many others there
    are (an intersection-union test: Berger 1982, Technometrics 24, 295-300). It is wrongly contradicted if any arm's
    other end was wrong; of one arm, that is a single end again.
    """
    low, high = claims[0].region
    if len(claims) > 1 or (math.isfinite(low) and math.isfinite(high)):
        return alpha, alpha
    double = min(2.0 * alpha, 0.99)
    other = alpha if claims[0].against == ALL_OTHERS else double
    ends = (double, other) if math.isfinite(low) else (other, double)
    return ends if claims[0].arm == family.arm else ends[::-1]


class _Interval(NamedTuple):
    """The mean and interval of one arm's differences over so many pairs."""

    seeds: int
    mean: float | None
    ends: tuple[float, float] | None

    def turned(self) -> "_Interval":
        """The same for the opposite difference."""
        ends = None if self.ends is None else (-self.ends[1], -self.ends[0])
        return _Interval(self.seeds, None if self.mean is None else -self.mean, ends)


@dataclass(frozen=True)
class _Intervals:
    """A family's intervals, by the other arm."""

    family: _Family
    data: PairedData
    found: Mapping[str, _Interval]
    looks: tuple[int, ...]  # that were planned
    refused: Mapping[str, str | None]


def _intervals(
    study: Study, results: Sequence[TrialResult], family: _Family, tails: tuple[float, float], stands: Standing
) -> _Intervals:
    data = PairedData.of(study, results, family.metric, family.target).sifted(study.seeds)
    others = [arm.name for arm in study.arms if arm.name != family.arm]
    refused = {arm: pairing_conflict(study, family.arm, arm, results) for arm in others}
    # Each column is a fraction of its own arm's values, so each is computed alone.
    columns = [data.differences(arm, [family.arm], study.seeds, relative=family.relative)[:, 0] for arm in others]
    sameness = Sameness(results, data.values)
    silent = {arm for arm in others if refused[arm] or sameness.seeds(family.arm, arm)}  # of the spread of others
    found = {}
    for arm in others:
        kept = {name: column for name, column in zip(others, columns, strict=True) if name == arm or name not in silent}
        left_out = {number for number, name in enumerate(others, start=1) if name not in kept}
        apart = tuple(number for number, name in enumerate(kept, start=1) if name in study.twins)
        rule = _Rule(stands.looks, tails, without(stands.earlier, len(others), left_out), stands.share, apart)
        ended, table = _ended(study, data, family.arm, arm), np.column_stack([*kept.values()])
        nothing = _Interval(0, None, None)
        found[arm] = nothing if refused[arm] else _interval(table, [*kept].index(arm), ended, rule)
    return _Intervals(family, data, found, stands.looks, refused)


class _Rule(NamedTuple):
    """How the intervals of some columns are made."""

    planned: tuple[int, ...]
    tails: tuple[float, float]  # see `_tails`
    earlier: tuple[Stage, ...]
    share: float
    apart: tuple[int, ...]  # columns, from 1, that do not share the noise of the others

    def plan(self, arms: int) -> LookPlan:
        return LookPlan.of(arms, self.planned, earlier=self.earlier, share=self.share, apart=self.apart)


def _ended(study: Study, data: PairedData, arm: str, other: str) -> int:
    """Count the seeds that two arms continued for: those of every arm, unless the study is sequential."""
    if not study.sequential:
        return complete_seeds(study, data)
    apart = (seed for seed in range(study.seeds) if not {(arm, seed), (other, seed)} <= data.ended)
    return next(apart, study.seeds)


def _interval(table: FloatArray, column: int, seeds: int, rule: _Rule) -> _Interval:
    """The interval of one column at the last planned look within its seeds."""
    past = [index for index, look in enumerate(rule.planned) if look <= seeds]
    rows = table[: rule.planned[past[-1]] if past else seeds]
    own = rows[:, column][np.isfinite(rows[:, column])]
    mean = float(own.mean()) if len(own) else None
    if mean is None or not past or len(own) < 2:
        return _Interval(len(own), mean, None)
    below, above = (_half_width(rows, column, rule.plan(rows.shape[1]), past[-1], alpha) for alpha in rule.tails)
    return _Interval(len(own), mean, None if below is None or above is None else (mean - below, mean + above))


def _half_width(rows: FloatArray, column: int, plan: LookPlan, look: int, alpha: float) -> float | None:
    """Half the width of one column's interval; None without spread."""
    seen = np.isfinite(rows)[None]
    at = estimate(rows[None], seen, plan.pooling, apart=plan.alone)
    floor = np.where(at.count < at.count.max(), SETTLED_FLOOR * at.pooled**2, 0.0)  # of arms that have stopped
    at = estimate(rows[None], seen, plan.pooling, apart=plan.alone, floor=floor)
    scale, count = float(at.scale[0, column]), int(at.count[0, column])
    if not scale > 0.0:
        return None
    critical = plan.critical(boundary(plan).level(alpha), look, at.df)[0, column]
    return float(critical) * scale / math.sqrt(count)


def _test(study: Study, claim: Claim, results: Sequence[TrialResult], intervals: _Intervals) -> TestedClaim:
    others = [arm.name for arm in study.arms if arm.name != claim.arm]
    tested = [arm for arm in others if arm not in study.twins] or others  # an A/A arm is another arm's second name
    wanted = tested if claim.against == ALL_OTHERS else [claim.against]
    against = tuple(_difference(study, claim, other, results, intervals) for other in wanted)
    findings = {one.finding for one in against}
    unit = RELATIVE if claim.relative else study.measure(claim.metric).unit
    return TestedClaim(claim, ClaimVerdict.of_all(findings), against, unit)


def _difference(
    study: Study, claim: Claim, other: str, results: Sequence[TrialResult], intervals: _Intervals
) -> ClaimDifference:
    """Compare one difference with the claim's range."""
    turned = claim.arm != intervals.family.arm
    column = claim.arm if turned else other
    found = intervals.found[column].turned() if turned else intervals.found[column]
    lost = intervals.data.lost_seeds(claim.arm, other)
    ends = found.ends and lost.widen(found.ends, larger_is_better=_larger_is_better(study, claim.metric))
    paper = _reported(study, claim, other)
    notes = [*_loss_notes(lost, claim.arm, other)]
    if found.ends is None:
        notes.append(_no_interval(intervals.looks, found.seeds, intervals.refused[column]))
    return ClaimDifference(
        other=other,
        finding=_finding(ends, claim.region),
        seeds=found.seeds,
        measured=found.mean,
        interval=found.ends,
        paper=paper,
        plausible=_plausible(intervals.data, claim, other, paper),
        note=" ".join([*notes, *pairing_caveats(study, claim.arm, results, other=other)]),
    )


def _finding(interval: tuple[float, float] | None, region: tuple[float, float]) -> ClaimVerdict:
    if interval is None:
        return ClaimVerdict.UNDECIDED
    if region[0] <= interval[0] and interval[1] <= region[1]:
        return ClaimVerdict.SUPPORTED
    outside = interval[1] < region[0] or interval[0] > region[1]
    return ClaimVerdict.CONTRADICTED if outside else ClaimVerdict.UNDECIDED


def _larger_is_better(study: Study, metric: str) -> bool | None:
    """Whether a claim's metric is better when larger; None if neither its name nor the study says."""
    way = study.measure(metric).direction
    return None if way is None else way == "higher"


def _loss_notes(lost: LostSeeds, arm: str, other: str) -> Iterator[str]:
    for name, seeds in ((arm, lost.arm), (other, lost.other)):
        if seeds:
            yield f"{name} lost {seed_list(seeds)}, which counts against it."


def _no_interval(planned: Sequence[int], seeds: int, refused: str | None) -> str:
    """Say why there is no interval."""
    if refused:
        return f"Refused: {refused}."
    if not planned:
        return "One run per arm shows no spread."
    if seeds >= planned[0]:
        return "All differences are equal, so there is no spread to estimate."
    return f"{seeds} of the {planned[0]} seeds before the first look have a pair."


def _reported(study: Study, claim: Claim, other: str) -> float | None:
    """The difference of the paper's figures."""
    own, theirs = study.figure(claim.arm, claim.metric), study.figure(other, claim.metric)
    if own is None or theirs is None or (claim.relative and not theirs):
        return None
    return (own - theirs) / abs(theirs) if claim.relative else own - theirs


def _plausible(data: PairedData, claim: Claim, other: str, paper: float | None) -> bool | None:
    """Whether a difference is in the prediction interval of one new run of each arm.

    Runs of an arm are assumed normal with the arm's own mean and variance, and the two new runs independent; degrees of
    freedom are Welch's (1947, Biometrika 34, 28-35), for the variances with which a new run is predicted. A relative
    difference is treated as a difference of logarithms.
    """
    samples = [np.array([v for (arm, _), v in data.values.items() if arm == name]) for name in (claim.arm, other)]
    if paper is None or min(len(sample) for sample in samples) < 2:
        return None
    if claim.relative:
        if paper <= -1.0 or min(sample.min() for sample in samples) <= 0.0:
            return None
        samples, paper = [np.log(sample) for sample in samples], math.log1p(paper)
    variances = [float(sample.var(ddof=1)) * (1.0 + 1.0 / len(sample)) for sample in samples]
    if not min(variances) > 0.0:
        return None
    df = sum(variances) ** 2 / sum(v**2 / (len(s) - 1) for v, s in zip(variances, samples, strict=True))
    reach = float(special.stdtrit(df, (1.0 + PREDICTION) / 2)) * math.sqrt(sum(variances))
    return abs(paper - float(samples[0].mean() - samples[1].mean())) <= reach
