"""Opening a database, its transactions, its locks, and the errors that they meet."""

import contextlib
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Delete, Engine, create_engine, delete, event, insert, inspect, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import StaticPool

from fairtrial.errors import StoreError, StoreMissingError, StoreVersionError
from fairtrial.store import locks, schema
from fairtrial.store import sqlite as lite
from fairtrial.store.transactions import UnitOfWork, Work, is_lost, pauses
from fairtrial.store.url import DatabaseURL

T = TypeVar("T")

#: Seconds to wait for another process that holds the database, and for a server that went away.
PATIENCE = 30.0

#: Key of the advisory lock that PostgreSQL's tables are made or changed under; any number that nobody else uses.
_TABLES_KEY = 0x6661697274726961

#: After this time no connection can still be in a commit.
_KEEP_WRITERS = timedelta(days=30)

#: Notice within two minutes that a server has gone, and let it notice that we have: it holds our locks until then.
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}


class Database:
    """A database with fairtrial's tables in it, its transactions and its locks. Threads may share it.

    Args:
        place: a file's path or a database URL.
        create: make the database and its tables if they are not there, and bring older ones up to date. Otherwise older
            tables are read as they are, and changed before the first write.
        patience: seconds to wait for another process that holds the database, and for a server that went away.

    Attributes:
        name: what messages call it, without a password.
        version: version of its tables, see `schema`.

    Raises:
        StoreError: it can't be opened, or holds something else.
        StoreMissingError: there is none, and ``create`` is false.
        StoreVersionError: a newer fairtrial wrote it.
    """

    def __init__(self, place: str, *, create: bool, patience: float = PATIENCE) -> None:
        self._place = DatabaseURL.of(place)
        self._patience = patience
        self.name = self._place.name
        file = self._place.file
        if not create and file is not None and not file.exists():
            raise StoreMissingError(f"no store at {self.name}: run a study first, or name another with --store")
        self._here = threading.local()
        self._alone = threading.RLock() if self._place.is_sqlite and file is None else contextlib.nullcontext()
        self._writer = None if self._place.is_sqlite else _Writer()
        self._holds: list[locks.AdvisoryLock] = []
        with self._one_line("can't be opened"):
            self._engine = _engine(self._place, patience)
            try:
                if self._place.is_sqlite:
                    lite.choose_journal(self._engine, self.name, patience, writes=create)
                self.version = self._check_tables(create=create)
            except BaseException:
                self._engine.dispose()  # a connection that is left open would keep others from the database
                raise

    @property
    def file(self) -> Path | None:
        """The database's file; None if it has none of its own."""
        return self._place.file

    def check(self) -> str:
        """Have the database look for damage in itself; returns what it found, or nothing. Only SQLite can."""
        if not self._place.is_sqlite:
            return ""
        found = self.read(lambda connection: connection.exec_driver_sql("PRAGMA integrity_check").scalars().all())
        return "" if list(found) == ["ok"] else "; ".join(map(str, found))

    @property
    def dialect(self) -> str:
        """``"sqlite"`` or ``"postgresql"``."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Close all connections."""
        if self._writer is not None and self._writer.number:
            with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
                connection.execute(self._writer.forget())
        self._engine.dispose()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function that only reads: it sees one state of the database, and blocks no writer for long.

        Within `together`, in the same thread, it sees what has been written there.
        """
        unit = self._unit()
        with self._one_line("can't be read"):
            if unit is not None:
                return unit.do(lambda transaction: work(transaction.connection), repeat=False)
            return self._persist(lambda: self._read(work))

    def write(self, work: Work[T]) -> T:
        """Run a function that writes, in a transaction of its own or in that of `together`. It may be run again."""
        unit = self._unit()
        if unit is not None:
            with self._one_line("can't be written"):
                return unit.do(work)
        with self.together():
            return self.write(work)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of all writes of this thread within the context: all are kept, or none.

        Raises:
            RuntimeError: this thread is within such a context already.
        """
        if self._unit() is not None:
            raise RuntimeError("together() can't be nested: which of the two is the transaction?")
        with self._one_line("can't be written"), self._alone:
            self._bring_up_to_date()
            claim = self._writer.claim() if self._writer is not None else None
            writing = self._engine.execution_options(fairtrial_write=True)
            unit = UnitOfWork(writing, claim, self._renew_holds, self._patience)
            self._here.unit = unit
            try:
                yield
                unit.commit()
            finally:
                self._here.unit = None
                unit.close()

    def hold(self, what: str, label: str) -> AbstractContextManager[None]:
        """Hold something in this database against other processes, and against the rest of this one.

        Args:
            what: what is held, a hash.
            label: what errors call it.
        """
        if not self._place.is_sqlite:
            return self._hold_on_server(what, label)
        file = self._file()
        if file is None:  # nobody else can open it
            return locks.lock_in_process((id(self), what), label)
        return locks.lock_file(file.with_name(f"{file.name}.{what[:8]}.lock"), label)

    @contextmanager
    def _hold_on_server(self, what: str, label: str) -> Iterator[None]:
        with self._one_line("can't be held"):
            held = self._persist(lambda: locks.AdvisoryLock(self._engine, what, label))
        self._holds.append(held)
        try:
            yield
        finally:
            self._holds.remove(held)
            held.close()

    def _renew_holds(self) -> None:
        for held in self._holds:
            held.renew()

    def _unit(self) -> UnitOfWork | None:
        return getattr(self._here, "unit", None)

    def _persist(self, step: Callable[[], T]) -> T:
        """Take a step that changes nothing, again after each lost connection."""
        for pause in pauses(self._patience):
            try:
                return step()
            except DBAPIError as error:
                if pause is None or self._place.is_sqlite or not is_lost(error):
                    raise
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _read(self, work: Callable[[Connection], T]) -> T:
        with self._alone, self._reader().begin() as connection:
            return work(connection)

    def _reader(self) -> Engine:
        """Several statements must see one state: SQLite's transactions do that anyway."""
        if self._place.is_sqlite:
            return self._engine
        return self._engine.execution_options(isolation_level="REPEATABLE READ")

    def _file(self) -> Path | None:
        """Ask SQLite itself which file it has open, whatever the URL said."""
        rows = self.read(lambda connection: connection.exec_driver_sql("PRAGMA database_list").all())
        return next((Path(row[2]) for row in rows if row[1] == "main" and row[2]), None)

    def _check_tables(self, *, create: bool) -> int:
        with self._engine.begin() as connection:
            version = self._known_version(connection)
        if version is None and not create:
            raise StoreMissingError(f"{self.name} holds no studies yet")
        if create and version != schema.VERSION:
            return self._make_tables()
        assert version is not None
        return version

    def _known_version(self, connection: Connection) -> int | None:
        """Read the version of the tables; None if there are none.

        Raises:
            StoreError: there are others.
            StoreVersionError: it is newer than this fairtrial.
        """
        tables = inspect(connection).get_table_names()
        version = connection.scalar(select(schema.schema_version)) if schema.schema_version.name in tables else None
        if version is None and tables:
            raise StoreError(f"{self.name} is a database, but not one of fairtrial's")
        if version is not None and version > schema.VERSION:
            raise StoreVersionError(
                f"{self.name} was written by a newer fairtrial (its tables have version {version}, this one knows "
                f"{schema.VERSION}): upgrade fairtrial, or name another store with --store"
            )
        return version

    def _make_tables(self) -> int:
        """Make the tables, or bring older ones up to date, in one transaction that keeps everybody else out."""
        with self._engine.execution_options(fairtrial_write=True).begin() as connection:
            if not self._place.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TABLES_KEY})")
            version = self._known_version(connection)  # again: another process may have been faster
            if version is None:
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.schema_version).values(version=schema.VERSION))
            elif version < schema.VERSION:
                from fairtrial.store import migrations  # noqa: PLC0415  (Alembic takes its time to load)

                migrations.upgrade(connection, version, schema.VERSION)
                connection.execute(update(schema.schema_version).values(version=schema.VERSION))
        return schema.VERSION

    def _bring_up_to_date(self) -> None:
        if self.version < schema.VERSION:
            self.version = self._make_tables()

    @contextmanager
    def _one_line(self, what: str) -> Iterator[None]:
        """Turn the database's errors into one line that names the store and holds no password."""
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            line = self._place.clean(self._explain(error, what))
            raise StoreError(line) from (None if self._place.tells(str(error)) else error)

    def _explain(self, error: Exception, what: str) -> str:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or code == "55P03":
            return (
                f"the store {self.name} {what}: another process has held it for more than {self._patience:g} s "
                f"({cause}); nothing that was stored is lost: let that process end, and try again"
            )
        if code in {"SQLITE_FULL", "53100"} or code.startswith("SQLITE_IOERR"):
            full = "disk full" if not code.startswith("SQLITE_IOERR") else "disk full or failing"
            return (
                f"{full}: the store {self.name} {what} ({cause}); nothing that was stored is lost: make room, and "
                "try again"
            )
        return f"the store {self.name} {what}: {cause}"


