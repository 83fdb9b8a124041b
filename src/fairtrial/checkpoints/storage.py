"""Storage of checkpoints: a folder, or a URL that fsspec understands. All its errors are OSErrors."""
# ruff: noqa: D102  (`Storage` describes the methods)

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
    """A folder with a small number of files. No name is written twice."""

    def names(self) -> list[str]:
        """List the files, sorted, including half-written ones; none if the folder does not exist yet."""

    def read(self, name: str) -> bytes:
        """Read a file; FileNotFoundError if there is none."""

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file so that it is whole and durable when this returns; nothing is left if it raises.

        The kind is part of the failpoints' names.
        """

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def clear(self) -> None:
        """Remove the folder and all its files."""


def open_storage(location: str, folder: str) -> Storage:
    """Open a folder within a folder or URL; a CheckpointError if fsspec does not know the URL, or is not installed."""
    scheme, _, rest = location.rpartition("://")
    if scheme in {"", "file", "local"}:  # fsspec's local files are not synced to the disk
        return FolderStorage(Path(rest) / folder)
    try:
        import fsspec  # noqa: PLC0415

        system, path = fsspec.url_to_fs(f"{location.rstrip('/')}/{folder}")
    except ImportError as error:
        raise CheckpointError(f"checkpoints at {location}: {error}") from error
    except ValueError as error:
        problem = f"must be a folder or a URL that fsspec knows ({error})"
        raise CheckpointError(f"checkpoints at {location}: {problem}") from error
    return FsspecStorage(system, path)


class FolderStorage:
    """A folder on a disk, made when something is written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        try:
            return sorted(path.name for path in self._path.iterdir())
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes, kind: str) -> None:
        make_folder(self._path)
        write_atomically(self._path / name, content, before_rename=partial(failpoint, f"checkpoint.{kind}_written"))
        failpoint(f"checkpoint.{kind}_renamed")

    def remove(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        for name in self.names():  # manifests before arrays, so that none is left without them
            self.remove(name)
        try:
            self._path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:  # a worker that was given up may still write, which nobody reads
            if error.errno != errno.ENOTEMPTY:
                raise


class FsspecStorage:
    """A folder in a file system of fsspec's.

    Files are written under their names directly, because most of these systems rename by copying. Object stores take
    files whole or not at all; elsewhere a half-written one does no harm, because a checkpoint counts only if its
    digests match.
    """

    def __init__(self, system: Any, path: str) -> None:
        self._system = system
        self._path = path

    def names(self) -> list[str]:
        with _as_os_errors():
            self._system.invalidate_cache()
            try:
                found = self._system.ls(self._path, detail=False)
            except FileNotFoundError:
                return []
            return sorted(str(path).rstrip("/").rpartition("/")[2] for path in found)

    def read(self, name: str) -> bytes:
        with _as_os_errors():
            return bytes(self._system.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, content: bytes, kind: str) -> None:
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
        with _as_os_errors(), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def clear(self) -> None:
        with _as_os_errors(), suppress(FileNotFoundError):
            self._system.invalidate_cache()
            self._system.rm(self._path, recursive=True)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn what the libraries beneath fsspec's file systems raise into OSErrors."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
