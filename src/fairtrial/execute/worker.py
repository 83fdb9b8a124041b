"""The inside of a worker process: trials come in through its pipe one at a time, reports go back.

The process that starts a worker talks to it in pickles over a socket pair that nobody else holds. First it sends a
`Job`, then a trial whenever the worker is free. Closing its end is the order to end at once.
"""

import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from time import monotonic
from typing import NoReturn, TypeAlias, cast

from fairtrial.checkpoints import Checkpoints
from fairtrial.execute.base import Message, TrainingLoop, drive
from fairtrial.records import Machine, Trial

#: Seconds between two reports of progress from one worker; what comes sooner is dropped.
SECONDS_A_REPORT = 0.1

#: Exit status of a worker whose parent is gone. Nobody is left to read it but a process list.
ABANDONED = 3

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """What a worker does with every trial it gets.

    Attributes:
        loop: the training loop.
        machine: describes the machine that the worker sees.
        set_up: called once before the first trial, or None.
        checkpoints: where trials may keep their state, or None.
    """

    loop: TrainingLoop
    machine: Callable[[Trial], Machine]
    set_up: Callable[[], None] | None
    checkpoints: Checkpoints | None = None


@dataclass(frozen=True)
class Progress:
    """How far the running trial is within its epoch."""

    batch: int
    batches: int
    metrics: Mapping[str, float]


#: What a worker sends.
Report: TypeAlias = Message | Progress


class Line:
    """The worker's end of the pipe: reports go out from whichever thread makes them, in whole pieces.

    Args:
        connection: the pipe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._next_progress = 0.0

    def send(self, report: Report) -> None:
        """Send a report, or end this process if there is nobody to send it to."""
        try:
            with self._lock:
                self._connection.send(report)
        except (BrokenPipeError, ConnectionResetError):
            _end_abandoned()

    def progress(self, trial: Trial, batch: int, batches: int, metrics: Mapping[str, float]) -> None:  # noqa: ARG002
        """Send progress, unless the last was sent just now. Is a `records.Listener`."""
        now = monotonic()
        if now >= self._next_progress:
            self._next_progress = now + SECONDS_A_REPORT
            self.send(Progress(batch, batches, {name: float(value) for name, value in metrics.items()}))


def main(pipe: int, crash_log: int) -> None:
    """Work until the parent closes the pipe or dies.

    Args:
        pipe: file descriptor of this worker's end of the pipe.
        crash_log: file descriptor that gets the Python traceback if native code crashes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the conductor's to answer
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    faulthandler.enable(crash_log)
    _die_with_parent()
    for descriptor in (pipe, crash_log):  # programs that a training loop starts must not keep them open
        os.set_inheritable(descriptor, False)
    connection = Connection(pipe)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, inbox), name="fairtrial-parent", daemon=True).start()
    _work(Line(connection), inbox)


def _work(line: Line, inbox: "SimpleQueue[bytes]") -> NoReturn:
    job = cast("Job", pickle.loads(inbox.get()))  # noqa: S301  (from the parent, over a pipe of our own)
    if job.set_up is not None:
        job.set_up()
    while True:
        trial = cast("Trial", pickle.loads(inbox.get()))  # noqa: S301
        keep = job.checkpoints.open(trial) if job.checkpoints else None
        for message in drive(replace(trial, listener=line.progress), job.loop, job.machine(trial), keep):
            sys.stdout.flush()  # what a training loop has printed must not be lost when this process is ended
            line.send(replace(message, trial=trial))


def _listen(connection: Connection, inbox: "SimpleQueue[bytes]") -> None:
    """Hand on what the parent sends; end this process, whatever it does, once the parent has gone."""
    try:
        while True:
            inbox.put(connection.recv_bytes())
    except (EOFError, OSError):
        _end_abandoned()


def _end_abandoned() -> NoReturn:
    os._exit(ABANDONED)


def _die_with_parent() -> None:
    """On Linux, have the kernel kill this process with the thread that started it.

    The end of the pipe says the same everywhere, but is heard only if native code lets Python's threads run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
