"""Read files from a folder or a tar archive.

An archive is read member by member into memory. Nothing is written to disk, so the paths, links and permissions in it
can do no harm.
"""

import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fairtrial.errors import DataError


def listed(folder: Path, wanted: Collection[str]) -> set[str]:
    """Which of the wanted paths (relative, with ``/``) are files in a folder."""
    return {name for name in wanted if (folder / name).is_file()}


def read(source: Path, wanted: Collection[str], limit: int) -> dict[str, bytes]:
    """Read those of the wanted files (relative paths, with ``/``) that a folder or a tar archive has.

    Anything that can't be read, or has more than ``limit`` bytes, raises `DataError`.
    """
    if source.is_dir():
        return {name: _read_file(source / name, limit) for name in sorted(listed(source, wanted))}
    contents = {}
    with open_archive(source) as archive:
        for member in archive:
            name = str(PurePosixPath(member.name))  # "./a" is "a"; ".." stays, and so is never wanted
            if name in wanted and member.isreg() and (file := archive.extractfile(member)):
                _check_size(f"{source}: {name}", member.size, limit)
                contents[name] = file.read()
    return contents


@contextmanager
def open_archive(source: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive; what goes wrong while it is read becomes a one-line `DataError`."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    try:
        with tarfile.open(source) as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = str(error).partition(":\n")[0]  # what follows is a line for each compression that was tried
        raise DataError(f"{source}: not a readable tar archive ({reason})") from error


def _read_file(path: Path, limit: int) -> bytes:
    try:
        _check_size(str(path), path.stat().st_size, limit)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _check_size(where: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{where}: {size:,} bytes, at most {limit:,} expected")
