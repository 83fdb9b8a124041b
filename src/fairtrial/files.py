"""Writes files that are always complete, and reads files that may be anything."""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO


@contextmanager
def open_atomically(path: Path, *, before_rename: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """Write a file, in a folder that exists, under another name, and rename it once it is complete and on the disk.

    After an `OSError`, an earlier file of that name is unchanged, and nothing else is left. ``before_rename`` is for
    fail points.

    Example:
        >>> with open_atomically(Path("notes.txt")) as file:
        ...     _ = file.write(b"all or nothing")
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write a file as `open_atomically` does."""
    with open_atomically(path, before_rename=before_rename) as file:
        file.write(content)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, which survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Write a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_input(path: Path) -> BufferedReader:
    """Open a regular file that a user names, to read it, links followed; an `OSError` for a pipe, a device or a folder.

    These have no end, or wait for one who writes. The reason is in the error's ``strerror``.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except ValueError as error:
        raise OSError(errno.EINVAL, "a path can't contain NUL characters") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return file


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes; otherwise an `OSError` whose ``strerror`` names the limit.

    Example:
        >>> read_bounded(Path("/dev/zero"), 2**20)
        Traceback (most recent call last):
        OSError: [Errno 22] not a regular file
    """
    with open_input(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"has more than {size_text(limit)}, the most that is read")
    return content


def size_text(size: int) -> str:
    """Write a number of bytes for people.

    Example:
        >>> size_text(2**20), size_text(3 * 2**30), size_text(100)
        ('1 MiB', '3 GiB', '100 bytes')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:,} bytes"
