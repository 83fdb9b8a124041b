"""Databases of earlier releases: read as they are, brought up to date, and no different from new ones then."""

import dataclasses
import json
import shutil
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Float, inspect

from fairtrial.errors import StoreVersionError
from fairtrial.scheduler import plan
from fairtrial.spec import METRICS
from fairtrial.store import migrations, queries, schema
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome

ASSETS = Path(__file__).parent / "assets"
NOW = datetime(2026, 5, 6, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def released(request):
    """Lay down a database as the first release left it, with trials that ended in every way, and name its place."""
    if request.param == "sqlite":
        shutil.copy(ASSETS / "schema-1.db", "old.db")
        return "old.db"
    place = request.getfixturevalue("postgresql")
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute((ASSETS / "schema-1.postgresql.sql").read_text())
    return place


def read(store):
    """Read what is in a store, by the hashes in it: those that this release would compute may be others."""

    def hashes(connection):
        links = schema.study_trials.c
        return [row.trial for row in connection.execute(schema.study_trials.select().order_by(links.position))]

    found = store._database.read(lambda connection: queries.results_of_trials(connection, hashes(connection)))
    return json.loads(json.dumps([dataclasses.asdict(one) for one in found], default=datetime.isoformat))


def version(store):
    return store._database.read(lambda connection: connection.execute(schema.schema_version.select()).scalar_one())


#: What the asset's own release read from it; of a machine, later releases know more, which was not known then.
UNKNOWN = {"data": "", "forced": ""}
EXPECTED = [
    {**result, "machine": result["machine"] | UNKNOWN} for result in json.loads((ASSETS / "schema-1.json").read_text())
]


def test_an_old_store_is_read_as_it_is(released):
    with SQLStore(released, create=False) as store:
        assert read(store) == EXPECTED
        (study,) = store.studies()
        assert (study.name, study.trials, study.started, study.source, study.assignments) == (
            "released",
            6,
            1,
            None,
            (),
        )
        assert dict(study.outcomes) == {Outcome.FINISHED: 2, Outcome.DIVERGED: 1, Outcome.FAILED: 1}
        assert version(store) == 1


def test_a_file_that_cant_be_written_is_read_as_well():
    shutil.copy(ASSETS / "schema-1.db", "old.db")
    before = Path("old.db").read_bytes()
    with SQLStore("sqlite:///file:old.db?mode=ro&uri=true", create=False) as store:
        assert read(store) == EXPECTED
    assert Path("old.db").read_bytes() == before


def test_an_old_store_is_brought_up_to_date_with_all_its_records(released):
    with SQLStore(released) as store:
        assert version(store) == schema.VERSION
        assert read(store) == EXPECTED
        assert [(study.source, study.assignments) for study in store.studies()] == [(None, ())]
    with SQLStore(released) as store:  # and once is enough
        assert read(store) == EXPECTED


def test_the_first_write_brings_it_up_to_date_too(released, make_study):
    study = make_study()
    with SQLStore(released, create=False) as store:
        store.add_study(study, plan(study), NOW, source="small.toml")
        assert version(store) == schema.VERSION
        assert [(one.name, one.source) for one in store.studies()] == [("small", "small.toml"), ("released", None)]
        assert read(store)[: len(EXPECTED)] == EXPECTED


@pytest.mark.parametrize("kind", ["new", "migrated"])
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_database_has_the_tables_that_the_code_believes_in(backend, kind, request):
    place = request.getfixturevalue("postgresql") if backend == "postgresql" else "old.db"
    if kind == "migrated":
        if backend == "sqlite":
            shutil.copy(ASSETS / "schema-1.db", place)
        else:
            with psycopg.connect(place, autocommit=True) as connection:
                connection.execute((ASSETS / "schema-1.postgresql.sql").read_text())

    def differences(connection):
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata)

    def tables(connection):
        found = inspect(connection)
        return {
            name: [(c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(name)]
            for name in found.get_table_names()
        }

    with SQLStore(place) as store:
        assert store._database.read(differences) == []
        here = store._database.read(tables)
    assert set(here) == set(schema.metadata.tables)
    if kind == "migrated":
        with SQLStore("new.db") as new:
            fresh = new._database.read(tables)
        assert {name: [column[0] for column in columns] for name, columns in here.items()} == {
            name: [column[0] for column in columns] for name, columns in fresh.items()
        }


def test_metrics_are_kept_in_double_precision(postgresql):
    with SQLStore(postgresql) as store:
        columns = store._database.read(lambda connection: inspect(connection).get_columns("epoch_records"))
    types = {column["name"]: column["type"] for column in columns}
    assert {str(types[name]) for name in METRICS} == {"DOUBLE PRECISION"}
    assert all(isinstance(types[name], Float) for name in METRICS)


def test_the_last_migration_leads_to_the_version_of_the_code():
    scripts = ScriptDirectory(Path(migrations.__file__).parent)
    assert scripts.get_current_head() == str(schema.VERSION)
    assert [script.revision for script in scripts.walk_revisions()] == [str(n) for n in range(schema.VERSION, 0, -1)]


def test_a_migration_that_fails_changes_nothing(released, monkeypatch):
    def fail(connection, old, new):
        upgrade(connection, old, new)
        raise KeyError("half way")

    upgrade = migrations.upgrade
    monkeypatch.setattr(migrations, "upgrade", fail)
    with pytest.raises(KeyError, match="half way"):
        SQLStore(released)
    with SQLStore(released, create=False) as store:
        assert version(store) == 1
        tables = store._database.read(lambda connection: inspect(connection).get_table_names())
        assert "fairtrial_writers" not in tables
        assert read(store) == EXPECTED


def test_a_newer_store_is_refused_on_a_server_too(postgresql):
    with SQLStore(postgresql):
        pass
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("UPDATE fairtrial_schema SET version = 99")
    for create in (True, False):
        with pytest.raises(StoreVersionError, match=r"was written by a newer .* version 99, this one knows 2"):
            SQLStore(postgresql, create=create)


def test_the_asset_is_still_what_the_first_release_wrote():
    """A later change to the asset itself would make these tests say nothing."""
    connection = sqlite3.connect(f"file:{ASSETS / 'schema-1.db'}?mode=ro", uri=True)
    assert connection.execute("SELECT version FROM fairtrial_schema").fetchall() == [(1,)]
    columns = {row[1] for row in connection.execute("PRAGMA table_info(studies)")}
    connection.close()
    assert columns == {"hash", "name", "toml", "created_at", "last_run_at"}
