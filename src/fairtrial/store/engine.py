"""SQLAlchemy engines for SQLite and PostgreSQL, and explanations of their errors."""

import logging
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.pool import StaticPool

from fairtrial.errors import StoreError
from fairtrial.store.url import DatabaseURL

DELETED = "the database file was deleted or replaced while it was open"

#: PostgreSQL's states after which the same transaction may be tried again: serialization failure, deadlock.
_TRY_AGAIN = {"40001", "40P01"}

#: Server and client notice within two minutes that the other has gone; until then, the server keeps its locks.
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}

# psycopg warns of lost connections, from which `store.sql` recovers; without a handler, that would be on the screen.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


def make_engine(url: DatabaseURL, patience: float, *, writes: bool) -> Engine:
    """Make an engine that waits ``patience`` seconds for locks; writing transactions set the option fairtrial_write.

    Unless it ``writes``, the database refuses to.
    """
    connect_args: dict[str, Any] = {"timeout": patience}
    options: dict[str, Any] = {}
    if not url.is_sqlite:
        waits = _KEEPALIVES | {"connect_timeout": max(1, round(patience))}  # for a server that does not answer at all
        connect_args = {key: value for key, value in waits.items() if key not in url.url.query}
    elif url.file is None:  # in memory: one connection for all threads, as another would be another database
        connect_args["check_same_thread"] = False
        options["poolclass"] = StaticPool
    try:
        engine = create_engine(url.url, connect_args=connect_args, **options)
    except (NoSuchModuleError, ImportError) as error:
        remedy = f" ({error})" if url.is_sqlite else ': pip install "fairtrial[postgres]"'
        raise StoreError(f"--store {url.name}: its driver is not installed{remedy}") from error
    if url.is_sqlite:
        _set_up_sqlite(engine, url.file, writes=writes)
    else:
        _set_up_postgresql(engine, patience, writes=writes)
    return engine


def _set_up_sqlite(engine: Engine, file: Path | None, *, writes: bool) -> None:
    pragmas = ["foreign_keys = ON", "synchronous = FULL"]  # safety before speed: one commit an epoch is cheap
    pragmas += ["cell_size_check = ON", "trusted_schema = OFF"]  # the file may be damaged, or somebody else's
    if writes:  # releases before 3.51.3 can lose a transaction where a write-ahead log is reset
        pragmas.append("journal_mode = DELETE")
    else:
        pragmas.append("query_only = ON")

    @event.listens_for(engine, "do_connect")
    def _(*_: object) -> None:
        if file is not None:
            _check_regular(file)

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the listener below begins transactions
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        writing = connection.get_execution_options().get("fairtrial_write", False)
        # At once: a transaction that reads first and asks for the lock later fails if another has written meanwhile.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _check_regular(file: Path) -> None:
    """Refuse what SQLite would wait for, or write through: it opens any journal that is no link."""
    real = Path(os.path.realpath(file))  # whose journal it is
    for path in (real, *(real.with_name(f"{real.name}-{kind}") for kind in ("journal", "wal", "shm"))):
        try:
            found = path.lstat()
        except OSError:
            continue  # SQLite says why, if it matters
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):  # of a folder SQLite says so
            raise StoreError(f"the store {file} can't be opened: {path} is not a regular file")
        if path != real and found.st_nlink != 1:
            raise StoreError(
                f"the store {file} can't be opened: {path} is another name of somebody's file; move or remove it"
            )


def _set_up_postgresql(engine: Engine, patience: float, *, writes: bool) -> None:
    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {round(patience * 1000)}")
            if not writes:
                cursor.execute("SET default_transaction_read_only = on")
        connection.commit()


def explain(error: Exception, file: Path | None, opened: Path | None) -> str:
    """Explain an error of a database or its driver, given its file, if any, and the same once it had been opened."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
    if code == "SQLITE_READONLY_DBMOVED" or (opened is not None and not opened.exists()):
        return DELETED
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or code == "55P03":
        remedy = "nothing that was stored is lost: let that process end, and try again"
        return f"another process is using it ({cause}); {remedy}"
    if is_damage(error):
        return _explain_damage(str(cause), code, file)
    failing = code.startswith("SQLITE_IOERR")
    if failing or code in {"SQLITE_FULL", "53100"}:
        remedy = "nothing that was stored is lost: make room, and try again"
        return f"disk full{' or failing' if failing else ''} ({cause}); {remedy}"
    if file is not None and code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
        obstacle = _obstacle(opened or file.absolute())
        return f"{obstacle} ({cause})" if obstacle else str(cause)
    return str(cause)


def _explain_damage(cause: str, code: str, file: Path | None) -> str:
    if code == "SQLITE_NOTADB":
        return f"{cause}, or its beginning is damaged; name another with --store, or copy back a backup"
    what = "a text is not UTF-8" if "utf-8" in cause.lower() else cause
    recover = "" if file is None else f", or save what can be read: sqlite3 {file} .recover | sqlite3 NEW.db"
    return f"it is damaged ({what}); copy back a backup{recover}"


def is_damage(error: Exception) -> bool:
    """Whether an error of a database says that its contents are damaged."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, UnicodeDecodeError):
        return True
    code = getattr(cause, "sqlite_errorname", None) or getattr(cause, "sqlstate", None) or ""
    unreadable = isinstance(cause, sqlite3.Error) and str(cause).startswith(("Could not decode", "no such"))
    return unreadable or code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "XX00"))


def is_lost(error: DBAPIError) -> bool:
    """Whether an error means that the connection is gone, or that the same may be tried again."""
    no_connection = isinstance(error, OperationalError) and error.statement is None
    return error.connection_invalidated or no_connection or getattr(error.orig, "sqlstate", None) in _TRY_AGAIN


def _obstacle(file: Path) -> str:
    """Find why SQLite can't use a file, which needs a journal in the same folder."""
    if file.is_dir():
        return f"{file} is a folder"
    if not file.parent.is_dir():
        return f"there is no folder {file.parent}"
    effective = os.access in os.supports_effective_ids
    for path in (file, file.parent):
        if path.exists() and not os.access(path, os.W_OK, effective_ids=effective):
            return f"{path} can't be written to"
    return ""
