"""SQLite: which journal, whom it waits for, and what happens on a full disk."""

import os
import re
import resource
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from fairtrial.store.sqlite import wal_is_safe

from fairtrial import digest_results
from fairtrial.errors import StoreError
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import EpochRecord, Machine, Outcome

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 6, 23), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 44, 9), True),
        ((3, 45, 0), False),
        ((3, 49, 99), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
)
def test_releases_that_may_keep_a_write_ahead_log(version, safe):
    assert wal_is_safe(version) is safe


def release(monkeypatch, *version):
    """Let the store believe that it runs on another release of SQLite."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    monkeypatch.setattr(sqlite3, "sqlite_version", ".".join(map(str, version)))


def journal(path="s.db"):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA journal_mode").fetchone()[0]
    finally:
        connection.close()


def test_the_journal_follows_the_release(monkeypatch, make_study):
    release(monkeypatch, 3, 51, 3)
    with SQLStore("s.db") as store:
        store.add_study(make_study(), plan(make_study()), NOW)
    assert journal() == "wal"
    release(monkeypatch, 3, 51, 2)
    with SQLStore("s.db", create=False) as store:
        assert [study.name for study in store.studies()] == ["small"]
    assert journal() == "delete"
    assert not Path("s.db-wal").exists()
    release(monkeypatch, 3, 53, 0)
    with SQLStore("s.db", create=False):  # only reads
        pass
    assert journal() == "delete"


def test_a_log_that_others_hold_is_refused_with_a_reason(monkeypatch):
    release(monkeypatch, 3, 51, 3)
    with SQLStore("s.db") as other:
        other.studies()  # its connection stays open, and the database with it
        release(monkeypatch, 3, 50, 4)
        with pytest.raises(StoreError) as caught:
            SQLStore("s.db", patience=0.2)
        assert str(caught.value) == (
            "the store s.db is in WAL mode, which SQLite 3.50.4 may damage, and can't leave it while another process "
            "has it open: close that, or use SQLite 3.51.3 or newer"
        )
        threading.Timer(0.3, other.__exit__).start()
        with SQLStore("s.db", patience=30):
            assert journal() == "delete"


def test_a_log_that_a_newer_process_brought_back_is_left_before_writing(monkeypatch, make_study):
    with SQLStore("s.db") as store:
        connection = sqlite3.connect("s.db")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        assert journal() == "wal"
        store.add_study(make_study(), plan(make_study()), NOW)
        assert len(store.studies()) == 1
    assert journal() == "delete"


def test_a_log_that_cant_be_had_now_is_done_without(monkeypatch):
    with SQLStore("s.db"):
        pass
    reader = sqlite3.connect("s.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM studies").fetchall()
    release(monkeypatch, 3, 51, 3)
    with SQLStore("s.db") as store:
        assert store.studies() == []
    reader.close()
    assert journal() == "delete"


def test_a_lock_that_ends_in_time_is_waited_for(make_study):
    with SQLStore("s.db") as store:
        holder = sqlite3.connect("s.db", isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN EXCLUSIVE")
        release_at = threading.Timer(3, holder.execute, ["COMMIT"])
        release_at.start()
        store.add_study(make_study(), plan(make_study()), NOW)
        release_at.join()
        holder.close()
        assert [study.name for study in store.studies()] == ["small"]


def test_a_lock_past_the_patience_is_an_error_in_one_line_and_loses_nothing(make_study):
    study = make_study()
    with SQLStore("s.db", patience=0.1) as store:
        store.add_study(study, plan(study), NOW)
        holder = sqlite3.connect("s.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        for action, what in (
            (store.studies, "read"),
            (lambda: store.begin(plan(study)[0], MACHINE, NOW), "written"),
        ):
            with pytest.raises(StoreError) as caught:
                action()
            assert str(caught.value) == (
                f"the store s.db can't be {what}: another process has held it for more than 0.1 s (database is locked)"
                "; nothing that was stored is lost: let that process end, and try again"
            )
        holder.close()
        assert store.begin(plan(study)[0], MACHINE, NOW) == 1


WRITER = """
import sys
from datetime import UTC, datetime
from fairtrial.scheduler import plan
from fairtrial.trial import EpochRecord, Machine
from fairtrial.spec import Study, parse_toml
from fairtrial.store.sql import SQLStore

