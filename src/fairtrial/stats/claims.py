"""Are a paper's claims true here? Each claim's range of differences against intervals that hold together.

A claim says in which range the difference between two arms lies (`Claim.region`). It is supported if the interval of
that difference lies within the range, contradicted if it lies outside, and else undecided. One against all others is
supported if every difference is within its range, and contradicted if one is outside.

Claims that compare the same arm on the same metric are answered by one family of intervals, made as `judge` makes them:
together for all other arms and all looks at which the study could have stopped. Each family has an equal part of alpha.
So with probability 1 - alpha every interval of every family holds, and then no claim is wrongly called supported or
contradicted: the error that is controlled is that of any wrong word about any claim.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import special

from fairtrial.errors import PairingError, StudyError
from fairtrial.spec import ALL_OTHERS, Claim, Study, Target, better
from fairtrial.stats import caveats
from fairtrial.stats.boundary import LookPlan, boundary
from fairtrial.stats.comparison import looks, seed_list
from fairtrial.stats.paired import LostSeeds, PairedData
from fairtrial.stats.pairing import check_pairing, pairing_caveats
from fairtrial.stats.variance import FloatArray, estimate
from fairtrial.trial import TrialResult

#: Probability with which a single new run of each arm falls into the range that is called plausible.
PREDICTION = 0.95


class ClaimVerdict(StrEnum):
    """What may be said of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class ClaimDifference:
    """A claim's arm minus one other arm, in the metric's unit, or as a fraction of the other's for a relative claim.

    Attributes:
        other: the other arm.
        finding: what this difference by itself says of the claim.
        seeds: number of paired seeds.
        measured: mean difference; None without a pair.
        interval: lower and upper end; None where there is no spread to judge by.
        paper: the difference of the paper's figures; None if it does not give both.
        plausible: whether the paper's difference lies where a single new run of each arm would with 95% probability,
            each by itself, seeds not shared, since a paper seldom names them. None if that can't be said.
        note: what a reader must know, in sentences; or empty.
    """

    other: str
    finding: ClaimVerdict
    seeds: int
    measured: float | None
    interval: tuple[float, float] | None
    paper: float | None
    plausible: bool | None
    note: str = ""


@dataclass(frozen=True)
class TestedClaim:
    """A claim and what the records say of it.

    Attributes:
        claim: the claim.
        finding: what may be said of it.
        against: the difference to each arm that it is against.
    """

    __test__ = False  # the name is no test's, whatever pytest thinks

    claim: Claim
    finding: ClaimVerdict
    against: tuple[ClaimDifference, ...]

    @property
    def decisive(self) -> ClaimDifference:
        """The difference on which the finding hangs: of those with that finding the one that fits the claim least."""
        return min(
            (one for one in self.against if one.finding is self.finding),
            key=lambda one: _slack(one.measured, self.claim.region),
        )


@dataclass(frozen=True)
class StudyClaims:
    """The claims of a study.

    Attributes:
        study: the study's name.
        hash: the study's content hash.
        alpha: probability of any wrong "supported" or "contradicted".
        claims: in the study's order.
        caveats: what a reader must know beside all of them, a sentence each.
    """

    study: str
    hash: str
    alpha: float
    claims: tuple[TestedClaim, ...]
    caveats: tuple[str, ...]


def check_claims(study: Study, results: Sequence[TrialResult]) -> StudyClaims:
    """Test the claims that a study carries.

    A seed that one of two arms lost (its trial diverged, failed or missed the target) and the other did not, opens the
    interval on the side on which that arm is worse; see `fairtrial.stats.paired.Standing`.

    Args:
        study: the study.
        results: what the store knows of its trials, in any order.

    Raises:
        StudyError: the study has claims and only one arm.
        ValueError: a result is not of this study, or one trial is there twice. Both are bugs of the caller.

    Example:
        >>> [(one.claim.text, one.finding.value) for one in check_claims(study, results).claims]
        [('low_beta2 is behind.', 'supported')]
    """
    if study.claims and len(study.arms) < 2:
        raise StudyError(f"{study.label}: has one arm, and a claim needs another to compare it with")
    names = {_Family.of(study, claim) for claim in study.claims}
    alpha = study.evidence.alpha / max(len(names), 1)
    families = {name: _measure(study, results, name, alpha) for name in names}
    tested = tuple(_test(study, claim, families[_Family.of(study, claim)]) for claim in study.claims)
    metrics = dict.fromkeys(claim.metric for claim in study.claims)
    own = PairedData.of(study, results, study.evidence.metric, study.evidence.target)
    lines = [line for metric in metrics for line in caveats.of_metric(metric)]
    lines += [*caveats.of_conditions(study, results), *caveats.of_records(study, own), *caveats.held_fixed(study)]
    return StudyClaims(study.name, study.hash, study.evidence.alpha, tested, tuple(lines))


