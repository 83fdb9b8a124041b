"""Which tables a database has, and which database it is."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, inspect, select

from fairtrial.errors import StoreError, StoreVersionError
from fairtrial.store import schema
from fairtrial.store.checksums import MISSING, DamageError


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
    if lost := sorted({*schema.metadata.tables} - tables):
        raise DamageError(f"the table {lost[0]}", MISSING)
    return True


def identity(connection: Connection) -> tuple[Any, ...]:
    """What tells databases of PostgreSQL apart, whatever their URLs."""
    started = "pg_postmaster_start_time(), current_database()"
    return tuple(connection.exec_driver_sql(f"SELECT {started}, '{schema.schema_version.name}'::regclass::oid").one())