class _Writer:
    """Numbers the transactions of one store that was opened, so that each is committed once."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        self._guard = threading.Lock()
        self.number = 0

    def claim(self) -> Callable[[Connection], bool]:
        """Begin with another transaction: see `UnitOfWork`.

        If the server is still busy with a lost connection's commit, the statement waits for it: both want one row.
        """
        with self._guard:
            self.number += 1
            number = self.number

        def claim(connection: Connection) -> bool:
            row = {"writer": self._name, "number": number, "at": datetime.now(UTC)}
            return connection.execute(_CLAIM, row).first() is not None

        return claim

    def forget(self) -> Delete:
        """Build the statement that removes this writer's row, and those of writers that were killed long ago."""
        row = schema.writers.c
        return delete(schema.writers).where((row.writer == self._name) | (row.at < datetime.now(UTC) - _KEEP_WRITERS))


_NEW_CLAIM = postgresql.insert(schema.writers)
_CLAIM = _NEW_CLAIM.on_conflict_do_update(
    index_elements=["writer"],
    set_={"number": _NEW_CLAIM.excluded.number, "at": _NEW_CLAIM.excluded.at},
    where=schema.writers.c.number < _NEW_CLAIM.excluded.number,
).returning(schema.writers.c.number)


def _engine(place: DatabaseURL, patience: float) -> Engine:
    options: dict[str, Any] = {"connect_args": {k: v for k, v in _KEEPALIVES.items() if k not in place.url.query}}
    if place.is_sqlite:
        options = {"connect_args": {"timeout": patience}}
        if place.file is None:  # one connection for all threads: another would be another database
            options["connect_args"]["check_same_thread"] = False
            options["poolclass"] = StaticPool
    try:
        engine = create_engine(place.url, **options)
    except (NoSuchModuleError, ImportError) as error:
        remedy = ': pip install "fairtrial[postgres]"' if not place.is_sqlite else f" ({error})"
        raise StoreError(f"--store {place.name}: its driver is not installed{remedy}") from error
    if place.is_sqlite:
        lite.set_up(engine, place.name, patience)
    else:
        _set_up_postgresql(engine, patience)
    return engine


def _set_up_postgresql(engine: Engine, patience: float) -> None:
    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(patience * 1000)}")
        connection.commit()