@dataclass(frozen=True)
class _Family:
    """What one family of intervals is about: one arm against all others on one metric."""

    centre: str
    metric: str
    target: Target | None
    relative: bool

    @classmethod
    def of(cls, study: Study, claim: Claim) -> "_Family":
        """The family that answers a claim; of two arms the reference is at the centre, so that families are few.

        A relative difference is a fraction of the other arm's value, so there the claim's own arm must be.
        """
        turned = claim.against == study.reference and not claim.relative
        target = claim.target or study.evidence.target
        return cls(claim.against if turned else claim.arm, claim.metric, target, claim.relative)


@dataclass(frozen=True)
class _Intervals:
    """A family's intervals: the centre minus each other arm."""

    family: _Family
    results: Sequence[TrialResult]
    cells: PairedData
    found: Mapping[str, tuple[int, float | None, tuple[float, float] | None]]
    refused: Mapping[str, str]


def _measure(study: Study, results: Sequence[TrialResult], family: _Family, alpha: float) -> _Intervals:
    """Make the intervals of a family."""
    cells = PairedData.of(study, results, family.metric, family.target)
    centre, others = family.centre, [arm.name for arm in study.arms if arm.name != family.centre]
    refused = {arm: reason for arm in others if (reason := _refusal(study, results, centre, arm))}
    # Each column is a fraction of its own arm's values, so each is taken by itself.
    columns = [cells.differences(arm, [centre], study.seeds, relative=family.relative)[:, 0] for arm in others]
    table = np.column_stack(columns)
    table[:, [arm in refused for arm in others]] = np.nan
    ended = [_ended(study, cells, centre, arm) for arm in others]
    found = _intervals(table, ended, looks(study), alpha)
    return _Intervals(family, results, cells, dict(zip(others, found, strict=True)), refused)


def _refusal(study: Study, results: Sequence[TrialResult], one: str, other: str) -> str | None:
    try:
        check_pairing(study, [result for result in results if result.arm in {one, other}])
    except PairingError as error:
        return str(error)
    return None


def _ended(study: Study, cells: PairedData, one: str, other: str) -> int:
    """Count the seeds for which two arms went on: all, unless the study is sequential and has stopped one of them."""
    if not study.sequential:
        return max((seed for _, seed in cells.ended), default=-1) + 1
    apart = (seed for seed in range(study.seeds) if not {(one, seed), (other, seed)} <= cells.ended)
    return next(apart, study.seeds)


def _intervals(
    table: FloatArray, ended: Sequence[int], planned: Sequence[int], alpha: float
) -> list[tuple[int, float | None, tuple[float, float] | None]]:
    """Number of pairs, mean and interval of each column, at the last planned look for which its arms went on."""
    found: list[tuple[int, float | None, tuple[float, float] | None]] = []
    for column, seeds in enumerate(ended):
        taken = [index for index, look in enumerate(planned) if look <= seeds]
        rows = table[: planned[taken[-1]] if taken else seeds]
        own = rows[:, column][np.isfinite(rows[:, column])]
        mean = float(own.mean()) if len(own) else None
        half = _half_width(rows, column, planned, taken[-1], alpha) if taken and len(own) > 1 else None
        found.append((len(own), mean, None if mean is None or half is None else (mean - half, mean + half)))
    return found


def _half_width(rows: FloatArray, column: int, planned: Sequence[int], look: int, alpha: float) -> float | None:
    """Half the width of one column's interval; None without spread."""
    plan = LookPlan.of(rows.shape[1], planned)
    seen = np.isfinite(rows)[None]
    at = estimate(rows[None], seen, plan.pooling)
    scale, count = float(at.scale[0, column]), int(at.count[0, column])
    if not scale > 0.0:
        return None
    critical = plan.critical(boundary(plan).level(alpha), look, at.df)[0, column]
    return float(critical) * scale / math.sqrt(count)


