"""SQLite: its journal, waiting for other processes, and full disks."""

import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from fairtrial import digest_results
from fairtrial.errors import StoreError
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Machine, Outcome
from store_calls import Calls

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def journal(path="s.db", mode=None):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(f"PRAGMA journal_mode{' = ' + mode if mode else ''}").fetchone()[0]
    finally:
        connection.close()


def test_commits_are_synced_foreign_keys_hold_and_the_journal_is_rolled_back():
    def pragma(name):
        return store._read(lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar())

    with SQLStore("s.db") as store:
        assert (pragma("synchronous"), pragma("foreign_keys"), pragma("journal_mode")) == (2, 1, "delete")


def test_a_write_ahead_log_that_somebody_turned_on_is_read_and_left_for_writing(make_study):
    with SQLStore("s.db") as store:
        store.add_study(make_study(), NOW)
    assert journal(mode="WAL") == "wal"
    with SQLStore("s.db", create=False) as store:  # only reads
        assert [study.name for study in store.studies()] == ["small"]
    assert journal() == "wal"
    with SQLStore("s.db") as store:
        assert [study.name for study in store.studies()] == ["small"]
    assert journal() == "delete"
    assert not Path("s.db-wal").exists()


def test_a_write_ahead_log_that_another_process_uses_is_an_error_in_one_line(make_study):
    with SQLStore("s.db"):
        pass
    journal(mode="WAL")
    other = sqlite3.connect("s.db")
    other.execute("SELECT * FROM studies").fetchall()
    with pytest.raises(StoreError) as caught:
        SQLStore("s.db", patience=0.1)
    assert str(caught.value) == (
        "the store s.db can't be opened: another process is using it (database is locked); nothing "
        "that was stored is lost: let that process end, and try again"
    )
    other.close()
    with SQLStore("s.db"):
        assert journal() == "delete"


@pytest.fixture
def unprivileged():
    """Make a folder; if this process is root, give it and the folder to another user."""
    folder = Path(tempfile.mkdtemp())
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    yield folder
    if is_root:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_what_keeps_a_store_from_being_opened_is_named(unprivileged):
    (unprivileged / "folder.db").mkdir()
    (unprivileged / "file").touch()
    for place, why in {
        "no/such/s.db": f"there is no folder {unprivileged}/no/such",
        "file/s.db": f"there is no folder {unprivileged}/file",
        "folder.db": f"{unprivileged}/folder.db is a folder",
    }.items():
        with pytest.raises(StoreError) as caught:
            SQLStore(str(unprivileged / place))
        assert str(caught.value) == (
            f"the store {unprivileged / place} can't be opened: {why} (unable to open database file)"
        )


def test_a_read_only_folder_or_file_is_named(unprivileged, make_study):
    store = SQLStore(str(unprivileged / "s.db"))
    store.add_study(make_study(), NOW)
    store.__exit__()
    unprivileged.chmod(0o500)
    messages = []
    for name in ("new.db", "s.db"):
        with pytest.raises(StoreError) as caught, SQLStore(str(unprivileged / name)) as opened:
            opened.add_study(make_study(), NOW + timedelta(seconds=1))
        messages.append(str(caught.value))
    unprivileged.chmod(0o700)
    (unprivileged / "s.db").chmod(0o400)
    with SQLStore(str(unprivileged / "s.db")) as opened:
        assert len(opened.studies()) == 1
        with pytest.raises(StoreError) as caught:
            opened.add_study(make_study(), NOW + timedelta(seconds=1))
    messages.append(str(caught.value))
    closed, read_only = "unable to open database file", "attempt to write a readonly database"
    where = f"the store {unprivileged}"
    assert messages == [
        f"{where}/new.db can't be opened: {unprivileged} can't be written to ({closed})",
        f"{where}/s.db can't be written: {unprivileged} can't be written to ({read_only})",
        f"{where}/s.db can't be written: {unprivileged}/s.db can't be written to ({read_only})",
    ]


def delete():
    Path("d/s.db").unlink()


def delete_folder():
    shutil.rmtree("d")


def replace():
    shutil.copy("d/s.db", "d/t.db")
    Path("d/t.db").rename("d/s.db")


@pytest.mark.parametrize("what", [delete, delete_folder, replace])
def test_a_store_that_is_deleted_while_it_is_open_is_reported(make_study, what):
    study = make_study()
    Path("d").mkdir()
    with SQLStore("d/s.db") as store, ThreadPoolExecutor(1) as another_thread:
        store.add_study(study, NOW)
        what()
        with pytest.raises(StoreError) as caught:
            Calls(store).begin(plan(study)[0], "1", MACHINE, NOW)
        assert str(caught.value) == (
            "the store d/s.db can't be written: the database file was deleted or replaced while it was open"
        )
        if what is not replace:
            with pytest.raises(StoreError, match=r"^the store d/s\.db: the database file was deleted or replaced"):
                store._read(lambda connection: another_thread.submit(store.studies).result())
            assert not Path("d/s.db").exists()


