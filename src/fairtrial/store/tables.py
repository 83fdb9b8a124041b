"""Which tables a database has, and which database it is."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, inspect, select

from fairtrial.errors import StoreError, StoreVersionError
from fairtrial.store import schema
from fairtrial.store.checksums import MISSING, DamageError

#: Key of the advisory lock under which PostgreSQL's tables are made; any number that nobody else uses.
_TABLES_KEY = 0x6661697274726961


def hold(connection: Connection) -> None:
    """Let no other process make tables until this transaction, which writes, ends."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TABLES_KEY})")


def are_there(connection: Connection, name: str, structure: Callable[[], str]) -> bool:
    """Whether fairtrial's tables exist; those of another program or version are an error.

    Args:
        connection: to the database.
        name: what messages call it.
        structure: says what is wrong with the database's own structure, or nothing.
    """
    tables = {*inspect(connection).get_table_names()}
    if not tables:
        if problem := structure():
            raise DamageError("the list of its tables", f"is empty ({problem})")
        return False
    if tables.isdisjoint({schema.schema_version.name, schema.DEVELOPMENT}):
        if tables.isdisjoint({schema.study_trials.name, schema.epoch_records.name}):
            raise StoreError(f"{name} is a database, but not one of fairtrial's")
        raise DamageError(f"the table {schema.schema_version.name}", MISSING)
    version = 0 if schema.DEVELOPMENT in tables else connection.scalar(select(schema.schema_version.c.version))
    if not isinstance(version, int):
        raise DamageError("the version of its tables", MISSING)
    if version > schema.VERSION:
        raise StoreVersionError(
            f"{name} was written by a newer fairtrial (its tables have version {version}, this one knows "
            f"{schema.VERSION}): upgrade fairtrial, or name another store with --store"
        )
    if version < schema.VERSION:
        raise StoreVersionError(
            f"{name} was made by a development version of fairtrial; its records can't be read by this one: "
            "name another store with --store, or move that one away"
        )
    if lost := sorted({*schema.metadata.tables} - tables - schema.LATER):
        raise DamageError(f"the table {lost[0]}", MISSING)
    return True


def complete(connection: Connection) -> bool:
    """Whether the tables that an older store may lack are there, too."""
    return {*inspect(connection).get_table_names()} >= schema.LATER


def identity(connection: Connection) -> tuple[Any, ...]:
    """What tells databases of PostgreSQL apart, whatever their URLs."""
    started = "pg_postmaster_start_time(), current_database()"
    return tuple(connection.exec_driver_sql(f"SELECT {started}, '{schema.schema_version.name}'::regclass::oid").one())