number = int(sys.argv[1])
study = Study.from_dict(parse_toml(open("study.toml").read()))
trial = plan(study)[number]
with SQLStore("s.db") as store:
    attempt = store.begin(trial, Machine({}, "p", "cpu", 1, "s"), datetime.now(UTC))
    for epoch in range(1, 26):
        store.add_epoch(trial, attempt, EpochRecord(trial.arm, trial.seed, epoch, {"test_acc": number / 10}))
"""


def run(*words, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, **options
    )


@pytest.mark.slow
def test_eight_writers_lose_nothing(make_study):
    study = make_study(seeds=4, training={"epochs": 25, "loop": "loops:good"})
    Path("study.toml").write_text(study.to_toml())
    with SQLStore("s.db") as store:
        store.add_study(study, plan(study), NOW)
        writers = [run(WRITER, str(number)) for number in range(8)]
        errors = [writer.communicate(timeout=300)[1] for writer in writers]
        assert [writer.returncode for writer in writers] == [0] * 8, errors
        results = store.results(study)
    assert [[one.epoch for one in result.epochs] for result in results] == [list(range(1, 26))] * 8
    assert [result.epochs[0].metrics["test_acc"] for result in results] == [number / 10 for number in range(8)]


def sound(path="s.db"):
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()


def limit(store, pages):
    """Let the store's database grow to so many pages; its pool has one connection, as one thread uses it."""

    def work(connection):
        used = connection.exec_driver_sql("PRAGMA page_count").scalar()
        return connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or used}").scalar()

    return store._database.read(work)


FULL = (
    r"^disk full: the store s\.db can't be written \(database or disk is full\); nothing that was stored is lost: make"
)


def test_a_full_database_is_said_and_the_store_goes_on_once_there_is_room(make_study):
    study = make_study()
    first, second = plan(study)[:2]
    long = "x" * 100_000
    with SQLStore("s.db") as store:
        store.add_study(study, plan(study), NOW)
        store.begin(first, MACHINE, NOW)
        before = store.results(study)
        limit(store, None)
        with pytest.raises(StoreError, match=FULL):
            store.end(first, 1, Outcome.FAILED, long, NOW)
        with pytest.raises(StoreError, match=FULL), store.together():  # noqa: PT012
            store.begin(second, MACHINE, NOW)
            with pytest.raises(StoreError, match=FULL):
                store.end(second, 1, Outcome.FAILED, long, NOW)
            # SQLite has undone the whole transaction: what comes now must not slip in by itself
            with pytest.raises(StoreError, match=FULL):
                store.begin(second, MACHINE, NOW)
        assert store.results(study) == before
        assert sound()
        limit(store, 1_000_000)
        store.end(first, 1, Outcome.FAILED, long, NOW)
        assert store.results(study)[0].detail == long
        assert sound()


GROWING = """
import sys, resource, signal
from datetime import UTC, datetime
from fairtrial.errors import StoreError
from fairtrial.scheduler import plan
from fairtrial.trial import EpochRecord, Machine, Outcome
from fairtrial.spec import Study, parse_toml
from fairtrial.store.sql import SQLStore

study = Study.from_dict(parse_toml(open("study.toml").read()))
trial = plan(study)[0]
now = datetime.now(UTC)
with SQLStore("s.db") as store:
    attempt = store.begin(trial, Machine({}, "p", "cpu", 1, "s"), now)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, room[1]))
    kept = 0
    try:
        for epoch in range(1, 100_000):
            store.add_epoch(trial, attempt, EpochRecord(trial.arm, trial.seed, epoch, {"x" * 1000: 0.5}))
            kept = epoch
    except StoreError as error:
        print(error)
    print(kept, len(store.results(study)[0].epochs))
    resource.setrlimit(resource.RLIMIT_FSIZE, room)
    store.add_epoch(trial, attempt, EpochRecord(trial.arm, trial.seed, kept + 1, {"test_acc": 0.5}))
"""


