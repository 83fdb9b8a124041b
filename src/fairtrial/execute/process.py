"""The outside of a worker process: start it, talk to it, end it, and say what it died of."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import Pipe
from time import monotonic
from typing import cast

from fairtrial.errors import FairtrialError
from fairtrial.execute.worker import Job, Report
from fairtrial.records import Trial

#: Seconds that workers get to end on request before they are killed.
GRACE = 1.0

#: What the interpreter of a worker runs. It never sees the parent's main module, so a script needs no
#: ``if __name__ == "__main__"``; and the parent's ``sys.path`` is in place before anything is imported.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; from fairtrial.execute import worker; "
    "worker.main(int(sys.argv[1]), int(sys.argv[2]))"
)

_LIKELY = {
    signal.SIGKILL: "; out of memory is the usual reason",
    signal.SIGSEGV: "; native code has crashed",
    signal.SIGBUS: "; native code has crashed",
    signal.SIGILL: "; native code has crashed",
    signal.SIGFPE: "; native code has crashed",
    signal.SIGABRT: "; native code has given up",
}


class WorkerProcess:
    """One worker process and the trial it has in hand.

    Args:
        job: what it does with every trial.
        environment: variables on top of this process's own.

    Raises:
        FairtrialError: the system does not let it start.

    Attributes:
        connection: this process's end of the pipe; readable when there is a report, or when the worker has ended.
        trial: the trial that the worker has in hand.
        started: whether the worker has said that this trial has begun.
    """

    def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
        self.trial: Trial | None = None
        self.started = False
        self._crash_log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self.connection, theirs = Pipe()
        try:
            with theirs, _interrupts_held():
                self._process = _start((theirs.fileno(), self._crash_log.fileno()), os.environ | environment)
        except OSError as error:
            self.connection.close()
            self._crash_log.close()
            raise FairtrialError(f"a worker process can't be started: {error.strerror or error}") from error
        self._send(job)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def give(self, trial: Trial) -> None:
        """Hand a trial to a worker that has none. Its listener stays here."""
        self.trial, self.started = trial, False
        self._send(replace(trial, listener=None))

    def receive(self) -> Report | None:
        """Read the next report, waiting for it; None if the worker has ended."""
        try:
            return cast("Report", self.connection.recv())
        except (EOFError, OSError):
            return None

    def dead(self) -> bool:
        """Tell whether the process has ended and all its reports have been read.

        The end of the pipe says so too, unless a process that a training loop has forked still holds it.
        """
        return self._process.poll() is not None and not self.connection.poll()

    def autopsy(self) -> str:
        """End what is left of a worker whose pipe has ended, and say what happened to it."""
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.close()
            return "worker no longer answered, and was ended"
        self._crash_log.seek(0)
        trace = self._crash_log.read().decode(errors="replace").strip()
        self.close()
        return "\n".join([_describe(code), *([trace] if trace else [])])

    def request_end(self) -> None:
        """Ask the worker to end at once, without waiting for it."""
        self.connection.close()
        self._process.terminate()

    def close(self, seconds: float = 0) -> None:
        """End the worker, killing it after so many seconds, and free what this process holds of it."""
        self.request_end()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._crash_log.close()

    def _send(self, message: Job | Trial) -> None:
        try:
            self.connection.send_bytes(pickle.dumps(message))
        except (BrokenPipeError, ConnectionResetError):
            return  # the worker has ended; reading from it will tell


def end_all(workers: Iterable[WorkerProcess]) -> None:
    """End workers together, so that the grace of all of them takes no longer than that of one."""
    workers = list(workers)
    for worker in workers:
        worker.request_end()
    deadline = monotonic() + GRACE
    for worker in workers:
        worker.close(max(0.0, deadline - monotonic()))


def _start(fds: tuple[int, int], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-P", "-c", _PROGRAM, *map(str, fds), *map(str, sys.path)],
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        env=environment,
    )


def _describe(code: int) -> str:
    """Put an exit status into words.

    Args:
        code: as `subprocess.Popen.returncode` has it: the status, or the negative number of a signal.
    """
    if code >= 0:
        return f"worker exited with status {code} before it was done"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no name
        return f"worker killed by signal {-code}"
    return f"worker killed by signal {-code} ({name}){_LIKELY.get(signal.Signals(-code), '')}"


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back Ctrl-C while a worker is started.

    The worker inherits it held back until it can ignore it; this process gets it when the worker is well begun.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
