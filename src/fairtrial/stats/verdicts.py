"""Comparisons and verdicts: the frozen results that `judge` returns and that reports and the runner read."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Self


class Verdict(StrEnum):
    """What the evidence says about an arm, compared with the reference.

    Attributes:
        BETTER: the interval is on the better side of zero.
        WORSE: the interval is on the worse side of zero.
        EQUIVALENT: the interval is within plus or minus the margin that was set beforehand.
        NON_INFERIOR: the interval's worse end is within the margin that the arm may be worse by; see
            `Evidence.not_worse_than`. Whether it is better was not asked.
        UNDECIDED: none of these, so far or, at the last look, for good.
    """

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    NON_INFERIOR = "non-inferior"
    UNDECIDED = "undecided"

    @property
    def settled(self) -> bool:
        """Whether the arm needs no further seeds."""
        return self is not Verdict.UNDECIDED


class ClaimVerdict(StrEnum):
    """The finding about a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"

    @classmethod
    def of_all(cls, parts: Collection["ClaimVerdict"]) -> "ClaimVerdict":
        """Judge a statement that holds if all of its parts do."""
        order = (cls.CONTRADICTED, cls.UNDECIDED, cls.SUPPORTED)
        return next(finding for finding in order if finding in parts)


@dataclass(frozen=True)
class Failures:
    """How often an arm and the reference failed, over the seeds that both have ended; see `stats.failures`.

    Attributes:
        seeds: number of those seeds.
        arm: how many the arm lost.
        reference: how many the reference lost.
        only_arm: how many the arm lost and the reference did not.
        only_reference: the same for the reference.
        p_adjusted: p-value of "both fail equally often", exact, over all arms and any number of looks.
        side: which of the two the test finds to fail more often.
        highest_rate: upper end of the one-sided 95% interval of the arm's failure rate.
        reference_runs: where runs are not paired, how many the reference has; ``seeds`` is then the number of the
            arm's, and ``only_arm`` and ``only_reference`` are ``arm`` and ``reference``.
    """

    seeds: int
    arm: int
    reference: int
    only_arm: int
    only_reference: int
    p_adjusted: float
    side: Literal["arm", "reference"]
    highest_rate: float
    reference_runs: int | None = None

    def verdict(self, alpha: float) -> Verdict:
        """What failures alone say."""
        if self.p_adjusted > alpha:
            return Verdict.UNDECIDED
        return Verdict.WORSE if self.side == "arm" else Verdict.BETTER


@dataclass(frozen=True, repr=False)
class Comparison:
    """One arm compared with the reference on one measure, paired by seed, or not (`judge_unpaired`).

    All differences are arm minus reference in the measure's own unit, whichever direction is better. A number that
    does not exist is None, never NaN, and a caveat says why.

    Attributes:
        arm: the arm's name.
        seeds: number of paired seeds behind the verdict. An arm that settled early keeps the seeds that it had then. Of
            unpaired runs, the number of the arm's own that have a result.
        mean_difference: mean of the paired differences, or difference of the two means.
        sd: their sample standard deviation (divisor n - 1); None below two seeds. Of unpaired runs, the root mean
            square of the two samples' standard deviations.
        interval: lower and upper end of the confidence interval. With probability 1 - alpha the intervals of all
            arms at all looks contain the true differences together.
        p_adjusted: smallest family-wise alpha, over all arms and the looks so far and to come, at which the
            interval of some look so far would have excluded zero.
        effect_size: mean difference in standard deviations of the paired differences, pooled over arms as the
            interval pools them, without the bias of few seeds (Hedges 1981); positive where the arm is better. Of
            unpaired runs, in units of ``sd``.
        probability_better: probability that the arm beats the reference at a new seed, or in a new run of each, by the
            predictive t distribution of a new difference.
        smallest_detectable: smallest true difference, either way, that these seeds would have found with 80% power.
        verdict: the conclusion.
        more_seeds: number of further seeds, or runs of both, by which an undecided arm has about an even chance to be
            settled. It may exceed the last look; a caveat then says so. None for a settled arm, or if unknown.
        caveats: what a reader must know beside the verdict, a sentence each.
        failures: how often the arm and the reference failed; None from `judge`, which does not know.
        by_failures: whether failures alone decided the verdict: the arm, or the reference, fails more often.
    """

    arm: str
    seeds: int
    mean_difference: float | None
    sd: float | None
    interval: tuple[float, float] | None
    p_adjusted: float | None
    effect_size: float | None
    probability_better: float | None
    smallest_detectable: float | None
    verdict: Verdict
    more_seeds: int | None
    caveats: tuple[str, ...] = ()
    failures: Failures | None = None
    by_failures: bool = False

    @classmethod
    def nothing(cls, arm: str) -> Self:
        """A comparison that was not made: undecided, without a number."""
        return cls(arm, 0, None, None, None, None, None, None, None, Verdict.UNDECIDED, None)

    def __repr__(self) -> str:
        shown = "" if self.mean_difference is None else f", difference {self.mean_difference:.3g}"
        if self.interval is not None:
            shown += f" ({self.interval[0]:.3g} to {self.interval[1]:.3g})"
        return f"<Comparison {self.arm}: {self.verdict}{shown}, seeds {self.seeds}>"
