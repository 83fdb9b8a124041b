"""Serves the live page beside a run, in a process of its own, of low priority, that ends with the run's.

The run takes the port, so that it can say at once where the page is, or why there is none; the process inherits it. The
run holds the other end of a pipe, which closes when it ends, however it ends: then this process ends, too. Through a
second pipe come lines about the page's errors, which the run says: only it knows where its progress bars are.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from fairtrial.errors import FairtrialError
from fairtrial.store.url import DatabaseURL
from fairtrial.web.ports import HOST, PORT, address, listen

#: Environment variables for the process: its listening socket, and the store, whose URL may hold a password.
_SOCKET, _STORE = "FAIRTRIAL_SERVE_SOCKET", "FAIRTRIAL_STORE"

#: What its interpreter runs: never the run's main module, and with the run's paths of modules.
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from fairtrial.web import companion; companion.main()"

#: How much the process gives way to training: 19 is the most.
NICENESS = 15

#: Seconds that it gets to end by itself.
PATIENCE = 3.0


class Companion:
    """A live page for as long as a context lasts. Nothing that goes wrong with it is an error: it is said in a line.

    Args:
        store: a file's path or a database URL.
        port: where to serve; None for `PORT`, or any that is free if that is taken.
        say: called with a line for the user.

    Example:
        >>> with Companion("fairtrial.db", None, print):  # doctest: +SKIP
        ...     fairtrial.run(study)
        live page: http://localhost:8484/
    """

    def __init__(self, store: str, port: int | None, say: Callable[[str], object]) -> None:
        self._store, self._port, self._say = store, port, say
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._ending = False

    def __enter__(self) -> Self:
        try:
            with self._listen() as listening:
                self._process = self._start(listening)
                self._say(f"live page: {address(listening)}")
        except (FairtrialError, OSError) as error:
            self._say(f"no live page: {error}; the study runs without it")
        else:
            self._watcher = threading.Thread(target=self._watch, args=(self._process,), daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._watcher is not None:
            self._watcher.join(PATIENCE)

    def _listen(self) -> socket.socket:
        url = DatabaseURL.of(self._store)
        if url.is_sqlite and url.file is None:
            raise FairtrialError("no other process can read a store in memory")
        if self._port is not None:
            return listen(HOST, self._port)
        try:
            return listen(HOST, PORT)
        except FairtrialError:
            return listen(HOST, 0)

    def _start(self, listening: socket.socket) -> "subprocess.Popen[bytes]":
        environment = os.environ | {_SOCKET: str(listening.fileno()), _STORE: self._store}
        environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", _PROGRAM, *map(str, sys.path)],  # -P: no module of the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[listening.fileno()],
            env=environment,
            start_new_session=True,  # Ctrl-C is for the run, which ends this one
        )

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._say(line.decode(errors="replace").rstrip("\n"))
        status = process.wait()
        if not self._ending:
            self._say(f"the live page has ended (status {status}); the study goes on, and fairtrial serve shows it")


def _tell_the_run(line: str) -> None:
    with suppress(OSError):  # the run may have ended
        sys.stdout.buffer.write(f"{line}\n".encode(errors="replace"))
        sys.stdout.buffer.flush()


def main() -> None:
    """Serve until the run has ended."""
    from fairtrial.web.server import Server  # noqa: PLC0415  (loads Altair and more, which the run does not need)

    with suppress(OSError):
        os.nice(NICENESS)
    listening = socket.socket(fileno=int(os.environ.pop(_SOCKET)))
    server = Server.of(os.environ.pop(_STORE), say=_tell_the_run)

    def end_with_the_run() -> None:
        while sys.stdin.buffer.read(1024):
            pass
        server.should_exit = True
        threading.Event().wait(PATIENCE)
        os._exit(1)  # something holds the server up

    threading.Thread(target=end_with_the_run, daemon=True).start()
    server.serve_on(listening)
