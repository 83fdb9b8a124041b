"""The inside of a worker process: trials come in through its pipe one at a time, reports go back.

The parent sends pickles over a socket pair: first a `WorkerJob`, then a trial whenever the worker is free. `STOP` asks
the worker to end as soon as its trial has saved its state; closing the pipe ends it at once. `CORES`, at any time, says
how many cores its trial may use from now on.
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
from pathlib import Path
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Self, cast

from fairtrial import streams
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import CheckpointError, FairtrialError, RecordError, Stopped
from fairtrial.executors.base import Ended, EpochFinished, Progressed, Workload, run_trial
from fairtrial.executors.local.memory import describe, hit_limit, limit_memory, ran_out_of_memory
from fairtrial.executors.records import NO_RULES, RecordRules
from fairtrial.executors.session import CantContinue, Report, Room, WorkerDied
from fairtrial.failpoints import failpoint
from fairtrial.trial import Machine, TrainingLoop, Trial

#: Seconds between two reports of progress from one worker; what comes sooner is dropped.
SECONDS_A_REPORT = 0.1

#: Seconds between two heartbeats.
SECONDS_A_BEAT = 1.0

#: What the parent sends to have a worker save its state and end; no pickle begins so.
STOP = b"stop"

#: What the parent sends, followed by a number, for the cores that the worker's trial may use; no pickle begins so.
CORES = b"cores "

#: Makes a worker write its Python traceback to its crash log, even if Python's threads can't run.
WHERE = signal.SIGUSR1

#: Exit status of a worker whose parent is gone.
ABANDONED = 3

_PR_SET_PDEATHSIG = 1

#: What a worker adds to its standing as a candidate for the kernel's choice of whom to kill for lack of memory, in
#: thousandths of the memory that there is. The parent, with all that it knows, must not be the largest candidate.
OOM_SCORE = 500


@dataclass(frozen=True)
class WorkerJob:
    """What a worker does with every trial; ``memory_limit`` in bytes is for each of its processes."""

    loop: TrainingLoop
    machine: Callable[[Trial], Machine]
    set_up: Callable[[], None] | None
    checkpoints: CheckpointManager | None
    memory_limit: int | None
    rules: RecordRules = NO_RULES
    xray: bool = True
    use_cores: Callable[[int], None] | None = None
    device_memory: Callable[[], tuple[int, int]] | None = None  # bytes that are free, and that this process has taken
    measures: bool = False  # whether a process with several trials finds how many pay off

    @classmethod
    def of(cls, workload: Workload, threads: int, memory_limit: int | None) -> Self:
        """Take what a worker needs from a workload."""
        set_up = None if workload.set_up is None else partial(workload.set_up, threads)
        loop, machine, checkpoints, rules = workload.loop, workload.machine, workload.checkpoints, workload.rules
        of_device = workload.use_cores, workload.device_memory
        return cls(loop, machine, set_up, checkpoints, memory_limit, rules, workload.xray, *of_device)


class Outbox:
    """The worker's end of the pipe for sending: reports go out whole, from whichever thread makes them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._next_progress: dict[str, float] = {}  # of each trial, on the monotonic clock
        self._owner = os.getpid()

    def send(self, report: Report | Room | None) -> None:
        """Send a report, or None as a sign of life; end this process if the parent is gone.

        What a training loop has forked sends nothing: two processes would write into each other's reports.
        """
        if os.getpid() != self._owner:
            return
        try:
            with self._lock:
                self._connection.send(report)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(ABANDONED)

    def beat(self) -> None:
        """Send heartbeats, for ever, from a thread that does nothing else."""
        while True:
            with suppress(MemoryError):  # the training loop may yet recover from it
                self.send(None)
            sleep(SECONDS_A_BEAT)

    def progress(self, progress: Progressed) -> None:
        """Send progress as plain numbers, unless the last was sent just now."""
        now = monotonic()
        if now >= self._next_progress.get(progress.trial_id, 0.0):
            self._next_progress[progress.trial_id] = now + SECONDS_A_REPORT
            self.send(replace(progress, metrics={name: float(value) for name, value in progress.metrics.items()}))


