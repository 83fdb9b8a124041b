"""Opening databases, and the errors of those that are refused."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, text

from fairtrial.errors import StoreError, StoreMissingError, StoreVersionError
from fairtrial.scheduler import plan
from fairtrial.store import schema
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import DatabaseURL, redact_url


def test_a_path_and_a_url_name_the_same_file(tmp_path):
    path = tmp_path / "a store.db"
    with SQLStore(str(path)):
        pass
    with SQLStore(f"sqlite:///{path}", create=False) as store:
        assert store.studies() == []


def test_reading_makes_no_file(tmp_path):
    with pytest.raises(StoreMissingError, match=r"no store at none\.db: run a study first, or name another"):
        SQLStore("none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_an_empty_database_is_no_store_yet(tmp_path):
    (tmp_path / "empty.db").touch()
    with pytest.raises(StoreMissingError, match=r"empty\.db holds no studies yet"):
        SQLStore("empty.db", create=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request):
    return "s.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")


def execute(place, statement):
    engine = create_engine(DatabaseURL.of(place).url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize("create", [True, False])
def test_a_newer_store_is_refused(place, create):
    with SQLStore(place):
        pass
    execute(place, "UPDATE fairtrial_version SET version = 99")
    with pytest.raises(StoreVersionError, match=r"was written by a newer fairtrial .* version 99, this one knows 2"):
        SQLStore(place, create=create)


REFUSED = (
    r"^\S+ was made by a development version of fairtrial; its records can't be read by this one: name another "
    "store with --store, or move that one away$"
)


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_a_store_of_a_development_version_is_refused(place, version, create):
    execute(place, "CREATE TABLE fairtrial_schema (version INTEGER NOT NULL)")
    execute(place, f"INSERT INTO fairtrial_schema VALUES ({version})")
    execute(place, "CREATE TABLE trials (hash VARCHAR(64) NOT NULL)")
    with pytest.raises(StoreVersionError, match=REFUSED):
        SQLStore(place, create=create)


@pytest.mark.parametrize("create", [True, False])
def test_a_store_without_checksums_is_refused(place, create):
    with SQLStore(place):
        pass
    execute(place, "UPDATE fairtrial_version SET version = 1")
    execute(place, "ALTER TABLE trials DROP COLUMN checksum")
    with pytest.raises(StoreVersionError, match=REFUSED):
        SQLStore(place, create=create)


def test_a_new_database_has_the_tables_of_the_code(place):
    def columns(connection):
        found = inspect(connection)
        return {name: [column["name"] for column in found.get_columns(name)] for name in found.get_table_names()}

    with SQLStore(place) as store:
        there = store._read(columns)
    assert there == {name: [column.name for column in table.columns] for name, table in schema.metadata.tables.items()}
    assert there["epoch_records"] == ["trial", "epoch", "attempt", "metrics"]


def test_a_time_without_a_zone_is_a_bug(make_study):
    with SQLStore(":memory:") as store, pytest.raises(StoreError, match="a time without a zone can't be stored"):
        store.add_study(make_study(), datetime(2026, 1, 2))  # noqa: DTZ001


def test_a_foreign_database_is_refused_and_left_alone():
    foreign = create_engine("sqlite:///f.db")
    with foreign.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (x INTEGER)"))
    foreign.dispose()
    with pytest.raises(StoreError, match=r"f\.db is a database, but not one of fairtrial's"):
        SQLStore("f.db")
    with sqlite3.connect("f.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    connection.close()


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "t.db").write_text("not a database " * 100)
    with pytest.raises(StoreError, match=r"the store t\.db can't be opened: file is not a database"):
        SQLStore("t.db")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://x", r"--store nonsense://x: must be a file's path, or a URL such as sqlite:///fairtrial\.db or"),
        ("mysql://x/y", r"--store mysql://x/y: must be a file's path, or a URL such as"),
        ("://", r"--store ://: must be a file's path, or a URL such as"),
        ("postgresql://h:p/d", r"--store postgresql://h:\*\*\*: must be a file's path, or a URL such as"),
        ("host=h dbname=runs", r"--store: looks like a connection string; write postgresql://USER@HOST/DATABASE"),
    ],
)
def test_a_bad_url_is_named(url, message):
    with pytest.raises(StoreError, match=message):
        SQLStore(url)


def test_a_store_without_damage(place):
    with SQLStore(place) as store:
        assert store.check() == ""
        assert store.beside == ("s.db" if place == "s.db" else "fairtrial")
        assert store.name == redact_url(place)


def test_damage_is_found(make_study):
    study = make_study(seeds=100)
    with SQLStore("s.db") as store:
        store.add_study(study, datetime(2026, 1, 2, tzinfo=UTC))
    content, one = Path("s.db").read_bytes(), plan(study)[0].hash.encode()
    Path("s.db").write_bytes(content.replace(one, one[::-1], 1))  # in a table, and not in its index
    with SQLStore("s.db", create=False) as store:
        assert "missing from index" in store.check()
