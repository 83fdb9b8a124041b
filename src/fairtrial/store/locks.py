"""Locks that let one process at a time run a study in a store, and that die with it however it dies.

For a SQLite file the lock is a POSIX record lock (`fcntl.lockf`) on a small file beside the database. Unlike ``flock``
it belongs to the process and not to the open file, so no child of the holder, forked or started, can keep it alive. The
price: it does not tell two holders in one process apart, and closing the file anywhere in the process lets go of it. So
whoever asks first looks into `_HELD`, the holds of this process, and only then opens the file.

On PostgreSQL it is an advisory lock of a session of its own: the server lets go of it when the connection ends. That is
when its process ends, but for one case: a fork (not a program that was started) of the holder shares the connection.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from fairtrial.errors import StoreError, StoreLockedError

#: What this process holds, by what is held and the process itself (a fork of it holds nothing), and since when.
_HELD: dict[tuple[Hashable, int], str] = {}
_GUARD = threading.Lock()

#: PostgreSQL cuts longer names of applications.
_NAME_BYTES = 63

_TAKE_OVER_SECONDS = 0.2


def locked_error(label: str, holder: str) -> StoreLockedError:
    """Build the error that says who holds a study."""
    return StoreLockedError(
        f"{label} is being run in this store already, by {holder}: wait for it or stop it, or name another store with "
        "--store"
    )


@contextmanager
def lock_in_process(what: Hashable, label: str) -> Iterator[None]:
    """Hold something against the other threads and stores of this process."""
    key = (what, os.getpid())
    with _GUARD:
        if key in _HELD:
            raise locked_error(label, f"this process ({_HELD[key]})")
        _HELD[key] = _about_us()
    try:
        yield
    finally:
        if key[1] == os.getpid():
            del _HELD[key]


@contextmanager
def lock_file(path: Path, label: str) -> Iterator[None]:
    """Hold a lock on a file, which is there as long as the lock is; see the module.

    Raises:
        StoreHeldError: another process holds it, or this one does already.
        StoreError: the file can't be made.
    """
    path = Path(os.path.realpath(path))
    with lock_in_process(path, label):
        file = _lock(path, label)
        owner = os.getpid()
        try:
            yield
        finally:
            if owner == os.getpid():  # and not a fork of the holder, which leaves by the same door
                path.unlink(missing_ok=True)  # still locked: who has opened it already finds out, see _lock
            os.close(file)


def _lock(path: Path, label: str) -> int:
    """Open and lock a file, and write into it who we are."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreError(f"{label} can't be run in this store: {path}: {error.strerror}") from error
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _still_there(file, path):
                os.ftruncate(file, 0)
                os.write(file, f"{_about_us()}\n".encode())
                return file
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno in {errno.EACCES, errno.EAGAIN}:
                raise locked_error(label, holder) from None
            raise StoreError(f"{label} can't be run in this store: {path}: {error.strerror}") from error
        os.close(file)  # the holder before us removed it between our opening and our locking; make another


def _still_there(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(file: int) -> str:
    written = os.pread(file, 1000, 0).decode(errors="replace").strip()
    return written or "another process"


def _about_us() -> str:
    return f"process {os.getpid()} on {gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"


class AdvisoryLock:
    """An advisory lock of PostgreSQL, on a connection that has no other use.

    Args:
        engine: gives the connection.
        what: what is held, in the database's current schema.
        label: what errors call it.

    Raises:
        StoreHeldError: another session holds it.
    """

    def __init__(self, engine: Engine, what: str, label: str) -> None:
        self._engine = engine
        self._what = what
        self._label = label
        # What the session calls itself, for `_advisory_holder`; with a token of its own, so that it knows itself again.
        name = f"fairtrial {os.getpid()} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {uuid.uuid4().hex[:8]} {gethostname()}"
        self._name = name.encode()[:_NAME_BYTES].decode(errors="ignore")
        self._connection = self._take()

    def renew(self) -> None:
        """Take the lock again if its connection was lost; for whoever has just lost another one.

        Raises:
            StoreHeldError: another session holds it by now.
            DBAPIError: the server can't be reached.
        """
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            self.close()
            self._connection = self._take()

    def close(self) -> None:
        """Let go of the lock."""
        with contextlib.suppress(DBAPIError):
            self._connection.close()

    def _take(self) -> Connection:
        connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            connection.detach()  # from the pool: closing must end the session
            connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": self._name})
            schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
            key = _advisory_key(f"{schema} {self._what}")
            taken = connection.execute(_TRY, {"key": key}).scalar()
            if not taken and self._end_our_former_session(connection, key):
                taken = connection.execute(_TRY, {"key": key}).scalar()
            _expect(taken, self._label, connection, key)
        except BaseException:
            connection.close()
            raise
        return connection

    def _end_our_former_session(self, connection: Connection, key: int) -> bool:
        """End the session that held the lock for us, if the server has not noticed yet that we lost it."""
        session = _advisory_session(connection, key)
        if session is None or session[1] != self._name:
            return False
        connection.execute(text("SELECT pg_terminate_backend(:session)"), {"session": session[0]})
        until = time.monotonic() + _TAKE_OVER_SECONDS
        while _advisory_session(connection, key) is not None and time.monotonic() < until:
            time.sleep(_TAKE_OVER_SECONDS / 20)
        return True


_TRY = text("SELECT pg_try_advisory_lock(:key)")
_SESSION = text(
    "SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = CAST(:high AS bigint)::oid AND objid = CAST(:low AS bigint)::oid"
)


def _expect(taken: object, label: str, connection: Connection, key: int) -> None:
    if not taken:
        raise locked_error(label, _advisory_holder(connection, key))


def _advisory_key(what: str) -> int:
    return int.from_bytes(hashlib.sha256(f"fairtrial {what}".encode()).digest()[:8], "big", signed=True)


def _advisory_session(connection: Connection, key: int) -> tuple[int, str] | None:
    """Name the session that holds a lock: its number on the server, and what it calls itself."""
    parts = {"high": (key >> 32) & 0xFFFFFFFF, "low": key & 0xFFFFFFFF}  # as pg_locks shows a key of 64 bits
    row = connection.execute(_SESSION, parts).first()
    return None if row is None else (int(row[0]), str(row[1]))


def _advisory_holder(connection: Connection, key: int) -> str:
    session = _advisory_session(connection, key)
    words = session[1].split() if session else []
    if len(words) < 4 or words[0] != "fairtrial":
        return "another process" if session is None else f"session {session[0]} of the database"
    _, process, since, _, *host = words
    return f"process {process} on {' '.join(host)} since {since.rstrip('Z').replace('T', ' ')} UTC"
