"""Where checkpoints lie: a folder, or a URL that fsspec understands.

All that goes wrong is an OSError, whatever a file system of fsspec's makes of it.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fairtrial.errors import CheckpointError
from fairtrial.failpoints import failpoint
from fairtrial.files import make_folder, write_atomically


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
            return sorted(path.name for path in self._path.iterdir())
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file, all of it or nothing."""
        make_folder(self._path)
        write_atomically(self._path / name, content, before_rename=partial(failpoint, f"checkpoint.{kind}_written"))
        failpoint(f"checkpoint.{kind}_renamed")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self._path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        for name in self.names():  # manifests before arrays, so that none is left that lacks them
            self.remove(name)
        try:
            self._path.rmdir()
        except FileNotFoundError:
            return
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
