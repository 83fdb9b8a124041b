"""The simplest executor: one trial after another, in this process. The reference for all others."""

from collections.abc import Iterator
from contextlib import closing
from time import monotonic

from fairtrial.executors.base import EpochFinished, Message, Workload, run_trial
from fairtrial.executors.session import QueuedSession
from fairtrial.registry import EXECUTORS

#: Trials and epochs that take no longer than this many seconds share pauses: writing each message down takes as long.
QUICK = 0.05


@EXECUTORS.register("inline")
class InlineExecutor:
    """Runs trials one by one in this process, where a training loop may be any function at all.

    A crash or a lack of memory ends this process too, so there are no retries and no limits.

    Args:
        checkpoints: the folder or URL where trials save their state; by default a folder beside the store.
    """

    def __init__(self, checkpoints: str | None = None) -> None:
        self.checkpoints = checkpoints

    def open(self, workload: Workload) -> "InlineSession":
        """Open a session for a study."""
        return InlineSession(workload)


class InlineSession(QueuedSession):
    """Keeps the promises of `executors.base` except those about workers.

    It can't know whether a message is waiting, because the training loop runs only when it is asked for the next. So it
    pauses after every message; among trials or epochs that take milliseconds, some twenty times a second.
    """

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile."""
        work = self._workload
        last_took, paused = QUICK, monotonic()
        while self._waiting:
            trial, begun = self._waiting.popleft(), monotonic()
            checkpoints = work.checkpoints.open(trial) if work.checkpoints else None
            running = run_trial(
                trial,
                work.loop,
                work.machine(trial),
                checkpoints,
                work.rules,
                on_progress=work.on_progress,
                xray=work.xray,
            )
            with closing(running) as messages:
                for message in messages:
                    yield message
                    now = monotonic()
                    slow = max(last_took, now - begun) >= QUICK and not isinstance(message, EpochFinished)
                    if slow or now - paused >= QUICK:
                        yield None
                        paused = monotonic()
            last_took = monotonic() - begun
        yield None
