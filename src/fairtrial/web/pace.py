"""How far a study is, and how long the rest takes, from what a store knows: when trials began and ended.

A run's own display knows each batch (`fairtrial.report.forecast`); a reader of the store knows whole epochs. The pace
is the median of the last trials' seconds for each epoch, so a trial that was interrupted for a night counts little.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from fairtrial.scheduler import makespan
from fairtrial.store.watching import Mark
from fairtrial.trial import Outcome

#: The pace is that of so many trials that ended last.
RECENT = 20


@dataclass(frozen=True)
class ArmProgress:
    """How many trials of an arm there are in each state; ``stopped`` says why it gets no further seeds."""

    arm: str
    trials: int
    outcomes: Mapping[Outcome, int]
    running: int
    waiting: int
    stopped: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a study is.

    Attributes:
        trials: how many it plans; of arms that have stopped, those that have begun.
        ended: how many have ended, however.
        outcomes: how many by outcome.
        open: how many have begun and not ended.
        waiting: how many have not begun.
        epochs: epochs done, those of trials that ended early counted as if whole.
        all_epochs: epochs of all trials.
        arms: the same by arm, in the study's order.
    """

    trials: int
    ended: int
    outcomes: Mapping[Outcome, int]
    open: int
    waiting: int
    epochs: int
    all_epochs: int
    arms: tuple[ArmProgress, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to train."""
        return self.trials > 0 and self.ended == self.trials

    @property
    def fraction(self) -> float:
        """Share of the epochs that are done, from 0 to 1."""
        return self.epochs / self.all_epochs if self.all_epochs else float(self.complete)


def progress(marks: Sequence[Mark], epochs: Mapping[str, int], stopped: Mapping[str, str]) -> Progress:
    """Count how far a study is.

    Args:
        marks: its trials.
        epochs: of a trial of each arm.
        stopped: why arms get no further seeds.
    """
    marks = _wanted(marks, stopped)
    arms: dict[str, Counter[str]] = {arm: Counter() for arm in epochs}
    done = total = 0
    for mark in marks:
        planned = epochs.get(mark.arm, mark.epochs)
        total += planned
        done += planned if mark.outcome is not None else min(mark.epochs, planned)
        state = mark.outcome or ("open" if mark.open else "waiting")
        arms.setdefault(mark.arm, Counter())[state] += 1
    counted = sum(arms.values(), Counter[str]())
    return Progress(
        trials=len(marks),
        ended=sum(counted[outcome] for outcome in Outcome),
        outcomes={outcome: counted[outcome] for outcome in Outcome},
        open=counted["open"],
        waiting=counted["waiting"],
        epochs=done,
        all_epochs=total,
        arms=tuple(
            ArmProgress(
                arm,
                own.total(),
                {outcome: own[outcome] for outcome in Outcome},
                own["open"],
                own["waiting"],
                stopped.get(arm, ""),
            )
            for arm, own in arms.items()
        ),
    )


def seconds_left(
    marks: Sequence[Mark], epochs: Mapping[str, int], now: datetime, *, stopped: Collection[str] = ()
) -> float | None:
    """Estimate how many seconds a study that is running needs yet; None while nothing tells its pace.

    As many trials run side by side as have begun and not ended. Of a sequential study this is the most that it needs.

    Args:
        marks: its trials.
        epochs: of a trial of each arm.
        now: in UTC.
        stopped: arms that get no further seeds.
    """
    marks = _wanted(marks, stopped)
    running = [mark for mark in marks if mark.open]
    pace = _pace(marks, running, now)
    if pace is None:
        return None
    left = [
        max(0.0, pace * epochs.get(mark.arm, 0) - (now - mark.started).total_seconds())
        if mark.started is not None and not mark.epochs
        else pace * max(0.5, epochs.get(mark.arm, 0) - mark.epochs - 0.5)
        for mark in running
    ]
    left += [pace * epochs.get(mark.arm, 0) for mark in marks if not mark.begun]
    return makespan(left, max(1, len(running))) if left else 0.0


def _wanted(marks: Sequence[Mark], stopped: Collection[str]) -> list[Mark]:
    """The trials that a study needs: of an arm that has stopped, those that have begun."""
    return [mark for mark in marks if mark.begun or mark.arm not in stopped]


def _pace(marks: Sequence[Mark], running: Sequence[Mark], now: datetime) -> float | None:
    """Seconds for each epoch of one trial: of the trials that ended last, or else of those that run."""
    ended = [mark for mark in marks if mark.outcome is not None and mark.started and mark.ended and mark.epochs]
    ended.sort(key=lambda mark: mark.ended or now)
    paces = [
        (mark.ended - mark.started).total_seconds() / mark.epochs
        for mark in ended[-RECENT:]
        if mark.ended is not None and mark.started is not None
    ]
    if not paces:  # within an epoch, half of it is done on average
        paces = [
            (now - mark.started).total_seconds() / (mark.epochs + 0.5)
            for mark in running
            if mark.started and mark.epochs
        ]
    found = [pace for pace in paces if pace >= 0]
    return median(found) if found else None