def test_a_lock_that_ends_in_time_is_waited_for(make_study):
    with SQLStore("s.db") as store:
        holder = sqlite3.connect("s.db", isolation_level=None, check_same_thread=False)
        holder.execute("BEGIN EXCLUSIVE")
        release_at = threading.Timer(3, holder.execute, ["COMMIT"])
        release_at.start()
        store.add_study(make_study(), NOW)
        release_at.join()
        holder.close()
        assert [study.name for study in store.studies()] == ["small"]


def test_a_lock_past_the_patience_is_an_error_in_one_line_and_loses_nothing(make_study):
    study = make_study()
    with SQLStore("s.db", patience=0.1) as store:
        store.add_study(study, NOW)
        holder = sqlite3.connect("s.db", isolation_level=None)
        holder.execute("BEGIN EXCLUSIVE")
        for action, what in (
            (store.studies, "read"),
            (lambda: Calls(store).begin(plan(study)[0], "1", MACHINE, NOW), "written"),
        ):
            with pytest.raises(StoreError) as caught:
                action()
            assert str(caught.value) == (
                f"the store s.db can't be {what}: another process is using it (database is locked)"
                "; nothing that was stored is lost: let that process end, and try again"
            )
        holder.close()
        Calls(store).begin(plan(study)[0], "1", MACHINE, NOW)


WRITER = """
import sys
from datetime import UTC, datetime
from fairtrial.scheduler import plan
from fairtrial.trial import EpochRecord, Machine
from fairtrial.spec import Study, parse_toml
from fairtrial.store.sql import SQLStore
from store_calls import Calls

number = int(sys.argv[1])
study = Study.from_dict(parse_toml(open("study.toml").read()))
trial = plan(study)[number]
with SQLStore("s.db") as store:
    Calls(store).begin(trial, "1", Machine({}, "p", "cpu", 1, "s"), datetime.now(UTC))
    for epoch in range(1, 26):
        Calls(store).add_epoch(trial, "1", EpochRecord(trial.arm, trial.seed, epoch, {"test_acc": number / 10}))
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
        store.add_study(study, NOW)
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
    """Limit the pages of the store's database; its pool has one connection, as one thread uses it."""

    def work(connection):
        used = connection.exec_driver_sql("PRAGMA page_count").scalar()
        return connection.exec_driver_sql(f"PRAGMA max_page_count = {pages or used}").scalar()

    return store._read(work)


FULL = (
    r"^the store s\.db can't be written: disk full \(database or disk is full\); nothing that was stored is lost: make"
)


def test_a_full_database_is_reported_and_the_store_works_again_with_room(make_study):
    study = make_study()
    first, second = plan(study)[:2]
    long = "x" * 100_000
    with SQLStore("s.db") as store:
        store.add_study(study, NOW)
        Calls(store).begin(first, "1", MACHINE, NOW)
        before = store.results(study)
        limit(store, None)
        with pytest.raises(StoreError, match=FULL):
            Calls(store).end(first, "1", Outcome.FAILED, long, NOW)

        def work(writer):
            writer.begin(second, "1", MACHINE, NOW)
            writer.end(second, "1", Outcome.FAILED, long, NOW)

        with pytest.raises(StoreError, match=FULL):
            store.write(work)
        assert store.results(study) == before
        assert sound()
        limit(store, 1_000_000)
        Calls(store).end(first, "1", Outcome.FAILED, long, NOW)
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
from store_calls import Calls

study = Study.from_dict(parse_toml(open("study.toml").read()))
trial = plan(study)[0]
now = datetime.now(UTC)
with SQLStore("s.db") as store:
    Calls(store).begin(trial, "1", Machine({}, "p", "cpu", 1, "s"), now)
    room = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, room[1]))
    kept = 0
    try:
        for epoch in range(1, 100_000):
            Calls(store).add_epoch(trial, "1", EpochRecord(trial.arm, trial.seed, epoch, {"x" * 1000: 0.5}))
            kept = epoch
    except StoreError as error:
        print(error)
    print(kept, len(store.results(study)[0].epochs))
    resource.setrlimit(resource.RLIMIT_FSIZE, room)
    Calls(store).add_epoch(trial, "1", EpochRecord(trial.arm, trial.seed, kept + 1, {"test_acc": 0.5}))
