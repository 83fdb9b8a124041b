"""The simplest executor: one trial after another, in this process. The reference for all others."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Self

from fairtrial.execute.base import Message, TrainingLoop, drive
from fairtrial.records import Machine, Trial


class InlineExecutor:
    """Runs trials one by one where it is called. Keeps the promises of `execute.base`.

    Args:
        loop: the training loop.
        machine: describes this machine; called once a trial.
    """

    def __init__(self, loop: TrainingLoop, machine: Callable[[], Machine]) -> None:
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

    def messages(self) -> Iterator[Message]:
        """Run the queued trials, and those queued meanwhile."""
        while self._waiting:
            with closing(drive(self._waiting.popleft(), self._loop, self._machine())) as messages:
                yield from messages
