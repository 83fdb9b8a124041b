"""Where checkpoints lie: a folder, or a URL that fsspec understands.

All that goes wrong is an OSError, whatever a file system of fsspec's makes of it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from fairtrial.errors import CheckpointError
from fairtrial.failpoints import failpoint


class Storage(Protocol):
    """Holds small numbers of files. No name is written twice."""

    def names(self) -> list[str]:
        """List the files, sorted, half-written ones among them; none if there is no such place yet."""

    def read(self, name: str) -> bytes:
        """Read a file; FileNotFoundError if there is none."""

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file: once this returns, it is kept whole; if it raises, nothing is left.

        Args:
            name: the file's name.
            content: what is to be in it.
            kind: for the names of the fail points.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def clear(self) -> None:
        """Remove the place with all that is in it."""


def open_storage(where: str, folder: str) -> Storage:
    """Open a folder of its own in a place.

    Args:
        where: a folder's path, or a URL such as ``s3://bucket/checkpoints``.
        folder: the folder's name in it.

    Raises:
        CheckpointError: fsspec does not know the URL, or is not installed.
    """
    scheme, _, rest = where.rpartition("://")
    if scheme in {"", "file", "local"}:  # fsspec's own way to a disk does not see to it that files get there
        return FolderStorage(Path(rest) / folder)
    try:
        import fsspec  # noqa: PLC0415

        system, path = fsspec.url_to_fs(f"{where.rstrip('/')}/{folder}")
    except ImportError as error:
        raise CheckpointError(f"checkpoints at {where}: {error}") from error
    except ValueError as error:
        raise CheckpointError(
            f"checkpoints at {where}: must be a folder or a URL that fsspec knows ({error})"
        ) from error
    return FsspecStorage(system, path)


class FolderStorage:
    """A folder on a disk.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """List the files, sorted; none if there is no such place yet."""
        try:
            return sorted(os.listdir(self._path))  # noqa: PTH208
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file under another name, see it to the disk, rename it, and see that to the disk too."""
        _make_folder(self._path)
        target = self._path / name
        part = self._path / f"{name}.part"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        failpoint(f"checkpoint.{kind}_written")
        part.replace(target)
        _sync_folder(self._path)
        failpoint(f"checkpoint.{kind}_renamed")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        try:
            names = os.listdir(self._path)  # noqa: PTH208
        except FileNotFoundError:
            return
        for name in sorted(names):  # manifests before arrays, so that none is left that lacks them
            self.remove(name)
        try:
            self._path.rmdir()
        except OSError as error:  # a worker that was given up may still write; nobody will read it
            if error.errno != errno.ENOTEMPTY:
                raise


class FsspecStorage:
    """A folder in a file system of fsspec's.

    Files are put in place directly. Object stores take them whole or not at all; elsewhere a half-written one does no
    harm, because a checkpoint counts only once its digests fit. To rename would be to copy, on most of these.

    Args:
        system: the file system.
        path: the folder in it.
    """

    def __init__(self, system: Any, path: str) -> None:
        self._system = system
        self._path = path

    def names(self) -> list[str]:
        """List the files, sorted; none if there is no such place yet."""
        with _as_os_errors():
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def read(self, name: str) -> bytes:
        """Read a file."""
        with _as_os_errors():
            return bytes(self._system.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file."""
        try:
            with _as_os_errors():
                self._system.makedirs(self._path, exist_ok=True)
                self._system.pipe_file(f"{self._path}/{name}", content)
        except BaseException:
            with suppress(OSError):
                self.remove(name)
            raise
        failpoint(f"checkpoint.{kind}_written")
        failpoint(f"checkpoint.{kind}_renamed")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with _as_os_errors(), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        with _as_os_errors(), suppress(FileNotFoundError):
            self._system.invalidate_cache()
            self._system.rm(self._path, recursive=True)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """File systems of fsspec's raise what the libraries beneath them do."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def _make_folder(path: Path) -> None:
    """Make a folder and those above it, and see to it that they are still there after a power cut."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
