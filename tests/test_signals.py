"""Ctrl-C, SIGTERM and SIGHUP: how the command line answers them, in every state that it can be in."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairtrial import signals
from fairtrial.checkpoints import CheckpointManager
from fairtrial.digests import digest_results
from fairtrial.errors import Terminated
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.store.writer import SQLWriter
from fairtrial.trial import Outcome

PATIENCE = 120  # seconds after which a test gives up; nothing waits that long unless it is broken
LONG = {"checkpoint_seconds": 0, "epochs": 4, "loop": "mine:train"}
MINE = """
import os, time
from pathlib import Path
import loops

Path(f"here-{os.getpid()}").touch()
while Path("wait-at-import").exists():
    time.sleep(0.05)

def train(trial):
    while Path("never-save").exists():
        yield {"train_loss": 1.0, "test_acc": 0.5}
        Path("busy").touch()
        while True:
            time.sleep(0.05)
    yield from loops.keeping_a_diary(trial)
"""


@pytest.fixture
def study(make_study):
    """A study of one trial that takes long, and waits for files to go away."""
    made = make_study(seeds=1, arms={"a": {"params": {"sleep": 0.05}}}, training=LONG)
    Path("slow.toml").write_text(made.to_toml())
    Path("mine.py").write_text(MINE)
    return made


@pytest.fixture
def start():
    """Start the command line in a process of its own; it is killed in the end."""
    processes = []

    def begin():
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "fairtrial", "run", "slow.toml", "--workers", "1", "--time-limit", "1h"]
        processes.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": paths},
            )
        )
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ours():
    """The processes that have loaded the training loop and still run."""
    pids = [int(path.name.removeprefix("here-")) for path in Path().glob("here-*")]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in state(pid)]


def state(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


GO_ON = """interrupted; every finished epoch is in fairtrial.db. To resume:
  fairtrial run slow.toml --workers 1 --time-limit 1h
"""
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_a_study_that_is_stopped_saves_its_state_and_says_how_to_go_on(study, start, number):
    process = start()
    until(lambda: any(Path("fairtrial.db.checkpoints").glob("*/*.json")))
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err[-len(GO_ON) :]) == (STATUS[number], GO_ON)
    assert "Traceback" not in err
    assert Path("diary").read_text() == "Stopped"
    assert ours() == []
    with SQLStore("fairtrial.db") as store:
        (before,) = store.results(study)
        assert before.outcome is None
        saved = CheckpointManager("fairtrial.db.checkpoints").open(plan(study)[0])
        saved.load()
        assert len(saved.records) >= len(before.epochs)
        assert start().wait(PATIENCE) == 0
        resumed = digest_results(store.results(study))
    Path("fairtrial.db").rename("first.db")
    assert start().wait(PATIENCE) == 0
    with SQLStore("fairtrial.db") as store:
        assert digest_results(store.results(study)) == resumed


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2], ids=["while all is checked", "while workers start"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_study_that_has_hardly_begun_ends_as_well(study, start, number, processes):
    if processes == 1:
        Path("wait-at-import").touch()
    process = start()
    until(lambda: len(ours()) == 1)
    if processes == 2:
        Path("wait-at-import").touch()  # the worker's import of the same module
        until(lambda: len(ours()) == 2)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err[-len(GO_ON) :]) == (STATUS[number], GO_ON)
    assert "Traceback" not in err
    assert ours() == []


@pytest.mark.slow
def test_a_second_signal_ends_at_once(study, start):
    Path("never-save").touch()
    process = start()
    until(Path("busy").exists)
    for pid in ours():
        if pid != process.pid:
            os.kill(pid, signal.SIGSTOP)  # it will not end by itself
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143
    assert "To go on" not in err
    until(lambda: ours() == [])


@pytest.fixture
def answered():
    """Answer signals as the command line does, and as before in the end."""
    before = {number: signal.getsignal(number) for number in signals.ENDING}
    signals.install_handlers()
    yield
    signals._received.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_become_exceptions(answered):
    with pytest.raises(KeyboardInterrupt) as interrupted:
        signal.raise_signal(signal.SIGINT)
    assert signals.exit_status(interrupted.value) == 130


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_that_are_not_ctrl_c_terminate(answered, number, status):
    with pytest.raises(Terminated, match=number.name) as terminated:
        signal.raise_signal(number)
    assert signals.exit_status(terminated.value) == status


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    kept = {number: signal.getsignal(number) for number in signals.ENDING}
    try:
        signals.install_handlers()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGHUP, before)


def test_a_signal_waits_for_what_must_not_be_torn_apart(answered):
    done = []
    terminated = pytest.raises(Terminated)
    with terminated, signals.delayed():
        signal.raise_signal(signal.SIGTERM)
        done.append(1)
    assert done == [1]
    assert signal.getsignal(signal.SIGTERM) is signals._handle


def test_a_second_signal_does_not_wait(answered, monkeypatch):
    ends = []
    monkeypatch.setattr(signals, "_end_at_once", ends.append)
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, signals.delayed():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert ends == [signal.SIGTERM]


def test_without_the_command_line_ctrl_c_waits_too_but_not_twice():
    done = []
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, signals.delayed():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)
    assert done == [1]


def test_a_commit_is_not_torn_apart(make_study, answered, monkeypatch):
    """A signal that comes while records are written is answered when they are."""
    import loops
    from workloads import inline, run

    def interrupted(writer, trial, attempt, record):
        if record.epoch == 1:  # a second signal would not wait
            signal.raise_signal(signal.SIGTERM)
        add_epoch(writer, trial, attempt, record)

    add_epoch = SQLWriter.add_epoch
    monkeypatch.setattr(SQLWriter, "add_epoch", interrupted)
    study = make_study()
    with SQLStore("fairtrial.db") as store:
        with pytest.raises(Terminated):
            run(study, store=store, executor=inline(loops.good))
        (result,) = store.results(study)
    assert [record.epoch for record in result.epochs] == [1, 2, 3]  # epochs that take no time are written together
    assert result.outcome is Outcome.FINISHED
