"""The simplest executor: one trial after another, in this process. The reference for all others."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from time import monotonic
from typing import Self

from fairtrial.checkpoints import CheckpointManager
from fairtrial.executors.base import Epoch, Message, TrainingLoop, drive
from fairtrial.trial import Machine, Trial

#: Trials and epochs that take no longer than this many seconds share pauses: writing each message down takes as long.
QUICK = 0.05


class InlineExecutor:
    """Runs trials one by one where it is called. Keeps the promises of `executors.base`.

    It can't know whether a message is waiting, because the training loop runs only when it is asked for the next. So it
    pauses after every message; among trials or epochs that take milliseconds, some twenty times a second.

    Args:
        loop: the training loop.
        machine: describes this machine; called with each trial.
        checkpoints: where trials may keep their state, or None.
    """

    def __init__(
        self, loop: TrainingLoop, machine: Callable[[Trial], Machine], *, checkpoints: CheckpointManager | None = None
    ) -> None:
        self.checkpoints = checkpoints
        self._loop = loop
        self._machine = machine
        self._waiting: deque[Trial] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()

    def submit(self, trial: Trial) -> None:
        """Queue a trial."""
        self._waiting.append(trial)

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile."""
        last_took, paused = QUICK, monotonic()
        while self._waiting:
            trial, begun = self._waiting.popleft(), monotonic()
            keep = self.checkpoints.open(trial) if self.checkpoints else None
            with closing(drive(trial, self._loop, self._machine(trial), keep)) as messages:
                for message in messages:
                    yield message
                    now = monotonic()
                    slow = max(last_took, now - begun) >= QUICK and not isinstance(message, Epoch)
                    if slow or now - paused >= QUICK:
                        yield None
                        paused = monotonic()
            last_took = monotonic() - begun
        yield None
