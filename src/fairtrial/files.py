"""Writes files that are always complete."""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
