"""Supervises one worker process: reads its reports, and ends it when it is dead, silent for too long, or too late."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic

from fairtrial.executors.base import Ended, EpochFinished, Started
from fairtrial.executors.limits import Limits, format_seconds
from fairtrial.executors.local.process import WorkerProcess
from fairtrial.executors.local.worker import Heartbeat
from fairtrial.executors.session import CheckpointFailed, Report, WorkerDied
from fairtrial.trial import Outcome, Trial


class Supervisor:
    """Starts a worker process (with a pickled `WorkerJob`), gives it trials and reads its reports.

    Attributes:
        process: the worker process.
        trial: the trial that the worker runs; None if it is free, or dead.
        alive: False once the worker has died or was ended; nothing more is read from it.
    """

    def __init__(self, job: bytes, environment: Mapping[str, str], limits: Limits) -> None:
        self.process = WorkerProcess(job, environment)
        self.trial: Trial | None = None
        self.alive = True
        self._limits = limits
        self._deadline = math.inf
        self._epochs = 0
        self._silent = 0.0

    def give(self, trial: Trial) -> None:
        """Give a trial to a free worker."""
        self.trial, self._deadline, self._epochs, self._silent = trial, math.inf, 0, 0.0
        self.process.give(trial)

    def read(self) -> Report | None:
        """Read the next report, waiting for it; None where it is a heartbeat."""
        self._silent = 0.0
        report = self.process.receive()
        match report:
            case None:
                return self._give_up(self.process.autopsy())
            case WorkerDied():
                self.close()
            case Heartbeat():
                return None
            case Started():
                self._deadline = monotonic() + (self._limits.time or math.inf)
            case EpochFinished():
                self._epochs += 1
            case Ended() | CheckpointFailed():
                self.trial = None
        return report

    def check(self, silent: float = 0.0) -> Report | None:
        """Check whether the worker is dead, has been silent for too long, or its trial has taken too long.

        Args:
            silent: seconds without a report since the last call. The caller counts them while it listens, because by
                the clock a process that was suspended would find all its workers silent.
        """
        self._silent += silent
        if self.process.dead():  # its pipe may still be open, if a process that it has forked keeps it open
            return self._give_up(self.process.autopsy())
        if self._silent > self._limits.silence:
            return self._give_up(self._where(f"worker was silent for {format_seconds(self._limits.silence)}"))
        if self.trial is None or self.seconds_left() > 0 or self.process.connection.poll():  # the end may be waiting
            return None
        limit, trial = format_seconds(self._limits.time or 0), self.trial
        cause = self._where(f"time limit of {limit} exceeded in epoch {self._epochs + 1}")
        self.close()
        return Ended(trial.hash, Outcome.FAILED, cause, datetime.now(UTC))

    def seconds_left(self) -> float:
        """Return how many seconds the trial may still take; infinity without a trial or a limit."""
        return math.inf if self.trial is None else self._deadline - monotonic()

    def close(self) -> None:
        """End the worker at once."""
        self.alive, self.trial = False, None
        self.process.close()

    def _give_up(self, cause: str) -> WorkerDied:
        self.close()
        return WorkerDied(cause)

    def _where(self, what: str) -> str:
        """Add the worker's Python traceback to a cause."""
        return f"{what}\n{self.process.where()}".rstrip()
