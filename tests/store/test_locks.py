"""Locks of studies: what they refuse, when they end, and what they leave behind."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from fairtrial.errors import StoreError, StoreLockedError
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Machine
from store_calls import Calls

NOW = datetime(2026, 1, 2, tzinfo=UTC)

OWNER = """
import os, sys, subprocess
from fairtrial.spec import Study, parse_toml
from fairtrial.store.sql import SQLStore

study = Study.from_dict(parse_toml(open("study.toml").read()))
with SQLStore(sys.argv[1]) as store, store.lock(study):
    if sys.argv[2] == "forks":
        child = os.fork()
        if child == 0:
            sys.stdin.read()
            os._exit(0)
        print(child, flush=True)
    if sys.argv[2] == "starts":
        print(subprocess.Popen(["sleep", "600"], close_fds=False).pid, flush=True)
    print("locked", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request):
    return "s.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def study(make_study):
    study = make_study()
    Path("study.toml").write_text(study.to_toml())
    return study


@pytest.fixture
def start():
    """Start Python programs, and end those that are left."""
    started = []

    def start(*words):
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", *words], text=True, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def lock_files():
    return [path.name for path in Path().iterdir() if path.name.endswith(".lock")]


def test_another_process_is_refused_until_the_owner_releases(place, study, start):
    owner = start(OWNER, place, "")
    assert owner.stdout.readline() == "locked\n"
    with SQLStore(place) as store:
        with pytest.raises(StoreLockedError) as caught:
            store.lock(study).__enter__()
        assert re.fullmatch(
            rf"small@{study.hash[:8]} is being run in this store already, by process {owner.pid} on \S+ since "
            r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC: wait for it or stop it, or name another store with --store",
            str(caught.value),
        )
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert owner.stdout.readline() == "released\n"
        with store.lock(study):
            pass
    assert lock_files() == []


# A fork of a process shares its connection to a server, and so the lock, but not the lock of a file.
@pytest.mark.parametrize(
    ("place", "children"),
    [("sqlite", ""), ("sqlite", "starts"), ("sqlite", "forks"), ("postgresql", ""), ("postgresql", "starts")],
    indirect=["place"],
)
def test_a_lock_dies_with_its_owner_and_no_child_keeps_it(place, study, start, children):
    owner = start(OWNER, place, children)
    child = int(owner.stdout.readline()) if children else None
    assert owner.stdout.readline() == "locked\n"
    owner.kill()
    owner.wait()
    if child:
        os.kill(child, 0)  # is alive
    with SQLStore(place) as store:
        eventually_locked(store, study)
    if child:
        os.kill(child, signal.SIGKILL)
    assert lock_files() == []


def eventually_locked(store, study):
    """Lock a study whose owner has just died: a server needs a moment to notice."""
    for _ in range(100):
        try:
            with store.lock(study):
                return
        except StoreLockedError:
            threading.Event().wait(0.05)
    with store.lock(study):
        pass


def test_a_fork_of_the_owner_that_ends_releases_nothing(study):
    with SQLStore("s.db") as store:
        with store.lock(study):
            child = os.fork()
            if child == 0:
                try:
                    raise SystemExit  # as a fork in a training loop would, through all contexts
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            assert len(lock_files()) == 1
            with SQLStore("s.db") as other, pytest.raises(StoreLockedError):
                other.lock(study).__enter__()
        assert lock_files() == []


def test_a_fork_does_not_have_its_parents_lock(study):
    with SQLStore("s.db") as store, store.lock(study):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with SQLStore("s.db") as own:
                    own.lock(study).__enter__()
            except StoreLockedError as error:
                status = 0 if f"by process {os.getppid()} on" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(lock_files()) == 1


def test_a_file_that_was_removed_between_opening_and_locking_is_no_lock(study, monkeypatch):
    """The previous owner removes the file while this one opens it: a lock on that file would lock nothing."""
    seen = []

    def flock(file, how):
        if not seen:
            os.unlink(lock_files()[0])  # noqa: PTH108
        seen.append(os.fstat(file).st_ino)
        return original(file, how)

    original = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    with SQLStore("s.db") as store, store.lock(study):
        assert len(seen) == 2
        assert Path(lock_files()[0]).stat().st_ino == seen[-1]


def test_a_file_that_a_dead_owner_left_is_taken_over(study):
    Path(f"s.db.{study.hash[:8]}.lock").write_text("process 1 on elsewhere since 2001-01-01 00:00:00 UTC, " + "x" * 500)
    with SQLStore("s.db") as store, store.lock(study):
        assert Path(lock_files()[0]).read_text().startswith(f"process {os.getpid()} on ")
        assert len(Path(lock_files()[0]).read_text()) < 200
    assert lock_files() == []


def test_other_names_of_a_database_are_the_same(study):
    Path("folder").mkdir()
    Path("folder/link.db").symlink_to("../s.db")
    with SQLStore("s.db") as store, store.lock(study):
        for name in ("./folder/../s.db", "folder/link.db", f"sqlite:///{Path.cwd()}/s.db"):
            with SQLStore(name) as other, pytest.raises(StoreLockedError):
                other.lock(study).__enter__()


