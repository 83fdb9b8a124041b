"""Storage of checkpoints: a folder, or a URL that fsspec understands. All its errors are OSErrors."""
# ruff: noqa: D102  (`Storage` describes the methods)

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fairtrial.errors import CheckpointError
from fairtrial.failpoints import failpoint
from fairtrial.files import make_folder, open_folder, open_regular, write_atomically


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

    def size(self, name: str) -> int:
        """The size of a file in bytes; 0 if there is none, or if it is not one to remove."""

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""

    def remove_folder(self) -> None:
        """Remove the folder if nothing is in it; other files than a trial's are left alone, and so it stays."""


def open_storage(location: str, folder: str) -> Storage:
    """Open a folder within a folder or URL; a CheckpointError if fsspec does not know the URL, or is not installed."""
    scheme, _, rest = location.rpartition("://")
    if scheme in {"", "file", "local"}:  # fsspec's local files are not synced to the disk
        return FolderStorage(Path(rest), folder)
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
    """A folder within another on a disk, made when something is written.

    The outer one is the user's choice, and may be a link. No link is followed within it, and nothing but a regular file
    is read or removed: who may write there must not have files read, overwritten or deleted elsewhere.
    """

    def __init__(self, location: Path, folder: str) -> None:
        self._location = location
        self._folder = folder

    def names(self) -> list[str]:
        try:
            with self._opened() as folder:
                return sorted(os.listdir(folder))  # noqa: PTH208  (pathlib takes no descriptor)
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        with self._opened() as folder, open_regular(Path(name), folder) as file:
            return file.read()

    def write(self, name: str, content: bytes, kind: str) -> None:
        make_folder(self._location)
        with open_folder(self._location) as location, suppress(FileExistsError):
            os.mkdir(self._folder, dir_fd=location)
            os.fsync(location)
        with self._opened() as folder:
            written = partial(failpoint, f"checkpoint.{kind}_written")
            write_atomically(Path(name), content, within=folder, before_rename=written)
        failpoint(f"checkpoint.{kind}_renamed")

    def size(self, name: str) -> int:
        with suppress(FileNotFoundError), self._opened() as folder:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return found.st_size if stat.S_ISREG(found.st_mode) else 0
        return 0

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError), self._opened() as folder:
            if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=folder)

    def remove_folder(self) -> None:
        try:
            with open_folder(self._location) as location:
                os.rmdir(self._folder, dir_fd=location)
        except FileNotFoundError:
            return
        except OSError as error:  # a worker that was given up may still write, which nobody reads
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with open_folder(self._location) as location, open_folder(Path(self._folder), location) as folder:
            yield folder


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

    def size(self, name: str) -> int:
        with _as_os_errors(), suppress(FileNotFoundError):
            return int(self._system.size(f"{self._path}/{name}") or 0)
        return 0

    def remove(self, name: str) -> None:
        with _as_os_errors(), suppress(FileNotFoundError):
            self._system.rm_file(f"{self._path}/{name}")

    def remove_folder(self) -> None:
        with suppress(OSError), _as_os_errors():  # object stores have no folders, and some systems refuse to remove one
            self._system.rmdir(self._path)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn what the libraries beneath fsspec's file systems raise into OSErrors."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
