"""One worker process under supervision: what it reports, and when it is dead, silent for too long, or too late."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import TypeAlias

from fairtrial.executors.base import Ended, EpochFinished, Message, Progressed, Started
from fairtrial.executors.limits import Limits, format_seconds
from fairtrial.executors.local.process import WorkerProcess
from fairtrial.executors.local.worker import CheckpointFailed, Heartbeat, WorkerFailed, WorkerJob
from fairtrial.trial import Outcome, Trial


@dataclass(frozen=True)
class WorkerDied:
    """The worker has died, or was given up, and what of."""

    cause: str


#: What a supervisor makes of a worker's reports.
News: TypeAlias = Message | Progressed | CheckpointFailed | WorkerDied


class Supervisor:
    """Starts a worker process, hands it trials and hears its reports. Ends it where it must be ended.

    Args:
        job: what the worker does with every trial.
        environment: its variables on top of this process's own.
        limits: what a trial may use.

    Raises:
        FairtrialError: the system does not let it start.

    Attributes:
        process: the worker process.
        trial: the trial that the worker has in hand; None if it is free, or dead.
        begun: whether the worker has reported that this trial has started.
        alive: False once the worker has died or was ended; nothing more is heard of it.
    """

    def __init__(self, job: WorkerJob, environment: Mapping[str, str], limits: Limits) -> None:
        self.process = WorkerProcess(job, environment)
        self.trial: Trial | None = None
        self.begun = False
        self.alive = True
        self._limits = limits
        self._deadline = math.inf
        self._epochs = 0
        self._silent = 0.0

    def give(self, trial: Trial) -> None:
        """Hand a trial to a free worker."""
        self.trial, self.begun, self._deadline, self._epochs, self._silent = trial, False, math.inf, 0, 0.0
        self.process.give(trial)

    def hear(self) -> News | None:
        """Read the next report, waiting for it; None where it says nothing new."""
        self._silent = 0.0
        report = self.process.receive()
        match report:
            case None:
                return self._give_up(self.process.autopsy())
            case WorkerFailed(cause):
                return self._give_up(cause)
            case Heartbeat():
                return None
            case Started():
                self.begun, self._deadline = True, monotonic() + (self._limits.time or math.inf)
            case EpochFinished():
                self._epochs += 1
            case Ended() | CheckpointFailed():
                self.trial = None
        return report

    def judge(self, silent: float = 0.0) -> News | None:
        """See whether the worker is dead, has been silent for too long, or its trial has taken too long.

        Args:
            silent: for how many seconds nothing was heard since the last report or judgment. Counted by whoever
                listens and not by the clock: a process that was suspended has heard nobody meanwhile.
        """
        self._silent += silent
        if self.process.dead():  # its pipe may still be open, if a process that it has forked holds it
            return self._give_up(self.process.autopsy())
        if self._silent > self._limits.silence:
            return self._give_up(self._where(f"worker said nothing for {format_seconds(self._limits.silence)}"))
        if self.trial is None or self.seconds_left() > 0 or self.process.connection.poll():  # the end may be waiting
            return None
        limit, trial = format_seconds(self._limits.time or 0), self.trial
        cause = self._where(f"time limit of {limit} exceeded in epoch {self._epochs + 1}")
        self.close()
        return Ended(trial.hash, Outcome.FAILED, cause, datetime.now(UTC))

    def seconds_left(self) -> float:
        """Tell how many seconds the trial may still take; infinity without a trial or a limit."""
        return math.inf if self.trial is None else self._deadline - monotonic()

    def close(self) -> None:
        """End the worker at once."""
        self.alive, self.trial = False, None
        self.process.close()

    def _give_up(self, cause: str) -> WorkerDied:
        self.close()
        return WorkerDied(cause)

    def _where(self, what: str) -> str:
        """Add to a cause where in its Python code the worker is."""
        return f"{what}\n{self.process.where()}".rstrip()
