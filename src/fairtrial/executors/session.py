"""What the sessions of all executors share: the queue of trials, and retries of trials whose worker died."""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self, TypeAlias

from fairtrial.errors import CheckpointError, FairtrialError
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
class CheckpointFailed:
    """A checkpoint can't be written: reported in place of `Ended`, for the session to raise `CheckpointError`."""

    detail: str


#: What is reported about a trial that a worker runs.
Report: TypeAlias = Message | Progressed | CheckpointFailed | WorkerDied


class QueuedSession:
    """A queue of trials, and what to do with reports about them."""

    slots: Slots | None = None

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._waiting: deque[Trial] = deque()
        self._started: set[str] = set()
        self._retries = Retries()

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
            case WorkerDied(cause):
                end = self._retries.lost(trial.hash, cause, started=trial.hash in self._started)
                self._started.discard(trial.hash)
                if end is None:
                    self._waiting.appendleft(trial)
                else:
                    yield end
            case CheckpointFailed(detail):
                raise CheckpointError(detail)
            case Progressed():
                self._workload.on_progress(report)
            case Ended():
                self._started.discard(trial.hash)
                yield self._retries.ended(report)
            case _:
                if isinstance(report, Started):
                    self._started.add(trial.hash)
                yield report


class Retries:
    """Remembers which trials have lost a worker."""

    def __init__(self) -> None:
        self._causes: dict[str, str] = {}
        self._false_starts: Counter[str] = Counter()

    def lost(self, trial_id: str, cause: str, *, started: bool) -> Ended | None:
        """Decide about a trial whose worker has died: its end if this is its second loss, None to submit it again.

        Raises:
            FairtrialError: `FALSE_STARTS` workers died before they could start it.
        """
        if not started:
            self._false_starts[trial_id] += 1
            if self._false_starts[trial_id] == FALSE_STARTS:
                first = cause.partition("\n")[0]
                raise FairtrialError(f"workers die before they can start a trial: {first}; see its output")
            return None
        if trial_id in self._causes:
            return self.ended(Ended(trial_id, Outcome.FAILED, cause, datetime.now(UTC)))
        self._causes[trial_id] = cause
        return None

    def ended(self, end: Ended) -> Ended:
        """Forget a trial that has ended; the detail of a failure also gets the cause of its first loss."""
        first = self._causes.pop(end.trial_id, None)
        if end.outcome is Outcome.FAILED and first is not None:
            return replace(end, detail=f"{end.detail.rstrip()}\nprevious attempt: {first}")
        return end
