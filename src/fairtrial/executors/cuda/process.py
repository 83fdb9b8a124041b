"""A process with many trials, seen from outside."""

import pickle
from datetime import UTC, datetime
from time import monotonic
from typing import ClassVar, cast

from fairtrial.executors.base import Ended, EpochFinished, Started
from fairtrial.executors.limits import format_seconds
from fairtrial.executors.local.process import WorkerProcess
from fairtrial.executors.session import CantContinue, Report, WorkerDied
from fairtrial.trial import Outcome, Trial


class TrialsProcess(WorkerProcess):
    """A worker process that runs as many trials in turn as it is given.

    Attributes:
        trials: those that it has and that have not ended, by hash, in the order in which they were given.
    """

    module: ClassVar = "fairtrial.executors.cuda.worker"

    trials: dict[str, Trial]

    def start(self) -> None:
        """See `WorkerProcess.start`."""
        self.trials = {}
        self._deadlines: dict[str, float] = {}
        self._ended_epochs: dict[str, int] = {}

    def give(self, trial: Trial) -> None:
        """Give a trial to the process, beside those that it has."""
        self.trials[trial.hash] = trial
        self._silent = 0.0
        self._send(pickle.dumps(trial))

    def read(self) -> Report | None:
        """Read the next report, waiting for it; None where it is a heartbeat."""
        self._silent = 0.0
        try:
            report = cast("Report | None", self.connection.recv())
        except (EOFError, OSError):
            return self._give_up(self._autopsy())
        match report:
            case WorkerDied():
                return self._give_up(report)
            case Started(trial_id):
                if self._limits.time is not None:
                    self._deadlines[trial_id] = monotonic() + self._limits.time
            case EpochFinished(trial_id):
                self._ended_epochs[trial_id] = self._ended_epochs.get(trial_id, 0) + 1
        return report

    def ended_trial(self, trial_id: str) -> None:
        """Forget a trial that has ended."""
        self.trials.pop(trial_id, None)
        self._deadlines.pop(trial_id, None)
        self._ended_epochs.pop(trial_id, None)

    def check(self, silent: float = 0.0) -> Report | None:
        """See `WorkerProcess.check`; where a trial has taken too long the others of the process are lost with it."""
        self._silent += silent
        if self.dead():
            return self._give_up(self._autopsy())
        if self._silent > self._limits.silence:
            cause = f"worker was silent for {format_seconds(self._limits.silence)}\n{self._where()}"
            return self._give_up(WorkerDied(cause.rstrip()))
        if self.seconds_left() > 0 or self.connection.poll():
            return None
        trial_id = min(self._deadlines, key=self._deadlines.__getitem__)
        epoch = self._ended_epochs.get(trial_id, 0) + 1
        cause = f"time limit of {format_seconds(self._limits.time or 0)} exceeded in epoch {epoch}"
        return self._give_up(Ended(trial_id, Outcome.FAILED, cause, datetime.now(UTC)))

    def seconds_left(self) -> float:
        """Return how many seconds the trial with the least time left may still take; infinity without a limit."""
        return min(self._deadlines.values(), default=float("inf")) - monotonic()


def trial_of(report: Report) -> str | None:
    """The trial that a report is about; None if it is about all of a process."""
    if isinstance(report, WorkerDied | CantContinue):
        return None
    return report.trial_id
