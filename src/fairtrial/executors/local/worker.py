"""The inside of a worker process: trials come in through its pipe one at a time, reports go back.

The process that starts a worker talks to it in pickles over a socket pair that nobody else holds. First it sends a
`WorkerJob`, then a trial whenever the worker is free. `STOP` asks the worker to end as soon as its trial has saved its
state; closing the pipe is the order to end at once.
"""

import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from time import monotonic, sleep
from typing import NoReturn, Self, TypeAlias, cast

from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import CheckpointError, Stopped
from fairtrial.executors.base import Ended, EpochFinished, Message, Progressed, Workload, run_trial
from fairtrial.executors.local.memory import describe, limit_memory, ran_out_of_memory
from fairtrial.failpoints import failpoint
from fairtrial.trial import Machine, TrainingLoop, Trial

#: Seconds between two reports of progress from one worker; what comes sooner is dropped.
SECONDS_A_REPORT = 0.1

#: Seconds between two signs of life.
SECONDS_A_BEAT = 1.0

#: What the parent sends to have a worker save its state and end; no pickle begins so.
STOP = b"stop"

#: Has a worker write to its crash log where it is, even if Python's threads can't run.
WHERE = signal.SIGUSR1

#: Exit status of a worker whose parent is gone. Nobody is left to read it but a process list.
ABANDONED = 3

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class WorkerJob:
    """What a worker does with every trial it gets.

    Attributes:
        loop: the training loop.
        machine: describes the machine that the worker sees.
        set_up: called once before the first trial, or None.
        checkpoints: where trials save their state, or None.
        memory_limit: bytes that this process and each that it starts may ask for, or None.
    """

    loop: TrainingLoop
    machine: Callable[[Trial], Machine]
    set_up: Callable[[], None] | None
    checkpoints: CheckpointManager | None = None
    memory_limit: int | None = None

    @classmethod
    def of(cls, workload: Workload, threads: int, memory_limit: int | None) -> Self:
        """Take from a workload what a worker needs to know of it."""
        set_up = None if workload.set_up is None else partial(workload.set_up, threads)
        return cls(workload.loop, workload.machine, set_up, workload.checkpoints, memory_limit)


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life, once a second, from a thread that does nothing else."""


@dataclass(frozen=True)
class WorkerFailed:
    """What a worker has to say of its own end; none follow."""

    cause: str


@dataclass(frozen=True)
class CheckpointFailed:
    """A checkpoint can't be written: sent in place of `Ended`, for the session to raise `CheckpointError`."""

    detail: str


#: What a worker sends.
Report: TypeAlias = Message | Progressed | Heartbeat | WorkerFailed | CheckpointFailed


class Outbox:
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

    def beat(self) -> None:
        """Send signs of life, for ever."""
        while True:
            with suppress(MemoryError):  # the training loop may yet get over it
                self.send(Heartbeat())
            sleep(SECONDS_A_BEAT)

    def progress(self, progress: Progressed) -> None:
        """Send progress as plain numbers, unless the last was sent just now."""
        now = monotonic()
        if now >= self._next_progress:
            self._next_progress = now + SECONDS_A_REPORT
            self.send(replace(progress, metrics={name: float(value) for name, value in progress.metrics.items()}))


class Inbox:
    """What the parent has sent, taken in by a thread of its own.

    Args:
        connection: the pipe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self._stop = threading.Event()

    def asked_to_stop(self) -> bool:
        """Tell whether the parent wants the running trial to save its state and end."""
        return self._stop.is_set()

    def get(self) -> object:
        """Wait for what the parent sends next; None if it wants no more from this worker."""
        content = self._queue.get()
        return None if content == STOP else pickle.loads(content)  # noqa: S301  (from the parent, over our own pipe)

    def listen(self) -> None:
        """Take in what comes; end this process, whatever it does, once the parent has gone."""
        try:
            while True:
                content = self._connection.recv_bytes()
                if content == STOP:
                    self._stop.set()
                self._queue.put(content)
        except (EOFError, OSError):
            _end_abandoned()


def main(pipe: int, crash_log: int) -> None:
    """Work until the parent asks this process to stop, closes the pipe, or dies.

    Args:
        pipe: file descriptor of this worker's end of the pipe.
        crash_log: file descriptor that gets the Python traceback if native code crashes, or when `WHERE` comes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner to answer
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal may stop those in the background that write to it
    faulthandler.enable(crash_log)
    faulthandler.register(WHERE, crash_log, all_threads=False)
    _die_with_parent()
    for descriptor in (pipe, crash_log):  # programs that a training loop starts must not keep them open
        os.set_inheritable(descriptor, False)
    connection = Connection(pipe)
    line, inbox = Outbox(connection), Inbox(connection)
    for thread in (inbox.listen, line.beat):
        threading.Thread(target=thread, name=f"fairtrial-{thread.__name__}", daemon=True).start()
    _work(line, inbox)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # what the training loop has left behind, threads for instance, must not keep this process


def _work(line: Outbox, inbox: Inbox) -> None:
    """Run trials one after another, until no more are wanted."""
    job = cast("WorkerJob", inbox.get())
    try:
        if job.set_up is not None:
            job.set_up()
        if job.memory_limit is not None:
            limit_memory(job.memory_limit)
        while (trial := cast("Trial | None", inbox.get())) is not None:
            failpoint("worker.trial")
            _run(trial, job, line, inbox)
    except Stopped:
        return
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        limit_memory(None)  # saying so takes a little
        line.send(WorkerFailed(describe(error, job.memory_limit)))


def _run(trial: Trial, job: WorkerJob, line: Outbox, inbox: Inbox) -> None:
    """Run a trial and report what comes of it.

    Raises:
        Exception: there was no memory left, or the machine can't be described.
        Stopped: the trial has saved its state, because it was asked to.
    """
    saved = job.checkpoints.open(trial, inbox.asked_to_stop) if job.checkpoints else None
    machine = job.machine(trial)
    messages = run_trial(trial, job.loop, machine, saved, on_progress=line.progress, pass_on=ran_out_of_memory)
    try:
        for message in messages:
            sys.stdout.flush()  # what a training loop has printed must not be lost when this process is ended
            result = isinstance(message, EpochFinished | Ended)
            if result:
                failpoint("worker.report")
            line.send(message)
            if result:
                failpoint("worker.reported")
    except CheckpointError as error:
        line.send(CheckpointFailed(str(error)))


def _end_abandoned() -> NoReturn:
    os._exit(ABANDONED)


def _die_with_parent() -> None:
    """On Linux, have the kernel kill this process with the thread that started it.

    The end of the pipe says the same everywhere, but is heard only if native code lets Python's threads run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
