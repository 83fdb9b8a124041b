"""Ends a study when its time is up: running trials save their state, and the next run continues with it."""

import math
from collections.abc import Iterator
from time import monotonic
from typing import Self

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Executor, Message, Session, Workload
from fairtrial.executors.slots import Slots
from fairtrial.trial import Trial


class TimeUp(BaseException):
    """The time is up. No error: it passes through ``except Exception``, as Ctrl-C does."""


class Within:
    """Makes an executor raise `TimeUp` once so many seconds have passed since this was built.

    Args:
        executor: what runs the trials.
        seconds: the time that it has; None for no limit.

    Raises:
        FairtrialError: seconds is no positive number.
    """

    def __init__(self, executor: Executor, seconds: float | None) -> None:
        if seconds is not None and not (math.isfinite(seconds) and seconds > 0):
            raise FairtrialError(f"max_seconds = {seconds}: must be a positive number")
        self.checkpoints = executor.checkpoints
        self._executor = executor
        self._end = math.inf if seconds is None else monotonic() + seconds

    def open(self, workload: Workload) -> Session:
        """Open a session for a study."""
        return _TimedSession(self._executor.open(workload), self._end)


class _TimedSession:
    """A session whose messages end with `TimeUp`."""

    def __init__(self, session: Session, end: float) -> None:
        self._session, self._end = session, end

    def __enter__(self) -> Self:
        self._session.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session.__exit__(*exc_info)  # type: ignore[arg-type]  # as it was called

    @property
    def slots(self) -> Slots | None:
        """How many trials run side by side on this machine."""
        return self._session.slots

    def submit(self, trial: Trial) -> None:
        """Queue a trial."""
        self._session.submit(trial)

    def messages(self) -> Iterator[Message | None]:
        """Report the messages, at pauses or epochs until the time is up."""
        for message in self._session.messages():
            yield message
            if monotonic() >= self._end:
                raise TimeUp
