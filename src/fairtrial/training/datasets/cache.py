"""Decoded arrays on the disk, one ``.npy`` file each, mapped into memory by every process that needs them.

A file appears under its name only when it is whole, so a reader sees all of it or nothing, and writers can't disturb
each other or a reader. A lock on top of that saves two processes from downloading the same thing twice.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import platformdirs
from filelock import FileLock, Timeout

from fairtrial.errors import DataError
from fairtrial.files import open_atomically, write_atomically
from fairtrial.training.datasets.layout import Arrays, Layout, Pixels, digest
from fairtrial.training.datasets.progress import DownloadProgress

_ABOUT = "about.json"
_TEMPORARY = "fetching-"


def folder(name: str) -> Path:
    """Where a data set's arrays lie: in ``$FAIRTRIAL_CACHE``, or in the user's cache folder."""
    chosen = os.environ.get("FAIRTRIAL_CACHE")
    root = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("fairtrial"))
    return root / name


def read(layout: Layout, *, verify: bool) -> Arrays | None:
    """Map a data set's arrays into memory.

    The maps are private and copy-on-write: all processes share the pages, and nothing that is done to an
    array reaches the file.

    Args:
        layout: the data set.
        verify: hash the contents too; shapes and file sizes are checked always.

    Returns:
        The arrays, or None where the cache does not hold all of them.

    Raises:
        DataError: an array is damaged. It was set aside, so that the next call finds none.
    """
    home = folder(layout.name)
    paths = {name: home / f"{name}.npy" for name in layout.shapes()}
    if not all(path.exists() for path in paths.values()):
        return None
    arrays = Arrays(*(_map(paths[name], shape, layout) for name, shape in layout.shapes().items()))
    if verify and digest(*arrays) != layout.digest:
        for name, array, expected in zip(Arrays._fields, arrays, layout.array_digests, strict=True):
            if digest(array) != expected:
                raise _set_aside(paths[name], layout, "its contents have changed")
    return arrays


def size(layout: Layout) -> int:
    """Bytes that a data set's arrays take on the disk."""
    return sum((folder(layout.name) / f"{name}.npy").stat().st_size for name in layout.shapes())


def origin(name: str) -> str:
    """Where the cached arrays of a data set came from, as `write` was told, or "unknown"."""
    about = folder(name) / _ABOUT
    if not about.exists():
        return "unknown"
    try:
        return str(json.loads(about.read_text(encoding="utf-8"))["origin"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{about}: unreadable ({error}); remove it") from error


def write(layout: Layout, arrays: Arrays, origin: str) -> None:
    """Put a data set's arrays, already held against their digest, into the cache.

    Args:
        layout: the data set.
        arrays: its arrays.
        origin: where they came from, in words.
    """
    home = folder(layout.name)
    fetched = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"origin": origin, "sha256": layout.digest, "fetched": fetched}
    write_atomically(home / _ABOUT, json.dumps(about, indent=2).encode() + b"\n")
    for name, array in zip(Arrays._fields, arrays, strict=True):
        with open_atomically(home / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)


@contextmanager
def fetching(name: str, progress: DownloadProgress) -> Iterator[Path]:
    """Hold the right to fetch a data set, with a temporary folder beside its arrays to do it in.

    Raises:
        DataError: the cache folder can't be written to, or its disk is full.
    """
    home = folder(name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / ".lock", name, progress):
            for left_behind in home.glob(f"{_TEMPORARY}*"):  # by a process that was killed
                shutil.rmtree(left_behind)
            for left_behind in home.glob(".*.part"):
                left_behind.unlink()
            with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=home) as workspace:
                yield Path(workspace)
    except OSError as error:
        raise DataError(
            f"{home}: can't be written to ({error.strerror or error}); set FAIRTRIAL_CACHE to a folder that can"
        ) from error


@contextmanager
def _locked(path: Path, name: str, progress: DownloadProgress) -> Iterator[None]:
    """Wait for the lock; the system drops it with the process that holds it, however that ends."""
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(0, None, f"waiting for another process that fetches {name}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _map(path: Path, shape: tuple[int, ...], layout: Layout) -> Pixels:
    try:
        array = np.lib.format.open_memmap(path, mode="c")
    except (ValueError, EOFError) as error:
        raise _set_aside(path, layout, "it is cut short or no array") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    if array.dtype != np.uint8 or array.shape != shape or not array.flags.c_contiguous:
        raise _set_aside(path, layout, f"it holds {array.dtype} {array.shape}, expected uint8 {shape}")
    expected = array.offset + array.nbytes
    if path.stat().st_size != expected:
        raise _set_aside(path, layout, f"it has {path.stat().st_size:,} bytes, expected {expected:,}")
    return array


def _set_aside(path: Path, layout: Layout, reason: str) -> DataError:
    """Rename a bad file, so that the next call fetches anew; returns the error to raise."""
    bad = path.with_name(f"{path.name}.bad")
    damaged = f"{layout.name}: the cached file {path} is damaged ({reason})"
    try:
        path.replace(bad)
    except FileNotFoundError:
        return DataError(f"{damaged}; another process has set it aside; run again to fetch it anew")
    except OSError as error:
        return DataError(f"{damaged} and can't be set aside ({error.strerror}); remove it")
    return DataError(f"{damaged}; set aside as {bad}; run again to fetch it anew")
