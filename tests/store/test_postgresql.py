"""PostgreSQL: sessions that end at the worst moment, other people's locks, and passwords."""

import contextlib
import select
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from fairtrial.errors import StoreError
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import EpochRecord, Machine, Outcome

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Line:
    """The line between a store and its server, which goes dead once, at a moment of the test's choice.

    Attributes:
        dies: None, "before" the server hears of the next commit, or "after", once its answer is on the way.
        deaths: how often it has gone dead.
    """

    def __init__(self, server, here):
        self._server = server
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(here / ".s.PGSQL.5432"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self.dies = None
        self.deaths = 0
        self._threads[0].start()

    def close(self):
        """Take no more connections, and wait for the end of those that are left."""
        if self._listener.fileno() != -1:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._threads[0].join()
            self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._carry, args=(client,)))
                self._threads[-1].start()

    def _carry(self, client):
        dies = None
        with client, socket.socket(socket.AF_UNIX) as server, contextlib.suppress(OSError):
            server.connect(self._server)
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if source is client and self.dies and b"COMMIT" in data:
                        dies, self.dies = self.dies, None
                        self.deaths += 1
                    if not data or dies == "before" or (dies == "after" and source is server):
                        return  # with "after", the server has committed, and nobody hears of it
                    (server if source is client else client).sendall(data)


@pytest.fixture
def line(postgresql, tmp_path_factory):
    folder = tmp_path_factory.mktemp("l")
    url = make_url(postgresql)
    opened = Line(f"{url.query['host']}/.s.PGSQL.5432", folder)
    opened.place = url.set(drivername="postgresql").update_query_dict({"host": str(folder)}).render_as_string(False)
    yield opened
    opened.close()


def epoch(trial, number):
    return EpochRecord(trial.arm, trial.seed, number, {"test_acc": number / 7})


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_session_lost_around_a_commit_doubles_nothing_and_loses_nothing(line, dies, make_study):
    study = make_study()
    trial = plan(study)[0]
    with SQLStore(line.place) as store:
        line.dies = dies
        store.add_study(study, plan(study), NOW)
        line.dies = dies
        assert store.begin(trial, MACHINE, NOW) == 1
        line.dies = dies
        store.add_fingerprints(trial, 1, {"data": "all"})
        line.dies = dies
        store.add_epoch(trial, 1, epoch(trial, 1))
        line.dies = dies
        store.end(trial, 1, Outcome.FINISHED, "", NOW)
        assert line.deaths == 5
        assert store.begin(trial, MACHINE, NOW) == 2
        line.dies = dies
        store.end(trial, 2, Outcome.DIVERGED, "why", NOW)
        (result,) = store.results(study)
        assert (result.outcome, result.detail, result.epochs, result.fingerprints) == (Outcome.DIVERGED, "why", (), {})
        assert line.deaths == 6


@pytest.mark.parametrize("dies", ["before", "after"])
def test_calls_together_survive_a_session_lost_around_their_commit(line, dies, make_study):
    """Two attempts of one trial in one transaction: said again after it was kept, a third would begin."""
    study = make_study()
    trial, other = plan(study)[:2]
    with SQLStore(line.place) as store:
        store.add_study(study, plan(study), NOW)
        line.dies = dies
        with store.together():
            assert store.begin(trial, MACHINE, NOW) == 1
            store.add_epoch(trial, 1, epoch(trial, 1))
            assert store.begin(trial, MACHINE, NOW) == 2
            for number in (1, 2):
                store.add_epoch(trial, 2, epoch(trial, number))
            store.end(trial, 2, Outcome.FINISHED, "", NOW)
            store.begin(other, MACHINE, NOW)
        assert line.deaths == 1
        results = store.results(study)
        assert [(len(result.epochs), result.outcome) for result in results] == [(2, Outcome.FINISHED), (0, None)]
        assert store.begin(trial, MACHINE, NOW) == 3


def test_sessions_that_end_between_calls_are_made_again(postgresql, make_study, end_sessions):
    study = make_study()
    trial = plan(study)[0]
    with SQLStore(postgresql) as store:
        store.add_study(study, plan(study), NOW)
        assert end_sessions() == 1
        assert store.begin(trial, MACHINE, NOW) == 1
        assert end_sessions() == 1
        assert len(store.results(study)) == 1
        assert end_sessions() == 1
        with store.together():
            store.add_epoch(trial, 1, epoch(trial, 1))
            assert end_sessions() == 1  # in the middle
            store.add_epoch(trial, 1, epoch(trial, 2))
            assert end_sessions() == 1
            assert len(store.results(study)[0].epochs) == 2
            assert end_sessions() == 1  # and before the commit
        assert [one.epoch for one in store.results(study)[0].epochs] == [1, 2]


def test_a_trial_that_another_run_began_while_the_session_was_lost_is_given_up(postgresql, make_study, end_sessions):
    study = make_study()
    trial = plan(study)[0]
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other:
        store.add_study(study, plan(study), NOW)
        with pytest.raises(StoreError, match="another run began the same trials in this store"), store.together():  # noqa: PT012
            assert store.begin(trial, MACHINE, NOW) == 1
            end_sessions()
            assert other.begin(trial, MACHINE, NOW) == 1
            store.add_epoch(trial, 1, epoch(trial, 1))
        other.add_epoch(trial, 1, epoch(trial, 1))
        assert [len(result.epochs) for result in store.results(study)] == [1]


