"""A database with fairtrial's tables: opening it, its transactions and its locks."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, event, insert, inspect, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from fairtrial.errors import StoreError, StoreMissingError, StoreVersionError
from fairtrial.store import locks, schema
from fairtrial.store.engine import DELETED, explain, make_engine
from fairtrial.store.url import DatabaseURL

T = TypeVar("T")

#: Key of the advisory lock under which PostgreSQL's tables are made; any number that nobody else uses.
_TABLES_KEY = 0x6661697274726961

#: Between two tries to reach a server.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0

#: PostgreSQL's states after which the same transaction may be tried again: serialization failure, deadlock.
_TRY_AGAIN = {"40001", "40P01"}


class Database:
    """A database with fairtrial's tables, for any thread; arguments and errors are those of `sql.SQLStore`."""

    _opened: Path | None = None  # the file's full path, once it is open

    def __init__(self, url: str, *, create: bool = True, patience: float = 30.0) -> None:
        self._url = DatabaseURL.of(url)
        self._patience = patience
        self._file = self._url.file  # None in memory, and on a server
        if not create and self._file is not None and not self._file.exists():
            raise StoreMissingError(f"no store at {self.name}: run a study first, or name another with --store")
        in_memory = self._url.is_sqlite and self._file is None  # then all threads share one connection
        self._one_thread = threading.RLock() if in_memory else contextlib.nullcontext()
        self._locks: list[locks.AdvisoryLock] = []
        with self._explained("can't be opened"):
            self._engine = make_engine(self._url, patience, writes=create)
            try:
                self._check_tables(create=create)
            except BaseException:
                self._engine.dispose()  # a connection that is left open would keep others from the database
                raise
        if self._file is not None:
            self._opened = self._file.resolve()
            event.listen(self._engine, "do_connect", self._check_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._engine.dispose()

    @property
    def name(self) -> str:
        """The store's path or URL, without its password."""
        return self._url.name

    @property
    def beside(self) -> str:
        """Path to which suffixes are added for files of a run; see `Store.beside`."""
        return str(self._file or "fairtrial")

    def check(self) -> str:
        """Let SQLite check the database for damage, and return what it found, or nothing; PostgreSQL can't."""
        if not self._url.is_sqlite:
            return ""
        found = self._read(lambda connection: connection.exec_driver_sql("PRAGMA integrity_check").scalars().all())
        return "" if list(found) == ["ok"] else "; ".join(map(str, found))

    def _read(self, work: Callable[[Connection], T]) -> T:
        """Run a function that only reads: it sees one state of the database, and blocks no writer for long."""
        # SQLite's transactions see one state anyway.
        options = {} if self._url.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._explained("can't be read"):
            return self._retry(partial(self._transact, work, options))

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run a function that writes, as one transaction; again on a new connection if its connection was lost."""
        with self._explained("can't be written"):
            return self._retry(partial(self._transact, work, {"fairtrial_write": True}))

    def _lock(self, key: str, label: str) -> AbstractContextManager[None]:
        """Lock a hash in this database against other processes and threads; errors call it ``label``."""
        if not self._url.is_sqlite:
            return self._lock_on_server(key, label)
        if self._opened is None:  # in memory: no other process can open it
            return locks.lock_in_process((id(self), key), label)
        return locks.lock_file(self._opened.with_name(f"{self._opened.name}.{key[:8]}.lock"), label)

    @contextmanager
    def _lock_on_server(self, key: str, label: str) -> Iterator[None]:
        with self._explained("can't be locked"):
            lock = self._retry(lambda: locks.AdvisoryLock(self._engine, key, label))
        self._locks.append(lock)
        try:
            yield
        finally:
            self._locks.remove(lock)
            lock.release()

    def _retry(self, step: Callable[[], T]) -> T:
        """Take a step; if a server's connection is lost, retry for ``patience`` seconds, once at least.

        Each new try takes lost locks again first. The step may be taken any number of times with the same result: a
        connection that is lost during a commit leaves open whether the server did it.
        """
        give_up_at: float | None = None
        pause = 0.0
        while True:
            try:
                if give_up_at is not None:
                    for lock in self._locks:
                        lock.renew()
                return step()
            except DBAPIError as error:
                now = time.monotonic()
                give_up_at = give_up_at or now + self._patience
                if self._url.is_sqlite or not _is_lost(error) or now + pause > give_up_at:
                    raise
            time.sleep(pause)
            pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)

    def _transact(self, work: Callable[[Connection], T], options: dict[str, Any]) -> T:
        with self._one_thread, self._engine.execution_options(**options).begin() as connection:
            return work(connection)

    def _check_file(self, *_: object) -> None:
        """Refuse further connections to a file that was deleted: SQLite would make an empty one."""
        if self._opened is not None and not self._opened.exists():
            raise StoreError(f"the store {self.name}: {DELETED}")

    def _check_tables(self, *, create: bool) -> None:
        with self._engine.begin() as connection:
            exist = self._has_tables(connection)
        if exist:
            return
        if not create:
            raise StoreMissingError(f"{self.name} holds no studies yet")
        with self._engine.execution_options(fairtrial_write=True).begin() as connection:
            if not self._url.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TABLES_KEY})")
            if not self._has_tables(connection):  # again: another process may have been faster
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.schema_version).values(version=schema.VERSION))

    def _has_tables(self, connection: Connection) -> bool:
        """Whether fairtrial's tables exist; those of another program or version are an error."""
        tables = inspect(connection).get_table_names()
        if schema.DEVELOPMENT in tables:
            raise StoreVersionError(
                f"{self.name} was made by a development version of fairtrial; its records can't be read by this one: "
                "name another store with --store, or move that one away"
            )
        version = connection.scalar(select(schema.schema_version)) if schema.schema_version.name in tables else None
        if version is None and tables:
            raise StoreError(f"{self.name} is a database, but not one of fairtrial's")
        if version is not None and version > schema.VERSION:
            raise StoreVersionError(
                f"{self.name} was written by a newer fairtrial (its tables have version {version}, this one knows "
                f"{schema.VERSION}): upgrade fairtrial, or name another store with --store"
            )
        return version is not None

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn the database's errors into one line that names the store and contains no password."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            line = self._url.redact(f"the store {self.name} {what}: {explain(error, self._file, self._opened)}")
            raise StoreError(line) from (None if self._url.has_password(str(error)) else error)


def _is_lost(error: DBAPIError) -> bool:
    """Whether an error means that the connection is gone, or that the same may be tried again."""
    no_connection = isinstance(error, OperationalError) and error.statement is None
    return error.connection_invalidated or no_connection or getattr(error.orig, "sqlstate", None) in _TRY_AGAIN
