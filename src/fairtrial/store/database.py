"""A database with fairtrial's tables: opening it, its transactions and its locks."""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from fairtrial.errors import StoreError, StoreMissingError, StoreVersionError
from fairtrial.store import locks, schema
from fairtrial.store.engine import keep_file, make_engine
from fairtrial.store.explain import explain
from fairtrial.store.transactions import persist
from fairtrial.store.url import DatabaseURL

T = TypeVar("T")

#: Seconds to wait for another process that uses the database, and for a server that went away.
PATIENCE = 30.0

#: Key of the advisory lock under which PostgreSQL's tables are made; any number that nobody else uses.
_TABLES_KEY = 0x6661697274726961


class Database:
    """A database with fairtrial's tables in it, its transactions and its locks. Threads may share it.

    Args:
        place: a file's path or a database URL.
        create: make the database and its tables if they are not there.
        patience: seconds to wait for another process that uses the database, and for a server that went away.

    Attributes:
        name: what messages call it, without a password.
        file: the database's file; None if it has none of its own.

    Raises:
        StoreError: it can't be opened, or holds something else.
        StoreMissingError: there is none, and ``create`` is false.
        StoreVersionError: a newer or a development version of fairtrial made it.
    """

    def __init__(self, place: str, *, create: bool, patience: float = PATIENCE) -> None:
        self._url = DatabaseURL.of(place)
        self._patience = patience
        self.name, self.file = self._url.name, self._url.file
        self._opened = False
        if not create and self.file is not None and not self.file.exists():
            raise StoreMissingError(f"no store at {self.name}: run a study first, or name another with --store")
        in_memory = self._url.is_sqlite and self.file is None  # then all threads share one connection
        self._alone = threading.RLock() if in_memory else contextlib.nullcontext()
        self._locks: list[locks.AdvisoryLock] = []
        with self._one_line("can't be opened"):
            self._engine = make_engine(self._url, patience, writes=create)
            try:
                self._check_tables(create=create)
            except BaseException:
                self._engine.dispose()  # a connection that is left open would keep others from the database
                raise
        self._opened = True
        if self.file is not None:
            keep_file(self._engine, self.file)

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgresql"``."""
        return self._engine.dialect.name

    def check(self) -> str:
        """Have the database look for damage in itself; returns what it found, or nothing. Only SQLite can."""
        if not self._url.is_sqlite:
            return ""
        found = self.read(lambda connection: connection.exec_driver_sql("PRAGMA integrity_check").scalars().all())
        return "" if list(found) == ["ok"] else "; ".join(map(str, found))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function that only reads: it sees one state of the database, and blocks no writer for long."""
        # SQLite's transactions see one state anyway.
        options = {} if self._url.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._one_line("can't be read"):
            return self._persist(partial(self._transact, work, options))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a function that writes, as one transaction; again on a new connection if the one it had was lost."""
        with self._one_line("can't be written"):
            return self._persist(partial(self._transact, work, {"fairtrial_write": True}))

    def lock(self, what: str, label: str) -> AbstractContextManager[None]:
        """Lock something in this database against other processes, and against the rest of this one.

        Args:
            what: what is locked, a hash.
            label: what errors call it.
        """
        if not self._url.is_sqlite:
            return self._lock_on_server(what, label)
        file = self._main_file()
        if file is None:  # in memory: nobody else can open it
            return locks.lock_in_process((id(self), what), label)
        return locks.lock_file(file.with_name(f"{file.name}.{what[:8]}.lock"), label)

    @contextmanager
    def _lock_on_server(self, what: str, label: str) -> Iterator[None]:
        with self._one_line("can't be locked"):
            lock = self._persist(lambda: locks.AdvisoryLock(self._engine, what, label))
        self._locks.append(lock)
        try:
            yield
        finally:
            self._locks.remove(lock)
            lock.release()

    def _persist(self, step: Callable[[], T]) -> T:
        """Take a step, again after each lost connection to a server."""
        return step() if self._url.is_sqlite else persist(step, self._patience, self._renew_locks)

    def _renew_locks(self) -> None:
        for lock in self._locks:
            lock.renew()

    def _transact(self, work: Callable[[Connection], T], options: dict[str, Any]) -> T:
        with self._alone, self._engine.execution_options(**options).begin() as connection:
            return work(connection)

    def _main_file(self) -> Path | None:
        """Ask SQLite itself which file it has open, whatever the URL said."""
        rows = self.read(lambda connection: connection.exec_driver_sql("PRAGMA database_list").all())
        return next((Path(row[2]).resolve() for row in rows if row[1] == "main" and row[2]), None)

    def _check_tables(self, *, create: bool) -> None:
        with self._engine.begin() as connection:
            there = self._has_tables(connection)
        if there:
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
        """Tell whether the tables are there.

        Raises:
            StoreError: there are others.
            StoreVersionError: a newer or a development version of fairtrial made them.
        """
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
    def _one_line(self, what: str) -> Iterator[None]:
        """Turn the database's errors into one line that names the store and holds no password."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            reason = explain(error, self.file, opened=self._opened)
            line = self._url.clean(f"the store {self.name} {what}: {reason}")
            raise StoreError(line) from (None if self._url.tells(str(error)) else error)
