"""SQLAlchemy engines for SQLite and PostgreSQL, set up as the store needs them."""

import json
import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.pool import StaticPool

from fairtrial.errors import StoreError
from fairtrial.store.explain import DELETED
from fairtrial.store.url import DatabaseURL

#: Notice within two minutes that a server has gone, and let it notice that we have: it keeps our locks until then.
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}


def make_engine(url: DatabaseURL, patience: float, *, writes: bool) -> Engine:
    """Make the engine of a database. A transaction that writes needs the execution option ``fairtrial_write``.

    Args:
        url: where the database is.
        patience: seconds to wait for another process that uses it.
        writes: whether it is about to be written.

    Raises:
        StoreError: its driver is not installed.
    """
    options: dict[str, Any] = {"json_serializer": partial(json.dumps, separators=(",", ":"))}
    if not url.is_sqlite:
        options["connect_args"] = {key: value for key, value in _KEEPALIVES.items() if key not in url.url.query}
    elif url.file is not None:
        options["connect_args"] = {"timeout": patience}
    else:  # in memory: one connection for all threads, as another would be another database
        options |= {"connect_args": {"timeout": patience, "check_same_thread": False}, "poolclass": StaticPool}
    try:
        engine = create_engine(url.url, **options)
    except (NoSuchModuleError, ImportError) as error:
        remedy = f" ({error})" if url.is_sqlite else ': pip install "fairtrial[postgres]"'
        raise StoreError(f"--store {url.name}: its driver is not installed{remedy}") from error
    if url.is_sqlite:
        _set_up_sqlite(engine, writes=writes)
    else:
        _set_up_postgresql(engine, patience)
    return engine


def keep_file(engine: Engine, file: Path) -> None:
    """Refuse further connections to a database whose file was deleted: SQLite would make an empty one."""

    @event.listens_for(engine, "do_connect")
    def _(*_: object) -> None:
        if not file.exists():
            raise StoreError(f"the store {file}: {DELETED}")


def _set_up_sqlite(engine: Engine, *, writes: bool) -> None:
    pragmas = ["foreign_keys = ON", "synchronous = FULL"]  # safety before speed: one commit an epoch is cheap
    if writes:  # releases before 3.51.3 can lose a transaction where a write-ahead log is reset
        pragmas.append("journal_mode = DELETE")

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are ours to begin, see below
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writing = connection.get_execution_options().get("fairtrial_write", False)
        # At once: a transaction that has read, and asks for the lock later, can meet another's and must then fail.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _set_up_postgresql(engine: Engine, patience: float) -> None:
    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(patience * 1000)}")
        connection.commit()
