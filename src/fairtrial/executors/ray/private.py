"""Starts a Ray on this machine that only this process can use, and that ends with it.

By itself, a Ray listens on all interfaces, and whoever reaches it, or the sockets in its folder, can run code in it.
This one listens on the loopback interface, answers only to a token that it does not share, and has a folder that only
this user can enter.
"""

import importlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

#: Bytes of the object store, the least that Ray takes: reports are small.
OBJECT_STORE = 80 * 1024 * 1024

#: Longest path of a folder for temporary files, in bytes, in which the names of Ray's sockets still fit.
_LONGEST_FOLDER = 29

#: What a process runs that outlives this one, however it ends. It reads Ray's folder and the numbers of its processes;
#: at the end of its input it kills those that are left, and removes the folder. Ray's own processes take a minute to
#: notice. A descriptor stands for one process, where a number could have passed to another.
_CLEANER = """
import os, shutil, signal, sys, time
folder = sys.stdin.readline().rstrip()
processes = []
for line in sys.stdin:
    for number in line.split():
        try:
            processes.append(os.pidfd_open(int(number)))
        except (AttributeError, OSError):  # not on Linux, or the process has ended
            pass
for process in processes:
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        pass
for _ in range(100):  # workers may still write for seconds
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.exists(folder):
        break
    time.sleep(0.1)
"""


@contextmanager
def private_ray(ray: Any, cores: int, gpus: int = 0, **options: Any) -> Iterator[None]:
    """Start a Ray with so many cores and GPUs, and other options of ``ray.init``, and end it after the context."""
    temporary = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(temporary)) > _LONGEST_FOLDER:
        temporary = "/tmp"  # noqa: S108  (the folder below gets a random name, and is made for this user alone)
    folder = tempfile.mkdtemp(prefix="ray-", dir=temporary)
    with _cleaned_up(folder) as numbers, _token():
        try:
            try:
                with _on_loopback():
                    ray.init(
                        "local",
                        num_cpus=cores,
                        num_gpus=gpus,
                        object_store_memory=OBJECT_STORE,
                        include_dashboard=False,
                        _temp_dir=f"{folder}/r",  # below ours: Ray opens its own to everybody
                        **options,
                    )
            finally:  # a start that failed leaves processes, too
                numbers.write(f"{' '.join(map(str, _processes_of(folder)))}\n")
            yield
        finally:
            ray.shutdown()


@contextmanager
def _cleaned_up(folder: str) -> Iterator[IO[str]]:
    """Remove a folder, and kill the processes whose numbers are written to the context, once that or this process ends.

    A fork of this process that goes on keeps it from being noticed, until that ends too.
    """
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-I", "-S", "-c", _CLEANER],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        bufsize=1,
        cwd="/",
        start_new_session=True,  # out of reach of a terminal's signals
    ) as cleaner:
        numbers = cast("IO[str]", cleaner.stdin)
        numbers.write(f"{folder}\n")
        yield numbers


@contextmanager
def _token() -> Iterator[None]:
    """Make Ray ask for a token that nobody else knows: in this process, and in those that it starts."""
    ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    _reread_environment()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _reread_environment()


def _reread_environment() -> None:
    """Let Ray forget what it has read of its variables when it was imported, or for an earlier cluster."""
    raylet: Any = importlib.import_module("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Make Ray take the loopback address for this node's, as it does where it supports no clusters."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _processes_of(folder: str) -> list[int]:
    """List the processes that Ray has started: those whose command names its folder, and all that they have started."""
    parents: dict[int, int] = {}
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            number = int(process.name)
            parents[number] = int((process / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parents[number] == os.getpid() and folder.encode() in (process / "cmdline").read_bytes():
                found.append(number)
    for parent in found:  # which grows meanwhile
        found += [number for number, other in parents.items() if other == parent]
    return found
