"""The outside of a worker process: start it, talk to it, end it, and say what it died of."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from time import monotonic, sleep
from typing import cast

from fairtrial.errors import FairtrialError
from fairtrial.executors.local.process_group import ProcessGroup
from fairtrial.executors.local.worker import STOP, WHERE, Report, WorkerJob
from fairtrial.trial import Trial

#: Seconds that a worker whose pipe has ended gets to end itself before it is killed.
GRACE = 1.0

#: Seconds between two looks at whether workers that were asked to stop have ended.
SECONDS_A_GLANCE = 0.05

#: Seconds that a worker gets to say where it is before it is killed.
SECONDS_TO_SAY = 0.5

#: What the interpreter of a worker runs. It never sees the parent's main module, so a script needs no
#: ``if __name__ == "__main__"``; and the parent's ``sys.path`` is in place before anything is imported.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[3:]; from fairtrial.executors.local import worker; "
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
    """One worker process.

    Args:
        job: what it does with every trial.
        environment: variables on top of this process's own.

    Raises:
        FairtrialError: the system does not let it start.

    Attributes:
        connection: this process's end of the pipe; readable when there is a report, or when the worker has ended.
    """

    def __init__(self, job: WorkerJob, environment: Mapping[str, str]) -> None:
        self._crash_log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by `close`)
        self.connection, theirs = Pipe()
        try:
            with theirs:
                self._group, self._process = _start(
                    (theirs.fileno(), self._crash_log.fileno()), os.environ | environment
                )
        except OSError as error:
            self.connection.close()
            self._crash_log.close()
            raise FairtrialError(f"a worker process can't be started: {error.strerror or error}") from error
        self._send(pickle.dumps(job))

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def give(self, trial: Trial) -> None:
        """Hand a trial to a worker that has none."""
        self._send(pickle.dumps(trial))

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
        """Say what happened to a worker whose pipe has ended; what is left of it must still be closed."""
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "worker no longer answered, and was ended"
        return "\n".join(filter(None, [_describe(code), self._trace()]))

    def where(self) -> str:
        """Tell where in its Python code a running worker is, as a traceback; empty if it doesn't say so soon."""
        self._process.send_signal(WHERE)
        deadline = monotonic() + SECONDS_TO_SAY
        before, trace = "", self._trace()
        while monotonic() < deadline and (not trace or trace != before):
            sleep(SECONDS_A_GLANCE)
            before, trace = trace, self._trace()
        return trace

    def _trace(self) -> str:
        self._crash_log.seek(0)
        return self._crash_log.read().decode(errors="replace").strip()

    def ask_to_stop(self) -> None:
        """Ask the worker to end as soon as its trial has saved its state, without waiting for it."""
        self._send(STOP)

    def unheard(self) -> bool:
        """Throw away what the worker has sent; False once it can't send any more."""
        try:
            return bool(os.read(self.connection.fileno(), 1 << 16))
        except OSError:
            return False

    def ended(self) -> bool:
        """Tell whether the process itself has ended."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the worker, with all that it has started, and free what this process holds of it."""
        self.connection.close()
        self.kill()
        self._crash_log.close()

    def kill(self) -> None:
        """Kill the worker's whole group. That needs nobody's consent, and works on stopped processes too."""
        self._group.kill()
        self._process.wait()

    def _send(self, content: bytes) -> None:
        try:
            self.connection.send_bytes(content)
        except (BrokenPipeError, ConnectionResetError):
            return  # the worker has ended; reading from it will tell


def end_all(workers: Iterable[WorkerProcess], deadline: float = 0.0) -> None:
    """End workers.

    Args:
        workers: those that are to save their state have been asked to.
        deadline: by the monotonic clock; those that have not ended by themselves by then are killed.
    """
    workers = list(workers)
    talking = {worker.connection: worker for worker in workers}
    try:
        while monotonic() < deadline and not all(worker.ended() for worker in workers):
            if not talking:
                sleep(SECONDS_A_GLANCE)
                continue
            for connection in cast("list[Connection]", wait([*talking], SECONDS_A_GLANCE)):
                if not talking[connection].unheard():
                    del talking[connection]
    finally:
        for worker in workers:
            worker.close()


def _start(fds: tuple[int, int], environment: Mapping[str, str]) -> "tuple[ProcessGroup, subprocess.Popen[bytes]]":
    """Start a worker, the first member of a group of its own."""
    group = ProcessGroup()
    try:
        return group, subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", _PROGRAM, *map(str, fds), *map(str, sys.path)],
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
            env=environment,
            process_group=group.number,
        )
    except OSError:
        group.kill()
        raise


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