"""


def test_a_file_that_may_not_grow_is_reported_and_nothing_is_lost(make_study):
    study = make_study()
    Path("study.toml").write_text(study.to_toml())
    with SQLStore("s.db") as store:
        store.add_study(study, NOW)
        out, err = run(GROWING, text=True).communicate(timeout=300)
        message, counts = out.splitlines()
        assert re.match(r"the store s\.db can't be written: disk full or failing \(disk I/O error\); nothing", message)
        kept, read = map(int, counts.split())
        assert (kept > 10, read, err) == (True, kept, "")
        assert sound()
        assert [one.epoch for one in store.results(study)[0].epochs] == list(range(1, kept + 2))


@pytest.mark.slow
def test_a_study_that_fills_the_disk_ends_in_a_line_and_resumes_with_room(make_study):
    study = make_study(training={"epochs": 1000, "loop": "fairtrial.testing:simulate"}, arms={"a": {}})
    Path("study.toml").write_text(study.to_toml())

    def fairtrial(store, room=resource.RLIM_INFINITY):
        command = (
            "from fairtrial.cli.main import main; main()",
            "run",
            "study.toml",
            "--workers",
            "1",
            "--store",
            store,
        )
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        process = run(*command, text=True, preexec_fn=limit)
        _, err = process.communicate(timeout=300)
        return process.returncode, err.splitlines()

    def results(path):
        with SQLStore(path, create=False) as store:
            return store.results(study)

    code, messages = fairtrial("s.db", 200_000)
    assert code == 1, messages
    assert re.match(r"fairtrial: the store s\.db can't be written: disk full or failing", messages[-1])
    assert not any("Traceback" in line for line in messages)
    assert sound()
    assert any(result.outcome is None for result in results("s.db"))
    assert fairtrial("s.db")[0] == fairtrial("whole.db")[0] == 0
    assert sound()
    assert digest_results(results("s.db")) == digest_results(results("whole.db"))


def test_a_database_in_memory_is_one_for_all_threads(make_study):
    study = make_study()
    with SQLStore("sqlite://") as store, SQLStore(":memory:") as other:
        adding = threading.Thread(target=store.add_study, args=(study, NOW))
        adding.start()
        adding.join()
        Calls(store).begin(plan(study)[0], "1", MACHINE, NOW)
        assert len(store.results(study)) == 1
        assert other.studies() == []
        with (
            store.lock(study),
            other.lock(study),
            pytest.raises(StoreError, match="is being run in this store already"),
        ):
            store.lock(study).__enter__()
    assert list(Path().iterdir()) == []


def test_a_url_with_a_file_uri_names_the_file(make_study):
    with SQLStore("s.db") as store:
        store.add_study(make_study(), NOW)
    with SQLStore("sqlite:///file:s.db?mode=ro&uri=true", create=False) as store:
        assert len(store.studies()) == 1
        with pytest.raises(StoreError, match="can't be written: attempt to write a readonly database"):
            Calls(store).begin(plan(make_study())[0], "1", MACHINE, NOW)


@pytest.mark.parametrize("kind", ["journal", "wal", "shm"])
def test_what_stands_in_the_place_of_a_journal_is_named_and_left_alone(kind, make_study):
    """SQLite waits for a pipe there, and writes through a hard link."""
    with SQLStore("s.db") as store:
        store.add_study(make_study(), NOW)
    here, theirs = Path(f"s.db-{kind}").absolute(), Path("theirs")
    theirs.write_bytes(b"\0precious")  # a journal that begins with a zero counts as used up
    for make, why in {
        partial(os.mkfifo, here): "is not a regular file",
        partial(here.symlink_to, theirs): "is not a regular file",
        partial(here.hardlink_to, theirs): "is another name of somebody's file; move or remove it",
    }.items():
        make()
        for create in (True, False):
            with pytest.raises(StoreError) as caught:
                SQLStore("s.db", create=create)
            assert str(caught.value) == f"the store s.db can't be opened: {here} {why}"
        assert theirs.read_bytes() == b"\0precious"
        here.unlink()


def test_a_store_is_a_regular_file():
    os.mkfifo("pipe.db")
    Path("loop.db").symlink_to("loop.db")
    for place, why in {"pipe.db": Path("pipe.db").absolute(), "/dev/zero": "/dev/zero", "loop.db": "loop.db"}.items():
        with pytest.raises(StoreError, match=rf"^the store {place} can't be opened: [^\n]*$") as caught:
            SQLStore(place)
        if place != "loop.db":
            assert str(caught.value).endswith(f"{why} is not a regular file")
