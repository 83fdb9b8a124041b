"""Decoded arrays on disk, one ``.npy`` file each, mapped into memory by every process that needs them.

A file appears under its name only when it is complete, so readers and writers never disturb each other. A lock keeps
two processes from downloading the same data twice.
"""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

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
    """The folder of a data set's arrays: in ``$FAIRTRIAL_CACHE``, or in the user's cache folder.

    Raises:
        DataError: it is in a home folder, and there is none.
    """
    chosen = os.environ.get("FAIRTRIAL_CACHE")
    try:
        return Path(chosen or platformdirs.user_cache_dir("fairtrial")).expanduser() / name
    except RuntimeError as error:
        raise DataError(f"{chosen or '~'}: no home folder for the cache; set FAIRTRIAL_CACHE to a folder") from error


class DamagedArrayError(DataError):
    """A cached array is not what was written."""

    def __init__(self, layout: Layout, path: Path, reason: str) -> None:
        super().__init__(
            f"{layout.name}: the cached file {path} is damaged ({reason}); the next study sets it aside and fetches it "
            f"anew, as does `fairtrial data {layout.name}`"
        )
        self.path = path
        self.line = f"{layout.name}: the cached file {path} is damaged ({reason})"


def read(layout: Layout, *, verify: bool) -> Arrays | None:
    """Map a data set's arrays into memory, copy-on-write; return None unless the cache has all of them.

    Headers and sizes of files are always compared with those of the layout; with ``verify``, contents with its digests.

    Raises:
        DamagedArrayError: an array is damaged.
    """
    paths = [folder(layout.name) / f"{name}.npy" for name in Arrays._fields]
    if not all(path.is_file() for path in paths):
        return None
    arrays = Arrays(*(_map(path, shape, layout) for path, shape in zip(paths, layout.shapes().values(), strict=True)))
    if verify:
        whole, each = digests(layout)
        if not whole:
            raise DamagedArrayError(layout, folder(layout.name) / _ABOUT, "it has no digests of the arrays")
        if digest(*arrays) != whole:
            for path, array, expected in zip(paths, arrays, each, strict=True):
                if digest(array) != expected:
                    raise DamagedArrayError(layout, path, "its contents have changed")
    return arrays


def read_sound(layout: Layout, *, verify: bool, progress: DownloadProgress) -> Arrays | None:
    """As `read`, but set a damaged array aside, say so in a line, and return None: it is to be fetched anew."""
    try:
        return read(layout, verify=verify)
    except DamagedArrayError as damage:
        progress(0, 0, _set_aside(damage))
        return None


def size(layout: Layout) -> int:
    """Bytes that a data set's arrays take on disk."""
    return sum((folder(layout.name) / f"{name}.npy").stat().st_size for name in Arrays._fields)


def origin(name: str) -> str:
    """The origin of the cached arrays that was given to `write`; "unknown" if that can't be read."""
    return str(_about(name).get("origin", "unknown"))


def digests(layout: Layout) -> tuple[str, tuple[str, ...]]:
    """The digest of all arrays and of each: the layout's, or else those that `write` has recorded, if there are any."""
    if layout.digest:
        return layout.digest, layout.array_digests
    about = _about(layout.name)
    each = about.get("arrays")
    if not isinstance(each, list) or len(each) != len(Arrays._fields):
        return "", ()
    return str(about.get("sha256", "")), tuple(map(str, each))


def write(layout: Layout, arrays: Arrays, origin: str) -> None:
    """Write a data set's arrays, whose digest was checked, into the cache; ``origin`` says where they came from."""
    home = folder(layout.name)
    fetched = datetime.now(UTC).isoformat(timespec="seconds")
    each = layout.array_digests or [digest(array) for array in arrays]
    about = {"origin": origin, "sha256": layout.digest or digest(*arrays), "arrays": each, "fetched": fetched}
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


def _about(name: str) -> dict[str, Any]:
    """What `write` has recorded; empty if that can't be read."""
    try:
        about = json.loads((folder(name) / _ABOUT).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


def _map(path: Path, shape: tuple[int, ...], layout: Layout) -> Pixels:
    """Map an array. Its header must be the one that NumPy writes for it: a damaged header is not even parsed."""
    header = _header(shape)
    try:
        size, expected = path.stat().st_size, len(header) + math.prod(shape)
        if size != expected:
            raise DamagedArrayError(layout, path, f"it has {size:,} bytes, expected {expected:,}")
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                raise DamagedArrayError(layout, path, f"its header is not that of uint8 {shape}")
        return np.memmap(path, np.uint8, mode="c", offset=len(header), shape=shape)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error


def _header(shape: tuple[int, ...]) -> bytes:
    """What a .npy file of uint8 in C order begins with."""
    header = BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _set_aside(damage: DamagedArrayError) -> str:
    """Rename a bad file, so that the next call finds none; return a line that says so."""
    bad = damage.path.with_name(f"{damage.path.name}.bad")
    try:
        damage.path.replace(bad)
    except FileNotFoundError:
        return f"{damage.line}; another process has set it aside"
    except OSError as error:
        raise DataError(f"{damage.line} and can't be set aside ({error.strerror}); remove it") from error
    return f"{damage.line}; set aside as {bad}, and fetched anew"
