"""What SQLite needs to be told: how it waits, how safe it is to be, and which journal it may keep."""

import sqlite3
import time

from sqlalchemy import Connection, Engine, event

from fairtrial.errors import StoreError

#: The first releases without the WAL-reset fault, by the branch that they mend; later branches have none of it. See
#: https://www.sqlite.org/wal.html, "The WAL-Reset Bug".
_MENDED = {(3, 44): 6, (3, 50): 7, (3, 51): 3}

_BETWEEN_TRIES_SECONDS = 0.05


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """Tell whether a SQLite release may keep a write-ahead log: it can't damage a database when it restarts the log.

    Releases before 3.51.3 can, when two processes write or checkpoint at the same moment; 3.50.7 and 3.44.6 have the
    correction too, and so have their successors within the branch.

    Example:
        >>> wal_is_safe((3, 51, 2)), wal_is_safe((3, 50, 7))
        (False, True)
    """
    branch = version[:2]
    return branch > max(_MENDED) or (branch in _MENDED and version[2] >= _MENDED[branch])


def set_up(engine: Engine, name: str, patience: float) -> None:
    """Let an engine's connections work as the store needs them.

    Args:
        engine: of a SQLite database.
        name: what messages call the database.
        patience: seconds to wait for another process to let go of it.
    """

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are ours to begin, see below
        for pragma in ("foreign_keys = ON", "synchronous = FULL"):  # safety before speed: one commit an epoch is cheap
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        if not connection.get_execution_options().get("fairtrial_write", False):
            connection.exec_driver_sql("BEGIN")
            return
        # At once: a transaction that has read, and asks for the lock later, can meet another's and must then fail.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        driver = _driver(connection)
        if _must_leave_wal(driver):  # another process, with another release, has brought it back since
            connection.exec_driver_sql("ROLLBACK")
            _leave_wal(driver, name, patience)
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def choose_journal(engine: Engine, name: str, patience: float, *, writes: bool) -> None:
    """Use a write-ahead log where this release of SQLite can be trusted with one, else the rollback journal.

    Args:
        engine: of a SQLite database.
        name: what messages call the database.
        patience: seconds to wait for others that hold a database that must leave its log.
        writes: whether the database is about to be written; reading alone brings no log about.

    Raises:
        StoreError: the database has a log, this release can't be trusted with it, and others hold it.
    """
    connection = engine.raw_connection()
    try:
        driver = connection.driver_connection
        if not isinstance(driver, sqlite3.Connection):
            return  # another driver, with a SQLite of its own that we can't ask
        _leave_wal(driver, name, patience)
        if writes and wal_is_safe(sqlite3.sqlite_version_info) and _mode(driver) == "delete":
            _try_wal(driver, patience)
    finally:
        connection.close()


def _must_leave_wal(driver: sqlite3.Connection) -> bool:
    return not wal_is_safe(sqlite3.sqlite_version_info) and _mode(driver) == "wal"


def _leave_wal(driver: sqlite3.Connection, name: str, patience: float) -> None:
    if not _must_leave_wal(driver):
        return
    until = time.monotonic() + patience
    while True:
        try:
            driver.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY:
                return  # who can't write can't damage anything
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() >= until:
                raise StoreError(
                    f"the store {name} is in WAL mode, which SQLite {sqlite3.sqlite_version} may damage, and can't "
                    "leave it while another process has it open: close that, or use SQLite 3.51.3 or newer"
                ) from error
            time.sleep(_BETWEEN_TRIES_SECONDS)
        else:
            return


def _try_wal(driver: sqlite3.Connection, patience: float) -> None:
    """Turn the log on if that can be done now; the rollback journal is as safe, and readers only wait longer."""
    driver.execute("PRAGMA busy_timeout = 0")
    try:
        driver.execute("PRAGMA journal_mode = WAL").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}:
            raise
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(patience * 1000)}")


def _mode(driver: sqlite3.Connection) -> str:
    return str(driver.execute("PRAGMA journal_mode").fetchone()[0])


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver
