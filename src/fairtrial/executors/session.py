"""What the sessions of all executors share: the queue of trials, and retries of trials whose worker died."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self, TypeAlias

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Message, Progressed, Started, Warned, Workload
from fairtrial.executors.slots import Slots
from fairtrial.trial import Outcome, Trial

#: Workers that may die before they have started one trial. Once may be bad luck; more is a broken installation.
FALSE_STARTS = 3


@dataclass(frozen=True)
class WorkerDied:
    """A worker has died or was given up, and why; ``memory`` if its machine probably had no memory left for it."""

    cause: str
    memory: bool = False


@dataclass(frozen=True)
class CantContinue:
    """All trials would meet this error: reported in place of `Ended`, for the session to raise it."""

    error: FairtrialError


@dataclass(frozen=True)
class Room:
    """A worker tells its parent how many trials side by side it has room for from now on."""

    trials: int


#: What is reported about a trial that a worker runs.
Report: TypeAlias = Message | Progressed | CantContinue | WorkerDied


class QueuedSession:
    """A queue of trials, and what to do with reports about them.

    A trial whose machine had no memory left beside other trials is retried alone: after all that wait, and nothing
    starts until it has ended.
    """

    slots: Slots | None = None

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._waiting: deque[Trial] = deque()
        self._started: set[str] = set()
        self._alone: deque[Trial] = deque()  # ran out of memory beside others: they wait until nothing else runs
        self._lone: str | None = None  # the trial that runs alone now
        self._causes: dict[str, list[str]] = {}  # why trials have lost their earlier workers
        self._false_starts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()
        self._alone.clear()

    def submit(self, trial: Trial) -> None:
        """Queue a trial."""
        self._waiting.append(trial)

    def _next(self, running: int) -> Trial | None:
        """Take the trial that may start beside so many others; those that must run alone come last."""
        if self._lone is not None:
            return None
        if self._waiting:
            return self._waiting.popleft()
        if running or not self._alone:
            return None
        trial = self._alone.popleft()
        self._lone = trial.hash
        return trial

    def _handle(self, trial: Trial, report: Report) -> Iterator[Message]:
        """Pass on a report about a trial; queue the trial again if its worker died for the first time."""
        beside = len(self._started - {trial.hash})
        match report:
            case WorkerDied(cause, memory=True) if beside and trial.hash in self._started:
                self._started.remove(trial.hash)
                self._causes.setdefault(trial.hash, []).append(cause)
                self._alone.append(trial)
                first = cause.partition("\n")[0]
                others = "another trial" if beside == 1 else f"{beside} others"
                yield Warned(trial.hash, f"{first}, beside {others}; it will be retried alone")
            case WorkerDied(cause) if self._may_retry(trial, cause):
                (self._alone if self._lone == trial.hash else self._waiting).appendleft(trial)
                self._lone = None if self._lone == trial.hash else self._lone
            case WorkerDied(cause):
                if self._lone == trial.hash:
                    first, *more = cause.splitlines()
                    cause = "\n".join([f"{first}; no other trial ran beside it", *more])
                yield self._end(Ended(trial.hash, Outcome.FAILED, cause, datetime.now(UTC)))
            case CantContinue(error):
                raise error
            case Progressed():
                self._workload.on_progress(report)
            case Ended():
                yield self._end(report)
            case _:
                if isinstance(report, Started):
                    self._started.add(trial.hash)
                yield report

    def _may_retry(self, trial: Trial, cause: str) -> bool:
        """Whether a trial that lost its worker may run again; a FairtrialError after `FALSE_STARTS` false starts."""
        if trial.hash not in self._started:
            self._count_false_start(trial.hash, cause)
            return True
        self._started.remove(trial.hash)
        if trial.hash in self._causes:
            return False
        self._causes[trial.hash] = [cause]
        return True

    def _count_false_start(self, what: str, cause: str) -> None:
        """Count that a worker died before it could start a trial; a FairtrialError after `FALSE_STARTS` of the same."""
        self._false_starts[what] += 1
        if self._false_starts[what] == FALSE_STARTS:
            first = cause.partition("\n")[0]
            raise FairtrialError(f"workers die before they can start a trial: {first}; see its output")

    def _lost(self, number: int, lost: list[Trial], died: WorkerDied) -> Iterator[Message]:  # noqa: ARG002
        """Run the trial of a worker that has died again; the worker has a number, and one trial at a time."""
        yield from self._handle(lost[0], died)

    def _put_back(self, trials: list[Trial]) -> None:
        """Queue trials again that have lost their worker through no fault of theirs, in front of all others."""
        for trial in reversed(trials):
            self._started.discard(trial.hash)
            self._waiting.appendleft(trial)

    def _end(self, end: Ended) -> Ended:
        """Forget a trial that has ended; the detail of a failure also gets the causes of its earlier losses."""
        self._started.discard(end.trial_id)
        self._lone = None if self._lone == end.trial_id else self._lone
        causes = self._causes.pop(end.trial_id, [])
        if end.outcome is Outcome.FAILED and causes:
            return replace(end, detail="\nprevious attempt: ".join([end.detail.rstrip(), *causes]))
        return end


class SharingSession(QueuedSession):
    """A queue of trials for processes that run several of them each.

    A process that dies gives all its trials back, whatever it died of: nobody knows which of them is to blame. They are
    run again, half as many side by side, which is no retry of any of them; alone, a trial is retried once.
    """

    _most: int  # trials side by side in one process, unless its number has lost one
    _room: dict[int, int]  # the same, by the number of the process

    def _lost(self, number: int, lost: list[Trial], died: WorkerDied) -> Iterator[Message]:
        """Run the trials of a process that has died again, fewer side by side if there were several."""
        if len(lost) == 1:
            for message in self._handle(lost[0], WorkerDied(died.cause)):
                if isinstance(message, Ended) and message.outcome is Outcome.FAILED:
                    self._room[number] = self._most  # the one to blame is gone
                yield message
            return
        if not any(trial.hash in self._started for trial in lost):
            self._may_retry(lost[0], died.cause)
        self._room[number] = len(lost) // 2
        self._put_back(lost)
        first = died.cause.partition("\n")[0]
        text = f"{first}, with {len(lost)} trials in one process; they go on {self._room[number]} at a time"
        yield Warned(lost[0].hash, text)
