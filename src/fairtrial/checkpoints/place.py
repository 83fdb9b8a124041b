"""Where checkpoints lie: a folder, or a URL that fsspec understands."""

import errno
import os
from pathlib import Path
from typing import Any, Protocol

from fairtrial.errors import CheckpointError
from fairtrial.failpoints import failpoint


class Place(Protocol):
    """Holds small numbers of files, each of which is there whole or not at all."""

    def names(self) -> list[str]:
        """List the files, sorted; none if there is no such place yet."""

    def read(self, name: str) -> bytes:
        """Read a file; FileNotFoundError if there is none."""

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file: once this returns, it is on the disk whole. ``kind`` names the fail points."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def clear(self) -> None:
        """Remove the place with all that is in it."""


def open_place(where: str, folder: str) -> Place:
    """Open a folder of its own in a place.

    Args:
        where: a folder's path, or a URL such as ``s3://bucket/checkpoints``.
        folder: the folder's name in it.

    Raises:
        CheckpointError: fsspec does not know the URL, or is not installed.
    """
    if "://" not in where:
        return Folder(Path(where) / folder)
    try:
        import fsspec  # noqa: PLC0415

        system, path = fsspec.url_to_fs(f"{where.rstrip('/')}/{folder}")
    except ImportError as error:
        raise CheckpointError(f"checkpoints at {where}: {error}") from error
    except ValueError as error:
        raise CheckpointError(
            f"checkpoints at {where}: must be a folder or a URL that fsspec knows ({error})"
        ) from error
    return Remote(system, path)


class Folder:
    """A folder on a disk.

    Args:
        path: the folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def names(self) -> list[str]:
        """List the files, sorted; none if there is no such place yet."""
        try:
            return sorted(name for name in os.listdir(self._path) if not name.endswith(".part"))  # noqa: PTH208
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """Read a file."""
        return (self._path / name).read_bytes()

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file under another name, see it to the disk, rename it, and see that to the disk too."""
        self._path.mkdir(parents=True, exist_ok=True)
        target = self._path / name
        part = self._path / f"{name}.{os.getpid()}.part"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
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


class Remote:
    """A folder in a file system of fsspec's. Object stores put a file whole; others get it by renaming.

    Args:
        system: the file system.
        path: the folder in it.
    """

    def __init__(self, system: Any, path: str) -> None:
        self._system = system
        self._path = path

    def names(self) -> list[str]:
        """List the files, sorted; none if there is no such place yet."""
        self._system.invalidate_cache()
        try:
            found = self._system.ls(self._path, detail=False)
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rpartition("/")[2] for path in found)
        return sorted(name for name in names if not name.endswith(".part"))

    def read(self, name: str) -> bytes:
        """Read a file."""
        return bytes(self._system.cat_file(f"{self._path}/{name}"))

    def write(self, name: str, content: bytes, kind: str) -> None:
        """Write a file under another name, then rename it."""
        self._system.makedirs(self._path, exist_ok=True)
        part = f"{self._path}/{name}.part"
        self._system.pipe_file(part, content)
        failpoint(f"checkpoint.{kind}_written")
        self._system.mv(part, f"{self._path}/{name}")
        failpoint(f"checkpoint.{kind}_renamed")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        if self._system.exists(f"{self._path}/{name}"):
            self._system.rm_file(f"{self._path}/{name}")

    def clear(self) -> None:
        """Remove the folder with all that is in it."""
        self._system.invalidate_cache()
        if self._system.exists(self._path):
            self._system.rm(self._path, recursive=True)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
