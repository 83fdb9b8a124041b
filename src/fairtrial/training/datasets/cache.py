"""Decoded arrays on disk, one ``.npy`` file each, mapped into memory by every process that needs them.

A file appears under its name only when it is complete, so readers and writers never disturb each other. A lock keeps
two processes from downloading the same data twice.
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
from fairtrial.training.datasets.download import DownloadProgress
from fairtrial.training.datasets.layout import Arrays, Layout, Pixels, digest

_ABOUT = "about.json"
_TEMPORARY = "fetching-"


def folder(name: str) -> Path:
    """The folder of a data set's arrays: in ``$FAIRTRIAL_CACHE``, or in the user's cache folder."""
    root = os.environ.get("FAIRTRIAL_CACHE") or platformdirs.user_cache_dir("fairtrial")
    return Path(root).expanduser() / name


def read(layout: Layout, *, verify: bool) -> Arrays | None:
    """Map a data set's arrays into memory, copy-on-write; return None unless the cache has all of them.

    Shapes and file sizes are always checked; with ``verify``, the contents are hashed too. A damaged array raises
    `DataError` and is set aside, so that the next call finds none.
    """
    paths = [folder(layout.name) / f"{name}.npy" for name in Arrays._fields]
    if not all(path.exists() for path in paths):
        return None
    arrays = Arrays(*(_map(path, shape, layout) for path, shape in zip(paths, layout.shapes().values(), strict=True)))
    if verify and digest(*arrays) != layout.digest:
        for path, array, expected in zip(paths, arrays, layout.array_digests, strict=True):
            if digest(array) != expected:
                raise _set_aside(path, layout, "its contents have changed")
    return arrays


def size(layout: Layout) -> int:
    """Bytes that a data set's arrays take on disk."""
    return sum((folder(layout.name) / f"{name}.npy").stat().st_size for name in Arrays._fields)


def origin(name: str) -> str:
    """The origin of the cached arrays that was given to `write`, or "unknown"."""
    about = folder(name) / _ABOUT
    try:
        return str(json.loads(about.read_text(encoding="utf-8"))["origin"]) if about.exists() else "unknown"
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{about}: unreadable ({error}); remove it") from error


def write(layout: Layout, arrays: Arrays, origin: str) -> None:
    """Write a data set's arrays, whose digest was checked, into the cache; ``origin`` says where they came from."""
    home = folder(layout.name)
    fetched = datetime.now(UTC).isoformat(timespec="seconds")
    about = {"origin": origin, "sha256": layout.digest, "fetched": fetched}
    write_atomically(home / _ABOUT, json.dumps(about, indent=2).encode() + b"\n")
    for name, array in zip(Arrays._fields, arrays, strict=True):
        with open_atomically(home / f"{name}.npy") as file:
            np.save(file, array, allow_pickle=False)


@contextmanager
def fetching(name: str, progress: DownloadProgress) -> Iterator[Path]:
    """Lock a data set for fetching, and make a temporary folder beside its arrays; `DataError` if that fails."""
    home = folder(name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / ".lock")
        try:
            acquired = lock.acquire(blocking=False)
        except Timeout:
            progress(0, None, f"waiting for another process that fetches {name}")
            acquired = lock.acquire()
        with acquired:
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
    """Rename a bad file, so that the next call fetches it again; return the error to raise."""
    bad = path.with_name(f"{path.name}.bad")
    damaged = f"{layout.name}: the cached file {path} is damaged ({reason})"
    try:
        path.replace(bad)
    except FileNotFoundError:
        return DataError(f"{damaged}; another process has set it aside; run again to fetch it anew")
    except OSError as error:
        return DataError(f"{damaged} and can't be set aside ({error.strerror}); remove it")
    return DataError(f"{damaged}; set aside as {bad}; run again to fetch it anew")
