"""What the sessions of all executors share: the queue of trials, and retries of trials whose worker died."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self, TypeAlias

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Message, Progressed, Started, Workload
from fairtrial.executors.slots import Slots
from fairtrial.trial import Outcome, Trial

#: Workers that may die before they have started one trial. Once may be bad luck; more is a broken installation.
FALSE_STARTS = 3


@dataclass(frozen=True)
class WorkerDied:
    """A worker has died or was given up, and why."""

    cause: str


@dataclass(frozen=True)
class CantContinue:
    """All trials would meet this error: reported in place of `Ended`, for the session to raise it."""

    error: FairtrialError


#: What is reported about a trial that a worker runs.
Report: TypeAlias = Message | Progressed | CantContinue | WorkerDied


class QueuedSession:
    """A queue of trials, and what to do with reports about them."""

    slots: Slots | None = None

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._waiting: deque[Trial] = deque()
        self._started: set[str] = set()
        self._causes: dict[str, str] = {}  # why trials have lost their first worker
        self._false_starts: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()

    def submit(self, trial: Trial) -> None:
        """Queue a trial."""
        self._waiting.append(trial)

    def _handle(self, trial: Trial, report: Report) -> Iterator[Message]:
        """Pass on a report about a trial; queue the trial again if its worker died for the first time."""
        match report:
            case WorkerDied(cause) if self._may_retry(trial, cause):
                self._waiting.appendleft(trial)
            case WorkerDied(cause):
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
            self._false_starts[trial.hash] += 1
            if self._false_starts[trial.hash] == FALSE_STARTS:
                first = cause.partition("\n")[0]
                raise FairtrialError(f"workers die before they can start a trial: {first}; see its output")
            return True
        self._started.remove(trial.hash)
        first_loss = trial.hash not in self._causes
        self._causes.setdefault(trial.hash, cause)
        return first_loss

    def _end(self, end: Ended) -> Ended:
        """Forget a trial that has ended; the detail of a failure also gets the cause of its first loss."""
        self._started.discard(end.trial_id)
        first = self._causes.pop(end.trial_id, None)
        if end.outcome is Outcome.FAILED and first is not None:
            return replace(end, detail=f"{end.detail.rstrip()}\nprevious attempt: {first}")
        return end
