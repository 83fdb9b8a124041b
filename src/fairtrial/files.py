"""Writes files that are always complete, opens files and folders that may be anything, and finds programs."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO


@contextmanager
def open_atomically(
    path: Path, *, within: int | None = None, before_rename: Callable[[], None] = lambda: None
) -> Iterator[IO[bytes]]:
    """Write a file, in a folder that exists, under another name, and rename it once it is complete and on the disk.

    After an `OSError`, an earlier file of that name is unchanged, and nothing else is left. A link of that name is
    replaced, not followed. ``within`` is an open folder that the path begins from; ``before_rename`` is for failpoints.

    Example:
        >>> with open_atomically(Path("notes.txt")) as file:
        ...     _ = file.write(b"all or nothing")
    """
    temporary = f".{path.name}.{secrets.token_hex(4)}.part"
    with open_folder(path.parent, within) as folder:
        try:
            with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o666, dir_fd=folder)) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            before_rename()
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)


def write_atomically(
    path: Path, content: bytes, *, within: int | None = None, before_rename: Callable[[], None] = lambda: None
) -> None:
    """Write a file as `open_atomically` does."""
    with open_atomically(path, within=within, before_rename=before_rename) as file:
        file.write(content)


@contextmanager
def open_folder(path: Path, within: int | None = None) -> Iterator[int]:
    """Open a folder, for calls that take a ``dir_fd``; within an open folder, one that must not be a link."""
    follow = os.O_NOFOLLOW if within is not None else 0
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | follow, dir_fd=within)
    except OSError as error:
        if follow and error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise OSError(error.errno, f"{path} is a file or a link, not a folder; remove it") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_regular(path: Path, within: int | None = None, *, follow: bool = False) -> Iterator[BufferedReader]:
    """Open a regular file to read it; an `OSError` at once where a pipe, a device or a folder is in its place.

    These have no end, or wait for one who writes. So is a link, unless it is to be followed.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a path can't contain NUL characters")
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    flags = os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with open(path, "rb", opener=lambda name, how: os.open(name, how | flags, dir_fd=within)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        yield file


def make_folder(path: Path) -> None:
    """Make a folder and those above it, which survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Write a folder's list of names to the disk."""
    with open_folder(path) as folder:
        os.fsync(folder)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a file that a user names, of at most ``limit`` bytes; an `OSError` says why not in its ``strerror``.

    Example:
        >>> read_bounded(Path("/dev/zero"), 2**20)
        Traceback (most recent call last):
        OSError: [Errno 22] not a regular file
    """
    with open_regular(path, follow=True) as file:
        too_large = os.fstat(file.fileno()).st_size > limit
        content = b"" if too_large else file.read(limit + 1)
    if too_large or len(content) > limit:  # another process may be writing it
        raise OSError(errno.EFBIG, f"has more than {size_text(limit)}, the most that is read")
    return content


def program_path() -> str:
    """The absolute entries of ``PATH``: others lead to the working folder, whose files can be anybody's."""
    return os.pathsep.join(filter(os.path.isabs, os.get_exec_path()))


def find_program(name: str) -> str | None:
    """Find a program in `program_path`; a name with a slash is a path, and is left as it is.

    Example:
        >>> find_program("no-such-program") is None
        True
    """
    return shutil.which(name, path=program_path())


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
