"""A worker process seen from outside: start it, talk to it, supervise it, end it, and say what it died of."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from time import monotonic, sleep
from typing import ClassVar, cast

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, EpochFinished, Started
from fairtrial.executors.limits import Limits, format_seconds
from fairtrial.executors.local.worker import CORES, STOP, WHERE
from fairtrial.executors.session import CantContinue, Report, Room, WorkerDied
from fairtrial.trial import Outcome, Trial

#: Seconds that a worker whose pipe has closed gets to end itself before it is killed.
GRACE = 1.0

#: Seconds between two checks whether workers that were asked to stop have ended.
SECONDS_A_POLL = 0.05

#: Seconds that a worker gets to write its traceback before it is killed.
SECONDS_TO_TRACE = 0.5

#: What the interpreter of a worker runs. It never sees the parent's main module, so a script needs no
#: ``if __name__ == "__main__"``; and the parent's ``sys.path`` is in place before anything is imported.
_PROGRAM = "import sys; sys.path[:] = sys.argv[3:]; from {module} import main; main(int(sys.argv[1]), int(sys.argv[2]))"

#: Leads a worker's process group. A terminal that closes, or an orphaned group, must not end the leader first.
#:
#: A worker asks the kernel to end it with its parent; the processes that its training loop starts (multiprocessing, a
#: DataLoader's workers) do not. So a worker runs in a process group whose leader is a shell that waits for the end of a
#: pipe. Only this process has the other end, and the kernel closes it even after SIGKILL. Then the shell kills the
#: group, itself included. That needs no Python, so native code that holds the interpreter's lock can't delay it; a
#: shell takes about a millisecond to start and less than a megabyte. As the leader stays until it is waited for, the
#: group's number can't pass to strangers meanwhile. A process in a session of its own has left the group, and lives on.
_LEADER = "trap '' HUP INT TERM; read -r line; kill -KILL 0"

_CRASHED = "; native code has crashed"
_LIKELY = dict.fromkeys((signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE), _CRASHED) | {
    signal.SIGKILL: "; out of memory is the usual reason",
    signal.SIGABRT: "; native code has aborted",
}


class WorkerProcess:
    """One worker process, started with a pickled `WorkerJob` and variables on top of this process's own.

    Its ``connection`` is readable when there is a report, or when the worker has ended. This one runs a trial at a
    time; the ``module`` of a subclass may run several.
    """

    module: ClassVar = "fairtrial.executors.local.worker"  # whose function `main` is the inside

    def __init__(self, job: bytes, environment: Mapping[str, str], limits: Limits) -> None:
        self.trials: dict[str, Trial] = {}  # those that it runs, by hash, in the order given; none if it is dead
        self.room: int | None = None  # trials that it can do with side by side, once it has said so
        self.alive = True  # False once it has died or was ended; nothing more is read from it
        self._limits = limits
        self._deadlines: dict[str, float] = {}  # of trials that have started, on the monotonic clock
        self._ended_epochs: Counter[str] = Counter()
        self._silent = 0.0
        self._cores = 1
        try:
            with ExitStack() as undo:
                self._crash_log = undo.enter_context(tempfile.TemporaryFile())
                self.connection, theirs = Pipe()
                undo.enter_context(self.connection)
                with theirs:
                    leader = subprocess.Popen(  # noqa: S603
                        ["/bin/sh", "-c", _LEADER],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        cwd="/",
                        process_group=0,
                    )
                    undo.callback(_kill_group, leader)
                    fds = (theirs.fileno(), self._crash_log.fileno())
                    self._process = subprocess.Popen(  # noqa: S603
                        [
                            sys.executable,
                            "-P",
                            "-c",
                            _PROGRAM.format(module=self.module),
                            *map(str, fds),
                            *map(str, sys.path),
                        ],
                        pass_fds=fds,
                        stdin=subprocess.DEVNULL,
                        env=os.environ | environment,
                        process_group=leader.pid,
                    )
                self._resources = undo.pop_all()
        except OSError as error:
            raise FairtrialError(f"a worker process can't be started: {error.strerror or error}") from error
        self._send(job)

    def give(self, trial: Trial) -> None:
        """Give a trial to the worker, beside those that it has."""
        self.trials[trial.hash] = trial
        self._silent = 0.0
        self._send(pickle.dumps(trial))

    def read(self) -> Report | None:
        """Read the next report, waiting for it; None where it is a heartbeat or about no trial."""
        self._silent = 0.0
        try:
            report = cast("Report | Room | None", self.connection.recv())
        except (EOFError, OSError):
            return self._give_up(self._autopsy())
        match report:
            case Room(trials):
                self.room = trials
                return None
            case WorkerDied():
                return self._give_up(report)
            case Started(trial_id) if self._limits.time is not None:
                self._deadlines[trial_id] = monotonic() + self._limits.time
            case EpochFinished(trial_id):
                self._ended_epochs[trial_id] += 1
            case Ended(trial_id):
                self._forget(trial_id)
            case CantContinue() if len(self.trials) == 1:
                self._forget(*self.trials)
        return report

    def check(self, silent: float = 0.0) -> Report | None:
        """Check whether the worker is dead, has been silent for too long, or a trial of it has taken too long.

        All trials of such a worker are lost with it. The caller counts the seconds without a report since the last
        call, while it listens: by the clock a process that was suspended would find all its workers silent.
        """
        self._silent += silent
        if self.dead():  # its pipe may still be open, if a process that it has forked keeps it open
            return self._give_up(self._autopsy())
        if self._silent > self._limits.silence:
            cause = f"worker was silent for {format_seconds(self._limits.silence)}\n{self._where()}"
            return self._give_up(WorkerDied(cause.rstrip()))
        if self.seconds_left() > 0 or self.connection.poll():  # the end may be waiting
            return None
        trial_id = min(self._deadlines, key=self._deadlines.__getitem__)
        limit, epoch = format_seconds(self._limits.time or 0), self._ended_epochs[trial_id] + 1
        where = self._where() if len(self.trials) == 1 else ""  # of several, another may have its turn
        detail = f"time limit of {limit} exceeded in epoch {epoch}\n{where}".rstrip()
        return self._give_up(Ended(trial_id, Outcome.FAILED, detail, datetime.now(UTC)))

    def seconds_left(self) -> float:
        """Return how many seconds the trial with the least time left may still take; infinity without a limit."""
        return min(self._deadlines.values(), default=float("inf")) - monotonic()

    def _give_up(self, report: Report) -> Report:
        self.alive = False
        self._forget(*self.trials)
        self.close()
        return report

    def _forget(self, *trial_ids: str) -> None:
        for trial_id in trial_ids:
            for known in (self.trials, self._deadlines, self._ended_epochs):
                known.pop(trial_id, None)

    def ended(self) -> bool:
        """Check whether the process has ended."""
        return self._process.poll() is not None

    def dead(self) -> bool:
        """Check whether the process has ended and all its reports were read, even if a fork keeps its pipe open."""
        return self.ended() and not self.connection.poll()

    def _autopsy(self) -> WorkerDied:
        """Say what happened to a worker whose pipe has closed; it must still be closed here."""
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return WorkerDied("worker stopped answering and was killed")
        cause = "\n".join(filter(None, [_describe(code), self._trace()]))
        return WorkerDied(cause, memory=code == -signal.SIGKILL)  # so the kernel ends a process for lack of memory

    def _where(self) -> str:
        """Get the Python traceback of a running worker; empty if it writes none in time."""
        self._process.send_signal(WHERE)
        deadline = monotonic() + SECONDS_TO_TRACE
        before, trace = "", self._trace()
        while monotonic() < deadline and (not trace or trace != before):
            sleep(SECONDS_A_POLL)
            before, trace = trace, self._trace()
        return trace

    def _trace(self) -> str:
        self._crash_log.seek(0)
        return self._crash_log.read().decode(errors="replace").strip()

    def ask_to_stop(self) -> None:
        """Ask the worker to end as soon as its trials have saved their states, without waiting for it."""
        self._send(STOP)

    def use_cores(self, number: int) -> None:
        """Let the worker's trials use so many cores from now on."""
        if number != self._cores:
            self._cores = number
            self._send(CORES + str(number).encode())

    def drain(self) -> bool:
        """Discard what the worker has sent; False once it can't send any more."""
        try:
            return bool(os.read(self.connection.fileno(), 1 << 16))
        except OSError:
            return False

    def close(self) -> None:
        """Kill the worker and all that it has started, and free what this process has of it."""
        self._resources.close()
        self._process.wait()

    def _send(self, content: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # the worker has ended; reading from it will show that
            self.connection.send_bytes(content)


def end_all(workers: Iterable[WorkerProcess], deadline: float = 0.0) -> None:
    """End workers; those that have not ended by themselves by a deadline (on the monotonic clock) are killed."""
    workers = list(workers)
    talking = {worker.connection: worker for worker in workers}
    try:
        while monotonic() < deadline and not all(worker.ended() for worker in workers):
            if not talking:
                sleep(SECONDS_A_POLL)
                continue
            for connection in cast("list[Connection]", wait([*talking], SECONDS_A_POLL)):
                if not talking[connection].drain():
                    del talking[connection]
    finally:
        for worker in workers:
            worker.close()


def _kill_group(leader: "subprocess.Popen[bytes]") -> None:
    """Kill all processes of a leader's group, even stopped ones."""
    with leader, suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)


def _describe(code: int) -> str:
    """Describe an exit status, or the negative number of a signal."""
    if code >= 0:
        return f"worker exited with status {code} before it finished"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no name
        return f"worker killed by signal {-code}"
    return f"worker killed by signal {-code} ({name}){_LIKELY.get(signal.Signals(-code), '')}"
