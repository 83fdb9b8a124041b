"""Opening a database, its transactions, and the errors they meet."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from fairtrial.errors import StoreError, StoreMissingError, StoreVersionError
from fairtrial.store import schema

#: Seconds to wait for another process that holds the database.
PATIENCE = 30.0


class DatabaseEngine:
    """A database with fairtrial's tables in it, and its read and write transactions.

    Args:
        place: a file's path or a database URL.
        create: make the database and its tables if they are not there.

    Raises:
        StoreError: it can't be opened, or holds something else.
        StoreMissingError: there is none, and ``create`` is false.
        StoreVersionError: a newer fairtrial wrote it.
    """

    def __init__(self, place: str, *, create: bool) -> None:
        self.url = _to_url(place)
        self.name = self.url.database if self.url.drivername.startswith("sqlite") else self.url.render_as_string()
        if not create and self._missing_file():
            raise StoreMissingError(f"no store at {self.name}: run a study first, or name another with --store")
        self._shared: Connection | None = None
        with self._one_line("can't be opened"):
            self._engine = _engine(self.url)
            self._check_or_create(create=create)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def file(self) -> str | None:
        """Path of the database's file; None if it has none."""
        database = self.url.database
        on_disk = self.url.drivername.startswith("sqlite") and database not in {None, "", ":memory:"}
        return str(database) if on_disk else None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one transaction of all those opened within."""
        with self.write() as connection:
            self._shared = connection
            try:
                yield
            finally:
                self._shared = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads: it sees one state of the database and blocks no writer for long."""
        if self._shared is not None:
            yield self._shared
            return
        with self._one_line("can't be read"), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that writes: it holds the database from its first statement, and commits at the end."""
        if self._shared is not None:
            yield self._shared
            return
        engine = self._engine.execution_options(fairtrial_write=True)
        with self._one_line("can't be written"), engine.begin() as connection:
            yield connection

    def _missing_file(self) -> bool:
        return self.file is not None and not Path(self.file).exists()

    def _check_or_create(self, *, create: bool) -> None:
        with self._engine.begin() as connection:
            tables = set(inspect(connection).get_table_names())
            version = connection.scalar(select(schema.schema_version)) if "fairtrial_schema" in tables else None
        if version is None and tables:
            raise StoreError(f"{self.name} is a database, but not one of fairtrial's")
        if version is None and not create:
            raise StoreMissingError(f"{self.name} holds no studies yet")
        if version is None:
            with self.write() as connection:
                schema.metadata.create_all(connection)
                connection.execute(insert(schema.schema_version).values(version=schema.VERSION))
        elif version > schema.VERSION:
            raise StoreVersionError(
                f"{self.name} was written by a newer fairtrial (its tables have version {version}, this one knows "
                f"{schema.VERSION}): upgrade fairtrial, or name another store with --store"
            )

    @contextmanager
    def _one_line(self, what: str) -> Iterator[None]:
        """Turn the database's errors into one line that names the store."""
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"the store {self.name} {what}: {error.orig}") from error
        except SQLAlchemyError as error:
            raise StoreError(f"the store {self.name} {what}: {error}") from error


def _to_url(place: str) -> URL:
    if "://" not in place:
        return URL.create("sqlite", database=place)
    try:
        return make_url(place)
    except ArgumentError as error:
        raise StoreError(f"--store {place}: must be a file's path or a URL such as sqlite:///fairtrial.db") from error


def _engine(url: URL) -> Engine:
    try:
        engine = create_engine(url, connect_args={"timeout": PATIENCE} if url.drivername.startswith("sqlite") else {})
    except (NoSuchModuleError, ImportError) as error:
        raise StoreError(f"--store {url.render_as_string()}: no driver for it is installed ({error})") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Take transactions into our own hands, and ask for safety before speed: one commit an epoch is cheap."""
    connection.isolation_level = None
    for pragma in ("foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    """Take the write lock at once in a transaction that writes: taking it later could meet another writer's."""
    writes = connection.get_execution_options().get("fairtrial_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