def _test(study: Study, claim: Claim, intervals: _Intervals) -> TestedClaim:
    others = [arm.name for arm in study.arms if arm.name != claim.arm]
    wanted = others if claim.against == ALL_OTHERS else [claim.against]
    against = tuple(_against(study, claim, other, intervals) for other in wanted)
    findings = {one.finding for one in against}
    finding = ClaimVerdict.SUPPORTED if findings == {ClaimVerdict.SUPPORTED} else ClaimVerdict.UNDECIDED
    finding = ClaimVerdict.CONTRADICTED if ClaimVerdict.CONTRADICTED in findings else finding
    return TestedClaim(claim, finding, against)


def _against(study: Study, claim: Claim, other: str, intervals: _Intervals) -> ClaimDifference:
    """Hold one difference against the claim's range."""
    turned = claim.arm != intervals.family.centre
    column = claim.arm if turned else other
    seeds, measured, interval = intervals.found[column]
    if turned:
        measured = None if measured is None else -measured
        interval = None if interval is None else (-interval[1], -interval[0])
    standing = intervals.cells.standing(claim.arm, other)
    open_interval = interval and standing.widen(interval, larger_is_better=_larger_is_better(study, claim.metric))
    paper = _reported(study, claim, other)
    return ClaimDifference(
        other=other,
        finding=_finding(open_interval, claim.region),
        seeds=seeds,
        measured=measured,
        interval=interval,
        paper=paper,
        plausible=_plausible(intervals.cells, claim, other, paper),
        note=" ".join(
            [
                *_lost(standing, claim.arm, other),
                *(_without_interval(study, seeds, intervals.refused.get(column)) if interval is None else ()),
                *pairing_caveats(study, claim.arm, intervals.results, other=other),
            ]
        ),
    )


def _finding(interval: tuple[float, float] | None, region: tuple[float, float]) -> ClaimVerdict:
    if interval is None:
        return ClaimVerdict.UNDECIDED
    if region[0] <= interval[0] and interval[1] <= region[1]:
        return ClaimVerdict.SUPPORTED
    outside = interval[1] < region[0] or interval[0] > region[1]
    return ClaimVerdict.CONTRADICTED if outside else ClaimVerdict.UNDECIDED


def _larger_is_better(study: Study, metric: str) -> bool | None:
    """Which way a claim's metric is better; None if neither its name nor the study says."""
    way = better(metric) or (study.evidence.direction if metric == study.evidence.metric else None)
    return None if way is None else way == "higher"


def _lost(standing: LostSeeds, arm: str, other: str) -> Iterator[str]:
    for name, seeds in ((arm, standing.arm), (other, standing.other)):
        if seeds:
            yield f"{name} lost {seed_list(seeds)}: that speaks against it."


def _without_interval(study: Study, seeds: int, refused: str | None) -> Iterator[str]:
    """Say why there is no interval."""
    planned = looks(study)
    if refused:
        yield f"Refused: {refused}."
    elif not planned:
        yield "One run an arm shows no spread."
    elif seeds >= max(planned[0], 2):
        yield "All differences are equal, so there is no spread to judge by."
    else:
        yield f"{seeds} of the {planned[0]} seeds at which the study is first looked at have a pair."


def _slack(measured: float | None, region: tuple[float, float]) -> float:
    """How far within its range a difference lies; negative outside, and nothing is least where nothing was measured."""
    return -math.inf if measured is None else min(measured - region[0], region[1] - measured)


def _reported(study: Study, claim: Claim, other: str) -> float | None:
    """The paper's own difference."""
    own, theirs = study.figure(claim.arm, claim.metric), study.figure(other, claim.metric)
    if own is None or theirs is None or (claim.relative and not theirs):
        return None
    return (own - theirs) / abs(theirs) if claim.relative else own - theirs


def _plausible(cells: PairedData, claim: Claim, other: str, paper: float | None) -> bool | None:
    """Whether a difference lies in the prediction interval of one new run of each arm.

    Runs of an arm are taken for normal with a mean and variance of the arm's own, and the two new runs for independent;
    degrees of freedom are Welch's (1947, Biometrika 34, 28-35), for the variances with which a new run is predicted. A
    relative difference is looked at as a difference of logarithms.
    """
    samples = [np.array([v for (arm, _), v in cells.values.items() if arm == name]) for name in (claim.arm, other)]
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
