"""Locks that let one process at a time run a study in a store, and that die with it however it dies.

For a SQLite file it is a lock of `filelock` (``flock``) on a small file beside the database, which names its owner and
is removed at the end. No program that the owner starts inherits it, and no fork keeps it.

On PostgreSQL it is an advisory lock of a session of its own: the server releases it when the connection ends. That is
when its process ends, with one exception: a fork (not a program that was started) of the owner shares the connection.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import threading
import uuid
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fairtrial.errors import StoreError, StoreLockedError
from fairtrial.files import open_regular

#: Long enough for a second try where the owner removes the file while it is being opened.
_TIMEOUT_SECONDS, _BETWEEN_TRIES_SECONDS = 0.1, 0.02

#: What a lock file contains: its owner, or nothing if that died before it wrote it; and how much of a file is read.
_SIGNATURE, _SIGNATURE_BYTES = re.compile(r"(process \d+ on [!-~]+ since [\d:\- ]+ UTC)|$"), 400

#: What this process has locked in databases in memory.
_IN_MEMORY: dict[Hashable, object] = {}

#: PostgreSQL cuts longer names of applications.
_NAME_BYTES = 63


def _locked_error(label: str, owner: str) -> StoreLockedError:
    return StoreLockedError(
        f"{label} is being run in this store already, by {owner}: wait for it or stop it, or name another store with "
        "--store"
    )


@contextmanager
def lock_in_process(key: Hashable, label: str) -> Iterator[None]:
    """Lock something against the other threads of this process."""
    mine = object()
    if _IN_MEMORY.setdefault(key, mine) is not mine:
        raise _locked_error(label, "this process")
    try:
        yield
    finally:
        del _IN_MEMORY[key]


def is_locked_in_process(key: Hashable) -> bool:
    """Check whether a thread of this process has locked something."""
    return key in _IN_MEMORY


@contextmanager
def lock_file(path: Path, label: str) -> Iterator[None]:
    """Lock a file, which exists as long as the lock does; a StoreError if it can't be made, or is no lock file."""
    locked: list[os.stat_result] = []

    def on_acquired(file: int) -> None:
        locked[:] = [_sign(path, label, file)]

    lock = FileLock(path, _TIMEOUT_SECONDS, thread_local=False, on_acquired=on_acquired)
    try:
        lock.acquire(poll_interval=_BETWEEN_TRIES_SECONDS)
    except Timeout:
        raise _locked_error(label, _signature(path)) from None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EISDIR}:  # a link, a socket, a folder
            raise _foreign_error(path, label) from error
        raise StoreError(f"{label} can't be run in this store: {path}: {error.strerror}") from error
    owner = os.getpid()
    try:
        yield
    finally:
        if owner == os.getpid():  # not a fork, which leaves this context too
            with contextlib.suppress(OSError):  # whoever can remove it may have put another file in its place
                if os.path.samestat(path.lstat(), locked[0]):
                    path.unlink()  # still locked: a process that has opened it already will notice
            lock.release()


def is_locked_file(path: Path) -> bool:
    """Check whether a process has locked a file; one that tries to lock it meanwhile will try again."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def left_behind(folder: Path, store: str) -> list[Path]:
    """List the lock files beside a SQLite file, by its name, whose processes have died; `lock_file` removes one."""
    name = re.compile(re.escape(store) + r"\.[0-9a-f]{8}\.lock")
    return [path for path in sorted(folder.iterdir()) if name.fullmatch(path.name) and _is_left(path)]


def _is_left(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            ours = bool(_SIGNATURE.match(file.read(_SIGNATURE_BYTES).decode(errors="replace")))
            return ours and os.fstat(file.fileno()).st_nlink == 1
    except OSError:
        return False


def _sign(path: Path, label: str, file: int) -> os.stat_result:
    """Write this process's name into a file that was just locked; a StoreError if that may be somebody's own.

    It was opened without following a link, but can be a pipe, another name of a file, or a file that was there before.
    """
    found = os.fstat(file)
    ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if not ours or not _SIGNATURE.match(os.pread(file, _SIGNATURE_BYTES, 0).decode(errors="replace")):
        raise _foreign_error(path, label)
    signature = f"process {os.getpid()} on {gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
    os.ftruncate(file, 0)
    os.pwrite(file, signature.encode(), 0)
    return found


def _foreign_error(path: Path, label: str) -> StoreError:
    return StoreError(f"{label} can't be run in this store: {path} is not a lock of fairtrial's; move or remove it")


def _signature(path: Path) -> str:
    with contextlib.suppress(OSError), open_regular(path) as file:
        found = _SIGNATURE.match(file.read(_SIGNATURE_BYTES).decode(errors="replace"))
        return (found and found[1]) or "another process"
    return "another process"


class AdvisoryLock:
    """An advisory lock of PostgreSQL, in the database's current schema, on a connection that has no other use."""

    def __init__(self, engine: Engine, key: str, label: str) -> None:
        self._engine = engine
        self._key = key
        self._label = label
        self._renewing = threading.Lock()
        # The session's name, for other processes; the random part lets this one recognize its own.
        name = f"fairtrial {os.getpid()} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {uuid.uuid4().hex[:8]} {gethostname()}"
        self._name = name.encode()[:_NAME_BYTES].decode(errors="ignore")
        self._connection: Connection | None = None
        self.renew()

    def renew(self) -> None:
        """Take the lock, or take it again if its connection was lost; a StoreLockedError if another session has it."""
        with self._renewing:
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
            with contextlib.suppress(SQLAlchemyError), connection:  # it may be lost, which SQLAlchemy says in many ways
                connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")  # closing does so too, but a moment later

    def _take(self) -> Connection:
        with contextlib.ExitStack() as closing:
            connection = closing.enter_context(self._engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # from the pool: closing must end the session
            connection.execute(text("SELECT set_config('application_name', :name, false)"), {"name": self._name})
            key = _numbers(connection, self._key)
            taken = connection.execute(_TRY, key).scalar()
            if not taken and (session := connection.execute(_SESSION, key).first()) and session[1] == self._name:
                connection.execute(_END, {"session": session[0]})  # ours: the server has not noticed yet that it ended
                taken = connection.execute(_TRY, key).scalar()
            if not taken:
                raise _locked_error(self._label, _owner(connection, key))
            closing.pop_all()
            return connection


_TRY = text("SELECT pg_try_advisory_lock(:high, :low)")
_END = text("SELECT pg_terminate_backend(:session, 10000)")  # waits, in milliseconds
_SESSION = text(
    "SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND objsubid = 2 AND classid = :high AND objid = :low"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


def is_locked_on_server(connection: Connection, key: str) -> bool:
    """Check whether a session has the advisory lock of that key."""
    return connection.execute(_SESSION, _numbers(connection, key)).first() is not None


def _numbers(connection: Connection, key: str) -> dict[str, int]:
    """Digest a key in the current schema into an advisory lock's two numbers, which pg_locks shows without sign."""
    schema = connection.exec_driver_sql("SELECT current_schema()").scalar()
    digest = hashlib.sha256(f"fairtrial {schema} {key}".encode()).digest()
    return {"high": int.from_bytes(digest[:4], "big") >> 1, "low": int.from_bytes(digest[4:8], "big") >> 1}


def _owner(connection: Connection, key: dict[str, int]) -> str:
    session = connection.execute(_SESSION, key).first()
    words = session[1].split() if session else []
    if len(words) < 4 or words[0] != "fairtrial":
        return "another process"
    _, process, since, _, *host = words
    return f"process {process} on {' '.join(host)} since {since.rstrip('Z').replace('T', ' ')} UTC"