def test_a_file_that_may_not_grow_is_said_and_nothing_is_lost(make_study):
    study = make_study()
    Path("study.toml").write_text(study.to_toml())
    with SQLStore("s.db") as store:
        store.add_study(study, plan(study), NOW)
        out, err = run(GROWING, text=True).communicate(timeout=300)
        message, counts = out.splitlines()
        assert re.match(r"disk full or failing: the store s\.db can't be written \(disk I/O error\); nothing", message)
        kept, read = map(int, counts.split())
        assert (kept > 10, read, err) == (True, kept, "")
        assert sound()
        assert [one.epoch for one in store.results(study)[0].epochs] == list(range(1, kept + 2))


@pytest.mark.slow
def test_a_study_that_fills_the_disk_ends_in_a_line_and_goes_on_with_room(make_study):
    study = make_study(training={"epochs": 1000, "loop": "fairtrial.testing:simulate"}, arms={"a": {}})
    Path("study.toml").write_text(study.to_toml())

    def fairtrial(store, room=resource.RLIM_INFINITY):
        command = ("from fairtrial.cli import main; main()", "run", "study.toml", "--workers", "1", "--store", store)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        process = run(*command, text=True, preexec_fn=limit)
        _, err = process.communicate(timeout=300)
        return process.returncode, err.splitlines()

    def results(path):
        with SQLStore(path, create=False) as store:
            return store.results(study)

    code, said = fairtrial("s.db", 200_000)
    assert code == 1, said
    assert re.match(r"fairtrial: disk full or failing: the store s\.db can't be written", said[-1])
    assert not any("Traceback" in line for line in said)
    assert sound()
    assert any(result.outcome is None for result in results("s.db"))
    assert fairtrial("s.db")[0] == fairtrial("whole.db")[0] == 0
    assert sound()
    assert digest_results(results("s.db")) == digest_results(results("whole.db"))


def test_a_database_in_memory_is_one_for_all_threads(make_study):
    study = make_study()
    with SQLStore("sqlite://") as store, SQLStore(":memory:") as other:
        adding = threading.Thread(target=store.add_study, args=(study, plan(study), NOW))
        adding.start()
        adding.join()
        with store.together():
            store.begin(plan(study)[0], MACHINE, NOW)
            assert len(store.results(study)) == 1
        assert other.studies() == []
        with (
            store.hold(study),
            other.hold(study),
            pytest.raises(StoreError, match="is being run in this store already"),
        ):
            store.hold(study).__enter__()
    assert list(Path().iterdir()) == []


def test_a_url_with_a_file_uri_names_the_file(make_study):
    with SQLStore("s.db") as store:
        store.add_study(make_study(), plan(make_study()), NOW)
    with SQLStore("sqlite:///file:s.db?mode=ro&uri=true", create=False) as store:
        assert len(store.studies()) == 1
        with pytest.raises(StoreError, match="can't be written: attempt to write a readonly database"):
            store.begin(plan(make_study())[0], MACHINE, NOW)


def test_an_epoch_of_a_later_attempt_takes_the_place_of_an_earlier_one_in_one_statement(make_study):
    """The sequence of the contract, but within one transaction, where the attempt is looked up once."""
    study = make_study()
    trial = plan(study)[0]
    with SQLStore("s.db") as store, store.together():
        store.add_study(study, plan(study), NOW)
        for attempt in (1, 2):
            assert store.begin(trial, MACHINE, NOW) == attempt
            store.add_epoch(trial, attempt, EpochRecord("a", 0, 1, {"test_acc": attempt / 10, f"only{attempt}": 1.0}))
        (result,) = store.results(study)
    assert result.epochs[0].metrics == {"test_acc": 0.2, "only2": 1.0}
