"""Read files from a folder or from inside a tar archive, alike.

An archive is read member by member into memory. Nothing of it is ever written to the disk, so the paths,
links and permissions that it carries can do no harm.
"""

import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from fairtrial.errors import DataError

_BROKEN_ARCHIVE = (tarfile.TarError, EOFError, OSError, zlib.error)


def listed(folder: Path, wanted: Collection[str]) -> set[str]:
    """Which of the wanted paths (relative, with ``/``) are files in a folder."""
    return {name for name in wanted if (folder / name).is_file()}


def read(source: Path, wanted: Collection[str], limit: int) -> dict[str, bytes]:
    """The contents of those wanted files that a folder or a tar archive holds.

    Args:
        source: a folder, or a tar archive, compressed or not.
        wanted: paths relative to the folder's or archive's root, with ``/``.
        limit: the size in bytes above which a file can't be what it is named as.

    Returns:
        The contents by path; a path that is not there is left out.

    Raises:
        DataError: the source does not exist, is no archive, is cut short, or holds a wanted file above the
            limit.
    """
    if source.is_dir():
        return {name: _file(source / name, limit) for name in sorted(listed(source, wanted))}
    with open_archive(source) as archive:
        return dict(_members(archive, source, wanted, limit))


@contextmanager
def open_archive(source: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, and turn whatever its reading raises into a one-line `DataError`."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    try:
        with tarfile.open(source) as archive:
            yield archive
    except _BROKEN_ARCHIVE as error:
        reason = str(error).partition(":\n")[0]  # what follows is a line for each compression that was tried
        raise DataError(f"{source}: not a readable tar archive ({reason})") from error


def _file(path: Path, limit: int) -> bytes:
    try:
        _check_size(str(path), path.stat().st_size, limit)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _members(
    archive: tarfile.TarFile, source: Path, wanted: Collection[str], limit: int
) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        name = str(PurePosixPath(member.name))  # "./a" and "a" are one; ".." stays, and so is never wanted
        if name not in wanted or not member.isreg():
            continue
        _check_size(f"{source}: {name}", member.size, limit)
        content = archive.extractfile(member)
        if content is not None:
            yield name, content.read()


def _check_size(where: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{where}: {size:,} bytes, at most {limit:,} expected")
