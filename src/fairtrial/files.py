"""Write files so that nobody ever finds half of one."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def open_atomically(path: Path, *, before_rename: Callable[[], None] = lambda: None) -> Iterator[IO[bytes]]:
    """Open a file that gets its name, or replaces the one that has it, only when it is complete and on the disk.

    Args:
        path: the file; its folder must exist.
        before_rename: called between the two; for fail points.

    Raises:
        OSError: it can't be written; whatever had the name before is untouched, and nothing else is left.

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
    """Make a folder and those above it, so that they are still there after a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Flush a folder's list of names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