OBSTACLES = {
    "folder": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("precious"),
    "hard link": lambda path: path.hardlink_to("precious"),
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "link to a folder": lambda path: path.symlink_to("."),
    "pipe": os.mkfifo,
    "file of the user's": lambda path: path.write_text("the user's own"),
    "large file of the user's": lambda path: path.write_bytes(b"process 1 on " + b"x" * 1_000_000),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_is_no_lock_file_is_named_and_left_alone(study, obstacle):
    Path("precious").write_text("the user's own")
    path = Path.cwd() / f"s.db.{study.hash[:8]}.lock"
    OBSTACLES[obstacle](path)
    before = path.lstat()
    with SQLStore("s.db") as store:
        for _ in range(2):
            with pytest.raises(
                StoreError,
                match=rf"^small@\w+ can't be run in this store: {re.escape(str(path))} is not a lock of fairtrial's",
            ) as caught:
                store.lock(study).__enter__()
            assert not isinstance(caught.value, StoreLockedError)
    assert Path("precious").read_text() == "the user's own"
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not Path("nowhere").exists()


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_what_takes_the_place_of_a_lock_file_is_left_alone(study, obstacle):
    Path("precious").write_text("the user's own")
    path = Path.cwd() / f"s.db.{study.hash[:8]}.lock"
    with SQLStore("s.db") as store, store.lock(study):
        path.unlink()
        OBSTACLES[obstacle](path)
        before = path.lstat()
    assert Path("precious").read_text() == "the user's own"
    assert (path.lstat().st_ino, path.lstat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("signed", [b"", b"somebody", b"\xff\x1b[31m" * 99, b"process 1 on \n since"])
def test_what_names_no_owner_is_not_repeated(study, signed):
    path = Path(f"s.db.{study.hash[:8]}.lock")
    path.write_bytes(signed)
    with path.open() as file, SQLStore("s.db") as store:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreLockedError, match="in this store already, by another process: wait"):
            store.lock(study).__enter__()


def test_an_owner_that_has_not_signed_yet_is_another_process(study):
    path = Path(f"s.db.{study.hash[:8]}.lock")
    with path.open("w") as file, SQLStore("s.db") as store:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(StoreLockedError, match="in this store already, by another process: wait"):
            store.lock(study).__enter__()
        path.unlink()
        with store.lock(study):
            pass


def test_a_lock_on_a_server_outlives_a_lost_connection(postgresql, study, end_sessions):
    """A server that restarts has lost the lock: it is taken again before anything is written."""
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other, store.lock(study):
        store.add_study(study, NOW)
        end_sessions()
        Calls(store).begin(plan(study)[0], "1", Machine({}, "p", "cpu", 1, "s"), NOW)
        with pytest.raises(StoreLockedError, match=f"by process {os.getpid()} on "):
            other.lock(study).__enter__()


def test_a_lock_on_a_server_that_another_has_taken_meanwhile_ends_the_run(postgresql, study, end_sessions):
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other, store.lock(study):
        store.add_study(study, NOW)
        end_sessions()
        with other.lock(study):
            with pytest.raises(StoreLockedError, match=f"by process {os.getpid()} on "):
                Calls(store).begin(plan(study)[0], "1", Machine({}, "p", "cpu", 1, "s"), NOW)
            assert store.results(study) == []


def test_a_lost_session_that_the_server_has_not_noticed_is_ended(postgresql, study):
    """The network has lost the connection, and the server has not noticed: the owner takes its lock again."""
    with SQLStore(postgresql) as store, store.lock(study):
        (lock,) = store._locks
        forgotten = lock._connection
        lock._connection = store._engine.connect()
        lock._connection.connection.driver_connection.close()
        for _ in range(2):
            lock.renew()
        with psycopg.connect(postgresql) as connection:
            count = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            assert connection.execute(count).fetchone() == (1,)
        with SQLStore(postgresql) as other, pytest.raises(StoreLockedError):
            other.lock(study).__enter__()
        forgotten.connection.dbapi_connection.close()


def test_a_session_that_is_not_fairtrials_is_another_process(postgresql, study):
    with SQLStore(postgresql) as store, store.lock(study):
        (lock,) = store._locks
        lock._connection.exec_driver_sql("SET application_name = 'somebody'")
        with SQLStore(postgresql) as other, pytest.raises(StoreLockedError, match="already, by another process: wait"):
            other.lock(study).__enter__()


RUN = "import sys; sys.argv[0] = 'fairtrial'; from fairtrial.__main__ import main; main()"
SLOW = "import time\ndef train(trial):\n    while True:\n        time.sleep(0.05)\n        yield {'test_acc': 0.5}\n"


@pytest.mark.slow
def test_a_second_run_is_refused_and_the_next_resumes_after_a_kill(place, study, start):
    Path("slow.py").write_text(SLOW)
    table = study.to_toml().replace("loops:good", "slow:train").replace("epochs = 3", "epochs = 100000")
    Path("slow.toml").write_text(table)
    words = (RUN, "run", "slow.toml", "--workers", "1", "--store", place)
    first = start(*words)
    begun(first)
    second = start(*words)
    out, err = second.communicate(timeout=120)
    assert (second.returncode, out, err.count("\n")) == (1, "", 1)
    assert re.match(rf"fairtrial: small@\w+ is being run in this store already, by process {first.pid} on ", err)
    first.kill()
    first.wait()
    third = start(*words)
    begun(third)
    third.send_signal(signal.SIGINT)
    assert third.wait(timeout=60) == 130
    assert lock_files() == []


def begun(process):
    """Wait until a run has recorded an epoch."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "epoch 2/" in line:
            return
    raise AssertionError("".join(lines))