def test_a_server_that_stays_away_is_an_error_in_one_line(line, make_study):
    study = make_study()
    with SQLStore(line.place, patience=0.3) as store:
        store.add_study(study, plan(study), NOW)
        line.close()
        line.dies = "before"
        with pytest.raises(StoreError, match=r"^the store postgresql://\S+ can't be written: [^\n]*$"):
            store.begin(plan(study)[0], MACHINE, NOW)
        with pytest.raises(StoreError, match=r"^the store postgresql://\S+ can't be read: [^\n]*$"):
            store.results(study)


def test_writers_of_one_trial_wait_for_each_other_and_none_is_late(postgresql, make_study):
    """An attempt that was checked must not be superseded before what was checked for is written."""
    study = make_study()
    trial = plan(study)[0]
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other, ThreadPoolExecutor(1) as pool:
        store.add_study(study, plan(study), NOW)
        store.begin(trial, MACHINE, NOW)
        with store.together():
            store.add_epoch(trial, 1, epoch(trial, 1))
            beginning = pool.submit(other.begin, trial, MACHINE, NOW)
            wait_for_a_waiter(postgresql)
            assert not beginning.done()
            store.end(trial, 1, Outcome.FINISHED, "", NOW)
        assert beginning.result() == 2
        with pytest.raises(StoreError, match="was begun again by another run"):
            store.end(trial, 1, Outcome.FINISHED, "", NOW)


def wait_for_a_waiter(place):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(place, autocommit=True) as connection:
        while connection.execute(waiting).fetchone() == (0,):
            time.sleep(0.01)


def test_a_deadlock_is_tried_again(postgresql, make_study):
    """Two runs take the same trials in opposite order: the server ends one transaction, which is then made again."""
    study = make_study()
    first, second = plan(study)[:2]
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other, ThreadPoolExecutor(1) as pool:
        store.add_study(study, plan(study), NOW)
        begun = threading.Event()

        def backwards():
            with other.together():
                other.begin(second, MACHINE, NOW)
                begun.set()
                wait_for_a_waiter(postgresql)
                other.begin(first, MACHINE, NOW)

        running = pool.submit(backwards)
        begun.wait()
        failures = []
        try:
            with store.together():
                store.begin(first, MACHINE, NOW)
                store.begin(second, MACHINE, NOW)
        except StoreError as error:
            failures.append(error)
        if running.exception() is not None:
            failures.append(running.exception())
        # Both are kept, or the one that was ended finds its first trial begun by the other, and gives way.
        assert all("gives way" in str(failure) for failure in failures)
        assert len(failures) <= 1
        assert [result.outcome for result in store.results(study)] == [None, None]


def test_a_table_that_another_holds_is_an_error_in_one_line(postgresql, make_study):
    study = make_study()
    with SQLStore(postgresql, patience=0.2) as store:
        store.add_study(study, plan(study), NOW)
        with psycopg.connect(postgresql) as holder:
            holder.execute("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(
                StoreError, match=r"can't be written: another process has held it for more than 0\.2 s \(canceling"
            ):
                store.begin(plan(study)[0], MACHINE, NOW)
        assert store.begin(plan(study)[0], MACHINE, NOW) == 1


def test_writers_leave_no_rows_behind(postgresql, make_study):
    with SQLStore(postgresql) as store:
        store.add_study(make_study(), plan(make_study()), NOW)
        with psycopg.connect(postgresql, autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM fairtrial_writers").fetchone() == (1,)
            connection.execute("INSERT INTO fairtrial_writers VALUES ('killed long ago', 7, '2001-01-01')")
            connection.execute("INSERT INTO fairtrial_writers VALUES ('another', 7, now())")
    with psycopg.connect(postgresql) as connection:
        assert connection.execute("SELECT writer FROM fairtrial_writers").fetchall() == [("another",)]


def test_two_processes_may_make_the_tables_at_once(postgresql):
    def make(_):
        with SQLStore(postgresql) as store:
            return store.studies()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [[]] * 4


@pytest.fixture
def secured(postgresql):
    """Name a database by a URL that holds a password; the server, which trusts everybody here, does not ask for it."""
    url = make_url(postgresql).set(password="s3cret")
    return url.render_as_string(hide_password=False)


LOOKING = """
import os
from pathlib import Path

def train(trial):
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    own = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
    told = own + repr(dict(os.environ)).encode()
    yield {"here": float(b"s3cret" in told), "test_acc": 0.5}
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["option", "environment"])
def test_workers_are_not_told_the_password_and_nothing_prints_it(secured, how, make_study, monkeypatch, capsys):
    from fairtrial.cli import main as cli

    study = make_study(seeds=1, training={"epochs": 1, "loop": "looking:train"})
    Path("small.toml").write_text(study.to_toml())
    Path("looking.py").write_text(LOOKING)
    words = ["--store", secured] if how == "option" else []

    def fairtrial(*more):
        monkeypatch.setattr(sys, "argv", ["fairtrial", *more, *words])
        if how == "environment":
            monkeypatch.setenv("FAIRTRIAL_STORE", secured)
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert "s3cret" not in out + err
        return end.value.code or 0

    assert fairtrial("run", "small.toml", "--workers", "1") == 0
    for command in ("table", "plan", "export", "verdict"):
        assert fairtrial(command, "small.toml") == 0
    assert fairtrial("ls") == 0
    with SQLStore(secured) as store:
        results = store.results(study)
    assert [result.epochs[0].metrics["here"] for result in results] == [0.0, 0.0]
