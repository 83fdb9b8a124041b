"""What a gate finds: whether changes are worse than the reference by a margin, and how often it will be wrong."""

from dataclasses import dataclass
from enum import StrEnum

from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.verdicts import Comparison, Verdict


class Decision(StrEnum):
    """What a gate decides.

    Attributes:
        PASSED: not worse than the reference by the margin or more: the interval's worse end is within the margin, even
            if all of the interval is on the worse side of zero.
        WORSE: the interval is on the worse side of zero and not within the margin, or runs fail more often.
        UNDECIDED: neither, so far.
    """

    PASSED = "passed"
    WORSE = "worse"
    UNDECIDED = "undecided"


_DECISIONS = {
    Verdict.NON_INFERIOR: Decision.PASSED,
    Verdict.EQUIVALENT: Decision.PASSED,
    Verdict.BETTER: Decision.PASSED,
    Verdict.WORSE: Decision.WORSE,
    Verdict.UNDECIDED: Decision.UNDECIDED,
}


@dataclass(frozen=True)
class Gate:
    """The decisions of a gate and what they rest on.

    Attributes:
        verdict: the comparisons of all arms with the reference; its margin is the gate's.
        said: what a reader must know first, a sentence each: what differs from a stored baseline, say.
        ended: why it ended without a decision; empty if it did not.
        trained: how many trials were trained.
        seconds: how long it took.
        changes_a_month: how many changes the gate judges a month, for its error rates.
    """

    verdict: StudyVerdict
    said: tuple[str, ...] = ()
    ended: str = ""
    trained: int = 0
    seconds: float = 0.0
    changes_a_month: int = 20

    @property
    def decisions(self) -> dict[str, Decision]:
        """The decision on each arm, by name."""
        return {row.arm: decide(row) for row in self.verdict.comparisons}

    @property
    def decision(self) -> Decision:
        """Worse if any arm is, else undecided if any arm is, else passed."""
        found = self.decisions.values()
        return next((one for one in (Decision.WORSE, Decision.UNDECIDED) if one in found), Decision.PASSED)

    @property
    def exit_code(self) -> int:
        """0 if it passed, 1 if it is worse, 2 if it is undecided."""
        return [Decision.PASSED, Decision.WORSE, Decision.UNDECIDED].index(self.decision)

    @property
    def seeds_needed(self) -> int | None:
        """The number of seeds at which all undecided arms have about an even chance of a decision; None if unknown."""
        more = [row.more_seeds for row in self.verdict.comparisons if decide(row) is Decision.UNDECIDED]
        return None if None in more or not more else self.verdict.seeds + max(filter(None, more), default=0)


def decide(row: Comparison) -> Decision:
    """Decide on one arm.

    Example:
        >>> from fairtrial import judge
        >>> (row,) = judge([[0.001], [-0.002], [0.0]], margin=0.02, one_sided=True)
        >>> decide(row)
        <Decision.PASSED: 'passed'>
    """
    return _DECISIONS[row.verdict]


def false_alarms(alpha: float, changes: int) -> tuple[float, float]:
    """How often a gate that judges so many harmless changes is wrong: the most it expects, and the chance of any.

    Both are upper bounds. With a stored baseline all changes share the baseline's noise, so their alarms come together:
    the expected number is the same, and the chance of at least one is smaller; `benchmarks/gate.py` simulates it.

    Example:
        >>> expected, any_at_all = false_alarms(0.05, 20)
        >>> expected, round(any_at_all, 2)
        (1.0, 0.64)
    """
    return alpha * changes, 1.0 - (1.0 - alpha) ** changes


def alpha_for(chance: float, changes: int) -> float:
    """The alpha at which so many harmless changes have any false alarm with at most this probability.

    Example:
        >>> round(alpha_for(0.05, 20), 4)
        0.0026
    """
    return float(1.0 - (1.0 - chance) ** (1.0 / changes))
