"""Decides which arms of a sequential study get no further seeds, and why."""

from collections.abc import Collection, Sequence

from fairtrial.spec import Study
from fairtrial.stats.paired import LostSeeds, PairedData
from fairtrial.stats.verdicts import Comparison, Verdict


def stop_reasons(
    study: Study, judged: Sequence[Comparison], data: PairedData, refused: Collection[str], seeds: int
) -> dict[str, str]:
    """Give the arms that stop after so many complete seeds, each with a few words on why."""
    found: dict[str, str] = {}
    for row in judged:
        if row.arm in refused:
            found[row.arm] = f"its trials are not paired with those of {study.reference}"
        elif row.verdict.settled:
            lost = data.lost_seeds(row.arm, study.reference)
            stands = allowed(row.verdict, lost) is row.verdict
            found[row.arm] = "its verdict is settled" if stands else "lost seeds leave it undecided"
        elif hopeless(study, row, seeds):
            found[row.arm] = f"no seed has a result of it and {study.reference}"
    return found


def hopeless(study: Study, row: Comparison, seeds: int) -> bool:
    """Tell whether an arm reached the first look without a pair; a sequential study then stops it."""
    return seeds >= max(study.min_seeds, 2) and not row.seeds


def allowed(verdict: Verdict, lost: LostSeeds) -> Verdict:
    """The verdict, or undecided if lost seeds count against it."""
    against = {Verdict.BETTER: lost.arm, Verdict.WORSE: lost.other, Verdict.EQUIVALENT: lost.arm + lost.other}
    return Verdict.UNDECIDED if against.get(verdict) else verdict
