"""Decides which arms of a sequential study get no further seeds, and why."""

from fairtrial.spec import Study
from fairtrial.stats.failures import compare_failures, could_settle
from fairtrial.stats.paired import LostSeeds, PairedData
from fairtrial.stats.verdicts import Comparison, Failures, Verdict


def stop_reason(study: Study, row: Comparison, lost: LostSeeds, failures: Failures, seeds: int) -> str:
    """Say in a few words why an arm stops after so many complete seeds; empty if it goes on."""
    verdict, by_failures = combined(row.verdict, lost, failures.verdict(study.question_alpha))
    if by_failures:
        return f"{row.arm if failures.side == 'arm' else study.reference} fails more often"
    if verdict.settled:
        return "its verdict is settled"
    if row.verdict.settled and not _open(study, row, failures, seeds):
        return "lost seeds leave it undecided"
    if not row.verdict.settled and hopeless(study, row, failures, seeds):
        return f"no seed has a result of it and {study.reference}"
    return ""


def _open(study: Study, row: Comparison, failures: Failures, seeds: int) -> bool:
    """Tell whether failures may yet settle an arm that lost seeds leave undecided.

    They hardly can where its other seeds say better or worse: failures that point the same way do not withdraw that,
    and others contradict it.
    """
    further = study.seeds - seeds
    return row.verdict in {Verdict.EQUIVALENT, Verdict.NON_INFERIOR} and could_settle(
        failures, further, len(study.arms) - 1, study.question_alpha
    )


def failures_of(study: Study, row: Comparison, data: PairedData, seeds: int) -> Failures:
    """Compare an arm's failures with the reference's, after so many seeds."""
    return compare_failures(data, row.arm, study.reference, seeds, arms=len(study.arms) - 1)


def hopeless(study: Study, row: Comparison, failures: Failures, seeds: int) -> bool:
    """Tell whether an arm reached the first look without a pair, and failures can't settle it; it is then stopped."""
    if row.seeds or seeds < max(study.min_seeds, 2):
        return False
    return not could_settle(failures, study.seeds - seeds, len(study.arms) - 1, study.question_alpha)


def combined(verdict: Verdict, lost: LostSeeds, failures: Verdict) -> tuple[Verdict, bool]:
    """The verdict on an arm, and whether failures alone decided it.

    Args:
        verdict: what the seeds say at which both have a result.
        lost: the seeds that one of the two lost.
        failures: what failures say. If it is the opposite of the verdict, the arm is undecided.
    """
    left = allowed(verdict, lost)
    contradicted = {verdict, failures} == {Verdict.BETTER, Verdict.WORSE}
    return (left, False) if left.settled or contradicted or not failures.settled else (failures, True)


def allowed(verdict: Verdict, lost: LostSeeds) -> Verdict:
    """The verdict, or undecided if lost seeds count against it."""
    against = {
        Verdict.BETTER: lost.arm,
        Verdict.WORSE: lost.other,
        Verdict.EQUIVALENT: lost.arm + lost.other,
        Verdict.NON_INFERIOR: lost.arm,
    }
    return Verdict.UNDECIDED if against.get(verdict) else verdict
