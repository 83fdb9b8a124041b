"""Locks that let one process at a time run a study in a store, and that die with it however it dies.

For a SQLite file the lock is one of `filelock` (``flock``) on a small file beside the database, which says who holds it
and is removed at the end. No program that the holder starts inherits it, and no fork keeps it.

On PostgreSQL it is an advisory lock of a session of its own: the server releases it when the connection ends. That is
when its process ends, but for one case: a fork (not a program that was started) of the holder shares the connection.
"""

import contextlib
import hashlib
import os
import stat
import threading
import uuid
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from fairtrial.errors import StoreError, StoreLockedError

#: Long enough for a second try where the holder removes the file while it is being opened.
_TIMEOUT_SECONDS, _BETWEEN_TRIES_SECONDS = 0.1, 0.02

#: What this process holds in databases in memory.
_IN_MEMORY: dict[Hashable, object] = {}

#: PostgreSQL cuts longer names of applications.
_NAME_BYTES = 63


def _locked_error(label: str, holder: str) -> StoreLockedError:
    return StoreLockedError(
        f"{label} is being run in this store already, by {holder}: wait for it or stop it, or name another store with "
        "--store"
    )


def _holder_text() -> str:
    return f"process {os.getpid()} on {gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


@contextmanager
def lock_in_process(what: Hashable, label: str) -> Iterator[None]:
    """Hold a lock against the other threads of this process."""
    mine = object()
    if _IN_MEMORY.setdefault(what, mine) is not mine:
        raise _locked_error(label, "this process")
    try:
        yield
    finally:
        del _IN_MEMORY[what]


@contextmanager
def lock_file(path: Path, label: str) -> Iterator[None]:
    """Hold a lock on a file, which exists as long as the lock does; see the module.

    Raises:
        StoreLockedError: another process holds it, or this one does already.
        StoreError: the file can't be made, or is not one that a lock has made.
    """
    lock = FileLock(path, _TIMEOUT_SECONDS, thread_local=False, on_acquired=partial(_sign, path, label))
    try:
        lock.acquire(poll_interval=_BETWEEN_TRIES_SECONDS)
    except Timeout:
        raise _locked_error(label, _holder_of(path)) from None
    except OSError as error:
        raise StoreError(f"{label} can't be run in this store: {path}: {error.strerror}") from error
    owner = os.getpid()
    try:
        yield
    finally:
        if owner == os.getpid():  # and not a fork of the holder, which leaves by the same door
            path.unlink(missing_ok=True)  # still locked: whoever has opened it already notices
            lock.release()


def _sign(path: Path, label: str, file: int) -> None:
    """Write into a file that was just locked who has locked it, unless it can be something else than a lock."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise StoreError(f"{label} can't be run in this store: {path} is not a lock of fairtrial's; remove it")
    os.ftruncate(file, 0)
    os.pwrite(file, f"{_holder_text()}\n".encode(), 0)


def _holder_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        if path.is_file() and (written := path.read_text(errors="replace").strip()):
            return written
    return "another process"


class AdvisoryLock:
    """An advisory lock of PostgreSQL, on a connection that has no other use.

    Args:
        engine: gives the connection.
        what: what is locked, in the database's current schema.
        label: what errors call it.

    Raises:
        StoreLockedError: another session holds it.
        DBAPIError: the server can't be reached.
    """

    def __init__(self, engine: Engine, what: str, label: str) -> None:
        self._engine = engine
        self._what = what
        self._label = label
        self._guard = threading.Lock()
        # What the session calls itself, for others; with a token of its own, so that it recognizes itself.
        name = f"fairtrial {os.getpid()} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {uuid.uuid4().hex[:8]} {gethostname()}"
        self._name = name.encode()[:_NAME_BYTES].decode(errors="ignore")
        self._connection: Connection | None = None
        self.renew()

    def renew(self) -> None:
        """Take the lock, or take it again if its connection was lost; errors as the class's."""
        with self._guard:
            if self._connection is not None:
                try:
                    self._connection.exec_driver_sql("SELECT 1")
                except DBAPIError:
                    self.release()
                else:
                    return
            self._connection = self._take()

    def release(self) -> None:
        """Release the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DBAPIError):
                connection.close()

    def _take(self) -> Connection:
        with contextlib.ExitStack() as closing:
            connection = closing.enter_context(self._engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # from the pool: closing must end the session
            connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": self._name})
            key = _key(f"fairtrial {connection.exec_driver_sql('SELECT current_schema()').scalar()} {self._what}")
            taken = connection.execute(_TRY, key).scalar()
            if not taken and (session := connection.execute(_SESSION, key).first()) and session[1] == self._name:
                connection.execute(_END, {"session": session[0]})  # ours: the server has not missed us yet
                taken = connection.execute(_TRY, key).scalar()
            if not taken:
                raise _locked_error(self._label, _holder(connection, key))
            closing.pop_all()
            return connection


_TRY = text("SELECT pg_try_advisory_lock(:high, :low)")
_END = text("SELECT pg_terminate_backend(:session, 10000)")  # waits, in milliseconds
_SESSION = text(
    "SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = :high AND objid = :low"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def _key(what: str) -> dict[str, int]:
    """Digest what is locked into the two numbers of an advisory lock, which pg_locks shows without their sign."""
    digest = hashlib.sha256(what.encode()).digest()
    return {"high": int.from_bytes(digest[:4], "big") >> 1, "low": int.from_bytes(digest[4:8], "big") >> 1}


def _holder(connection: Connection, key: dict[str, int]) -> str:
    session = connection.execute(_SESSION, key).first()
    words = session[1].split() if session else []
    if len(words) < 4 or words[0] != "fairtrial":
        return "another process"
    _, process, since, _, *host = words
    return f"process {process} on {' '.join(host)} since {since.rstrip('Z').replace('T', ' ')} UTC"
