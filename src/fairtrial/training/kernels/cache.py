"""Keeps compiled libraries in a folder that only this user can write to, and opens none that is damaged.

    kernels-<user id>/float-<key>.so           a library
                      float-<key>.so.sha256    its digest, in the form of sha256sum
                      compiling-<random>       where the process that holds the lock compiles
                      .lock

A library can do whatever its user can, and one that is cut short ends the process that loads it. So its name proves
nothing: owner, mode, links and digest are checked, and the very file that was checked is loaded.
"""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from fairtrial.errors import DataError
from fairtrial.files import open_atomically
from fairtrial.training.datasets.cache import folder

_TEMPORARY = "compiling-"


class KernelsUnavailableError(Exception):
    """Compiled kernels are unavailable; the message says why."""


class UnsoundError(Exception):
    """A file must not be loaded; the message names it and says why."""


class Library(NamedTuple):
    """A library that may be loaded: its path, and an open file of it."""

    path: Path
    descriptor: int

    @property
    def loadable(self) -> str:
        """A path that leads to the open file, whatever has its name by now, where the system has such paths."""
        same = f"/proc/self/fd/{self.descriptor}"
        return same if Path(same).exists() else str(self.path)


def find(name: str) -> Library | None:
    """Open a library, and change nothing; None if there is none.

    Raises:
        UnsoundError: others could have written it, or it is damaged.
        KernelsUnavailableError: the folder is not this user's.
    """
    path = _folder() / name
    recorded = _recorded_digest(path)
    try:
        descriptor = _open(path)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if recorded == _line(digest, name):
        return Library(path, descriptor)
    os.close(descriptor)
    raise UnsoundError(f"{path} is damaged: its digest is not the one recorded when it was compiled")


def prepare() -> None:
    """Make the folder, closed to all other users, and remove what killed processes have left in it.

    Raises:
        KernelsUnavailableError: another user has made it, or it is no folder.
        OSError: it can't be made.
    """
    home = _folder()
    home.parent.mkdir(parents=True, exist_ok=True)
    home.mkdir(mode=0o700, exist_ok=True)
    if stat.S_IMODE(_folder().stat().st_mode) != 0o700:
        home.chmod(0o700)
    if _left_behind(home):
        try:
            with FileLock(home / ".lock", timeout=0):
                _remove(home)
        except Timeout:  # the process that they belong to is alive
            pass


@contextmanager
def compiling() -> Iterator[Path]:
    """Lock the folder against other processes that compile, and make a temporary folder in it."""
    home = folder_path()
    with FileLock(home / ".lock"):
        _remove(home)
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=home) as workspace:
            yield Path(workspace)


def write(name: str, content: bytes) -> None:
    """Write a library and its digest, each so that it is whole and on the disk when it gets its name."""
    path = folder_path() / name
    digest = _line(hashlib.sha256(content).hexdigest(), name)
    for file_path, what in ((_digest_path(path), digest), (path, content)):  # no library is ever without a digest
        with open_atomically(file_path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(what)


def folder_path() -> Path:
    """The folder of this user's libraries; users who share a cache share no code.

    Raises:
        KernelsUnavailableError: there is no home folder to put it in.
    """
    try:
        return folder(f"kernels-{os.geteuid()}")
    except DataError as error:
        raise KernelsUnavailableError(str(error)) from error


def _folder() -> Path:
    """The folder, unless another user could have put the files there."""
    home = folder_path()
    try:
        status = home.lstat()
    except FileNotFoundError:
        return home
    if not stat.S_ISDIR(status.st_mode):
        raise KernelsUnavailableError(f"{home} is not a folder")
    if status.st_uid != os.geteuid():
        raise KernelsUnavailableError(f"{home} belongs to another user")
    return home


def _open(path: Path) -> int:
    """Open a plain file that only this user can have written; an UnsoundError if it is anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        reason = "is a link" if error.errno == errno.ELOOP else f"can't be opened ({error.strerror})"
        raise UnsoundError(f"{path} {reason}") from error
    status = os.fstat(descriptor)
    reasons = {
        "is not a file": not stat.S_ISREG(status.st_mode),
        "belongs to another user": status.st_uid != os.geteuid(),
        "can be written to by other users": bool(status.st_mode & 0o022),
        "is a link": status.st_nlink != 1,
    }
    for reason, is_so in reasons.items():
        if is_so:
            os.close(descriptor)
            raise UnsoundError(f"{path} {reason}")
    return descriptor


def _recorded_digest(path: Path) -> bytes:
    try:
        descriptor = _open(_digest_path(path))
    except FileNotFoundError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(1000)  # more than any has


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _line(digest: str, name: str) -> bytes:
    return f"{digest}  {name}\n".encode()


def _left_behind(home: Path) -> list[Path]:
    return [*home.glob(f"{_TEMPORARY}*"), *home.glob(".*.part")]


def _remove(home: Path) -> None:
    """Remove what killed processes have left: all that is there, as this process holds the lock."""
    for path in _left_behind(home):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)  # their compiler may still write into it
        else:
            path.unlink(missing_ok=True)