class Inbox:
    """The worker's end of the pipe for receiving, read by a thread of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queue: SimpleQueue[bytes] = SimpleQueue()
        self.stop = threading.Event()  # set once the parent wants the running trial to save its state and end
        self._cores = 1
        self._use_cores: Callable[[int], None] | None = None
        self._lock = threading.Lock()

    def get(self) -> object:
        """Wait for what the parent sends next; None if it asks this worker to end."""
        content = self._queue.get()
        return None if content == STOP else pickle.loads(content)  # noqa: S301  (from the parent, over our own pipe)

    @property
    def has_some(self) -> bool:
        """Whether there is something to get without waiting."""
        return not self._queue.empty()

    def follow(self, use_cores: Callable[[int], None]) -> None:
        """Pass on from now on how many cores the trial may use, and what the parent has said of it before."""
        with self._lock:
            self._use_cores = use_cores
            use_cores(self._cores)

    def _set_cores(self, number: int) -> None:
        with self._lock:
            self._cores = number
            if self._use_cores is not None:
                self._use_cores(number)

    def listen(self) -> None:
        """Receive until the parent is gone; then end this process, whatever it is doing."""
        try:
            while True:
                content = self._connection.recv_bytes()
                if content.startswith(CORES):
                    self._set_cores(int(content[len(CORES) :]))
                    continue
                if content == STOP:
                    self.stop.set()
                self._queue.put(content)
        except (EOFError, OSError):
            os._exit(ABANDONED)


def main(pipe: int, crash_log: int, work: Callable[[Outbox, Inbox], None] | None = None) -> None:
    """Work until the parent asks this process to stop, closes the pipe, or dies; both arguments are file descriptors.

    The crash log gets the Python traceback if native code crashes, or on `WHERE`. The work is to run one trial after
    another, or what is given.
    """
    streams.install()  # a training loop's output that can't be written must not end its trial
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner to handle
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # a terminal may stop background processes that write to it
    faulthandler.enable(crash_log)
    faulthandler.register(WHERE, crash_log)  # of all threads: `bridge.reporting` trains in one of its own
    if sys.platform == "linux":
        # The kernel kills this process with its parent: the pipe's end is noticed only if native code lets threads run.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _volunteer_to_be_killed()
    for descriptor in (pipe, crash_log):  # programs that a training loop starts must not keep them open
        os.set_inheritable(descriptor, False)
    connection = Connection(pipe)
    outbox, inbox = Outbox(connection), Inbox(connection)
    for thread in (inbox.listen, outbox.beat):
        threading.Thread(target=thread, name=f"fairtrial-{thread.__name__}", daemon=True).start()
    (work or _work)(outbox, inbox)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # threads that the training loop has left running must not delay the exit


def _volunteer_to_be_killed() -> None:
    """Let the kernel kill this process, and those that it will start, before its parent where memory runs out."""
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError):  # not on Linux
        score.write_text(str(max(OOM_SCORE, int(score.read_text()))))


def _work(outbox: Outbox, inbox: Inbox) -> None:
    """Run trials one after another, until the parent asks to stop."""
    job = cast("WorkerJob", inbox.get())
    try:
        if job.set_up is not None:
            job.set_up()
        if job.memory_limit is not None:
            limit_memory(job.memory_limit)
        if job.use_cores is not None:
            inbox.follow(job.use_cores)
        while (trial := cast("Trial | None", inbox.get())) is not None:
            failpoint("worker.trial")
            _run(trial, job, outbox, inbox)
    except Stopped:
        return
    except FairtrialError as error:  # of this machine: it lacks a device, say, and all trials would meet the same
        outbox.send(CantContinue(error))
    except Exception as error:
        if not ran_out_of_memory(error):
            raise
        limit_memory(None)  # the report needs a little memory
        outbox.send(WorkerDied(describe(error, job.memory_limit), memory=not hit_limit(error, job.memory_limit)))


def _run(trial: Trial, job: WorkerJob, outbox: Outbox, inbox: Inbox) -> None:
    """Run a trial and send its messages; running out of memory, `Stopped`, and errors of ``job.machine`` are raised."""
    checkpoints = job.checkpoints.open(trial, inbox.stop.is_set) if job.checkpoints else None
    machine = job.machine(trial)
    messages = run_trial(
        trial,
        job.loop,
        machine,
        checkpoints,
        job.rules,
        on_progress=outbox.progress,
        pass_on=ran_out_of_memory,
        xray=job.xray,
    )
    try:
        for message in messages:
            sys.stdout.flush()  # a training loop's output must not be lost when this process is ended
            result = isinstance(message, EpochFinished | Ended)
            if result:
                failpoint("worker.report")
            outbox.send(message)
            if result:
                failpoint("worker.reported")
    except (CheckpointError, RecordError) as error:
        outbox.send(CantContinue(error))
