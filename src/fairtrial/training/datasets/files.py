"""Read files from a folder or a tar archive.

An archive is read member by member into memory. Nothing is written to disk, so the paths, links and permissions in it
can do no harm; and no header, member or compressed stream in it makes this read more than the limits below.
"""

import gzip
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import IO, cast

from fairtrial.errors import DataError
from fairtrial.files import open_regular, read_bounded, size_text

#: Bytes of an archive when it is not compressed, those of one member's headers, and members.
LARGEST_ARCHIVE, LARGEST_HEADERS, MOST_MEMBERS = 2**30, 2**14, 1_000


def listed(folder: Path, wanted: Collection[str]) -> set[str]:
    """Which of the wanted paths (relative, with ``/``) are files in a folder."""
    return {name for name in wanted if (folder / name).is_file()}


def read(source: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Read those of the wanted files that a folder or a tar archive has.

    Args:
        source: the folder or archive.
        wanted: the most bytes that each file may have, by its relative path, with ``/``.

    Raises:
        DataError: something can't be read, or is larger than allowed.
    """
    if source.is_dir():
        return {name: _read_file(source / name, wanted[name]) for name in sorted(listed(source, wanted))}
    contents = {}
    with open_archive(source) as (archive, stream):
        for member in _members(archive, stream):
            name = str(PurePosixPath(member.name))  # "./a" is "a"; ".." stays, and so is never wanted
            if name in wanted and member.isreg() and not member.issparse() and (file := archive.extractfile(member)):
                _check_size(f"{source}: {name}", member.size, wanted[name])
                stream.allow(member.size)
                contents[name] = file.read()
    return contents


#: What files begin with whose compression is known, but not read; no name in a tar archive is likely to.
_OTHERS = {"bzip2": re.compile(rb"BZh[1-9]1AY&SY"), "xz": re.compile(rb"\xfd7zXZ\0")}


class _TooMuchError(Exception):
    """An archive takes more than a limit; the message is the reason."""


class BoundedStream:
    """An archive, uncompressed, of which no more is read at a time than is allowed.

    Sizes in headers come from whoever made the archive: tarfile reads what they say into memory, and moves back by a
    negative one, again and again.
    """

    def __init__(self, stream: BufferedReader | gzip.GzipFile) -> None:
        self._stream = stream
        self._allowed = LARGEST_HEADERS

    def allow(self, size: int) -> None:
        """Allow to read so many bytes from now on."""
        self._allowed = size

    def read(self, size: int = -1) -> bytes:
        """Read bytes."""
        self._allowed -= size
        if size < 0 or self._allowed < 0:
            raise _TooMuchError(f"a header takes more than {LARGEST_HEADERS:,} bytes")
        return self._stream.read(size)

    def seek(self, position: int) -> int:
        """Skip bytes."""
        if position < self.tell():
            raise _TooMuchError("a member has a negative size")
        if position > LARGEST_ARCHIVE:
            raise _TooMuchError(f"it unpacks to more than {size_text(LARGEST_ARCHIVE)}")
        return self._stream.seek(position)

    def tell(self) -> int:
        """Tell the position."""
        return self._stream.tell()


#: What tarfile and gzip raise where an archive is damaged or was made to mislead them.
_UNREADABLE = (
    tarfile.TarError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    RecursionError,
    zlib.error,
    _TooMuchError,
)


def _members(archive: tarfile.TarFile, stream: BoundedStream) -> Iterator[tarfile.TarInfo]:
    for _ in range(MOST_MEMBERS):
        stream.allow(LARGEST_HEADERS)
        if (member := archive.next()) is None:
            return
        yield member
    raise _TooMuchError(f"it has more than {MOST_MEMBERS:,} members")


@contextmanager
def open_archive(source: Path) -> Iterator[tuple[tarfile.TarFile, BoundedStream]]:
    """Open a tar archive, gzipped or not; what goes wrong while it is read becomes a one-line `DataError`."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    try:
        with open_regular(source, follow=True) as file:
            start = file.peek()
            for name, magic in _OTHERS.items():
                if magic.match(start):
                    raise DataError(f"{source}: compressed with {name}; unpack it, or compress it with gzip")
            compressed = start.startswith(b"\x1f\x8b")
            with closing(gzip.GzipFile(fileobj=file) if compressed else file) as unpacked:
                stream = BoundedStream(unpacked)
                with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r:") as archive:
                    yield archive, stream
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source}: not a readable tar archive ({reason})") from error


def _read_file(path: Path, limit: int) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _check_size(where: str, size: int, limit: int) -> None:
    if size > limit:
        raise DataError(f"{where}: {size:,} bytes, at most {limit:,} expected")
