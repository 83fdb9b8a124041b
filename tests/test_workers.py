"""The conductor and the command line with workers: the default on one machine."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import loops
from fairtrial import digest_results
from fairtrial.callbacks import Callback
from fairtrial.cli import main as cli
from fairtrial.errors import FairtrialError, StudyError
from fairtrial.executors.base import EpochFinished
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.local.process import WorkerProcess
from fairtrial.executors.slots import Slots
from fairtrial.report.live import ProgressDisplay
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.testing import Instead
from fairtrial.trial import EpochRecord, Machine, Outcome
from workloads import inline, patient, run

MACHINE = Machine({}, "a processor", "cpu", 1, "system")


@pytest.fixture
def store():
    with SQLStore("fairtrial.db") as opened:
        yield opened


class Staff(Callback):
    def __init__(self):
        self.slots = []

    def on_workers(self, slots):
        self.slots.append(slots)


@pytest.mark.slow
def test_by_default_trials_run_in_workers_with_one_thread(store, make_study, monkeypatch):
    monkeypatch.setattr("fairtrial.executors.slots.usable_cores", lambda: 2)
    staff = Staff()
    done = run(make_study(), store=store, watcher=staff)
    assert staff.slots == [Slots(2, 1, 2)]
    assert done.count(Outcome.FINISHED) == 4
    assert {result.machine.threads for result in done.results} == {1}
    with SQLStore("other.db") as other:
        reference = run(make_study(), store=other, executor=inline(loops.good))
    assert [result.epochs for result in done.results] == [result.epochs for result in reference.results]


def settled_at_two(study, results):
    """Settle arm b by two seeds, c by none."""
    return {"b": "enough"} if max(result.seed for result in results) == 1 else {}


@pytest.mark.slow
def test_a_sequential_study_trains_the_same_with_any_number_of_workers(make_study):
    arms = {"a": {}, "b": {"params": {"pace": 2}}, "c": {"params": {"pace": 3}}}
    study = make_study(arms=arms, seeds={"min": 1, "max": 4}, training={"epochs": 3, "loop": "loops:telling"})
    told = []
    for workers in (1, 2, 3):
        with SQLStore(f"{workers}.db") as store:
            done = run(study, store=store, executor=LocalExecutor(workers), settled=settled_at_two)
        told.append([(result.trial, result.epochs, result.fingerprints) for result in done.results])
    assert told[0] == told[1] == told[2]
    assert [len(told[0]), done.trained] == [4 + 2 + 4, 10]


@pytest.mark.slow
def test_every_end_comes_out_of_workers_as_it_does_inline(store, mixed_study):
    done = run(mixed_study, store=store, executor=LocalExecutor(2, 2))
    assert {result.arm: result.outcome.value for result in done.results} == {
        "well": "finished",
        "nan": "diverged",
        "inf": "diverged",
        "says_so": "diverged",
        "raises": "failed",
        "no_record": "failed",
        "empty": "failed",
        "too_many": "failed",
    }
    assert {result.machine.threads for result in done.results} == {2}


ENDS = {
    "well": ("finished", ""),
    "raises": ("failed", "RuntimeError: boom"),
    "segfault": ("failed", "worker killed by signal 11 (SIGSEGV); native code has crashed"),
    "exit": ("failed", "worker exited with status 0 before it finished"),
    "much_memory": ("failed", "memory limit of 4.0 GiB reached"),
    "torch_tensors": ("failed", "memory limit of 4.0 GiB reached"),
    "nan": ("diverged", "train_loss is nan after epoch 2"),
    "loop": ("failed", "time limit of 10 s exceeded in epoch 2"),
}


@pytest.mark.slow
def test_every_end_says_plainly_what_it_was(store, make_study):
    arms = {end: {"params": {"end": end.replace("_", " ")}} for end in ENDS}
    study = make_study(arms=arms, reference="well", seeds=1, training={"epochs": 3, "loop": "loops:ending"})
    done = run(study, store=store, executor=LocalExecutor(2, time_limit=10, memory_limit=4 << 30))
    seen = {result.arm: (result.outcome.value, result.detail.partition("\n")[0]) for result in done.results}
    assert seen == ENDS
    assert {result.arm: len(result.epochs) for result in done.results} == dict.fromkeys(ENDS, 1) | {"well": 3}


@pytest.mark.slow
def test_what_a_given_up_worker_says_later_never_reaches_the_store(store, make_study, monkeypatch):
    """As if it could not be killed: stopped past its time, its trial retried elsewhere, then continued."""
    given_up, close = [], WorkerProcess.close

    def let_live(worker):
        given_up.append(worker)

    monkeypatch.setattr(WorkerProcess, "close", let_live)

    class Reviving(Callback):
        begun = 0

        def on_trial_start(self, trial, machine):
            self.begun += trial.arm == "bad"
            if self.begun == 2 and trial.arm == "bad":
                os.kill(given_up[0]._process.pid, signal.SIGCONT)
                assert given_up[0].connection.poll(60)  # it has spoken before its successor's first record is read

    arms = {"a": {}, "bad": {"params": {"end": "stop", "times": 1}}}
    study = make_study(seeds=1, arms=arms, training={"epochs": 3, "loop": "loops:dying"})
    watcher = Reviving()
    executor = Instead(patient(LocalExecutor(2)), loop=loops.dying, machine=loops.machine, set_up=None)
    done = run(study, store=store, executor=executor, watcher=watcher)
    while (late := given_up[0].connection.recv()) is None:
        pass
    for worker in given_up:
        close(worker)
    assert watcher.begun == 2
    assert isinstance(late, EpochFinished)
    assert [[record.epoch for record in result.epochs] for result in done.results] == [[1, 2, 3]] * 2
    with SQLStore("other.db") as other:
        reference = run(study, store=other, executor=inline(loops.dying))  # nobody stops now
    assert digest_results(done.results) == digest_results(reference.results)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--time-limit", "soon"], "'soon' is not a duration such as 90s, 30m or 2h"),
        (["--memory-limit", "2 elephants"], "'2 elephants' is not a size such as 2GiB or 800MB"),
    ],
)
def test_limits_that_cannot_be_read_are_refused(make_study, monkeypatch, capsys, words, wrong):
    Path("small.toml").write_text(make_study(seeds=1).to_toml())
    monkeypatch.setattr(sys, "argv", ["fairtrial", "run", "small.toml", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == f"fairtrial: Invalid value for '{words[0]}': {wrong} (see fairtrial --help)\n"


def test_numbers_are_refused_before_anything_else():
    for wrong in ({"workers": 0}, {"threads": -1}, {"memory_limit": 0}):
        with pytest.raises(
            FairtrialError, match=r"^(workers|threads|memory_limit) = .*: must be an integer of at least 1$"
        ):
            LocalExecutor(**wrong)
    with pytest.raises(FairtrialError, match=r"^time_limit = 0: must be a positive number of seconds$"):
        LocalExecutor(time_limit=0)


def test_a_loop_in_the_script_is_refused(store, make_study):
    study = make_study(training={"loop": "__main__:train"})
    with pytest.raises(StudyError, match=r'^training.loop = "__main__:train": '):
        run(study, store=store)
    assert store.studies() == []


@pytest.mark.slow
def test_the_command_line_refuses_none_and_takes_one(make_study, monkeypatch, capsys):
    Path("small.toml").write_text(make_study(seeds=1).to_toml())
    for words, status in ((["--workers", "0"], 2), (["--threads", "-1"], 2), (["--workers", "1", "--threads", "1"], 0)):
        monkeypatch.setattr(sys, "argv", ["fairtrial", "run", "small.toml", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code or 0) == status
        err = capsys.readouterr().err
        if status:
            assert err.count("\n") == 1
            assert err.startswith(f"fairtrial: Invalid value for '{words[0]}': ")
        else:
            assert ", 1 worker with 1 thread each\n" in err


SCRIPT = """
import fairtrial

print("begun")
done = fairtrial.run(fairtrial.load("small.toml"), executor=fairtrial.LocalExecutor(workers=2))
print(done.trained, done.count(fairtrial.Outcome.FINISHED))
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs(make_study):
    Path("small.toml").write_text(make_study(training={"loop": "own:train", "epochs": 1}).to_toml())
    Path("own.py").write_text("def train(trial):\n    yield {'test_acc': trial.seed / 2}\n")
    Path("script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.stderr, done.stdout) == ("", "begun\n4 4\n")


def shown(terminal=False):
    """Make a watcher and the console that it shows things on."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, height=20)
    return console, ProgressDisplay(console)


@pytest.mark.parametrize(
    ("slots", "line"),
    [
        (Slots(2, 1, 2), "on a processor, 2 workers with 1 thread each"),
        (Slots(1, 4, 4), "on a processor, 1 worker with 4 threads each"),
        (Slots(4, 1, 2), "on a processor, 4 workers with 1 thread each, more than its 2 cores can run at once"),
        (None, "on a processor, 1 thread"),
    ],
)
def test_it_is_said_what_trials_have_to_themselves(make_study, slots, line):
    console, watcher = shown()
    study = make_study()
    with watcher:
        watcher.on_plan(study, plan(study), plan(study))
        if slots:
            watcher.on_workers(slots)
        for trial in plan(study)[:2]:
            watcher.on_trial_start(trial, MACHINE)
    assert console.file.getvalue().splitlines()[1:] == [line]


def test_every_running_trial_has_a_row(make_study):
    _, watcher = shown(terminal=True)
    study = make_study()
    first, second, *_ = plan(study)
    with watcher:
        watcher.on_plan(study, plan(study), plan(study))
        watcher.on_workers(Slots(2, 1, 2))
        for trial, acc in ((first, 0.25), (second, 0.75)):
            watcher.on_trial_start(trial, MACHINE)
            watcher.on_progress(trial, 3, 4, {"train_acc": acc})
        rows = [(str(task.description), task.completed, task.fields["note"]) for task in watcher._progress.tasks]
        watcher.on_trial_end(first, Outcome.FINISHED, "")
        left = [str(task.description) for task in watcher._progress.tasks]
    assert rows[0][:2] == ("study", pytest.approx(2 * 0.75 / 12))
    assert rows[1:] == [
        ("trial 1/4 a seed 0", 0.75, "epoch 1/3  batch 3/4  training 25.0%"),
        ("trial 2/4 b seed 0", 0.75, "epoch 1/3  batch 3/4  training 75.0%"),
    ]
    assert left == ["study", "trial 2/4 b seed 0"]


def test_a_trial_that_begins_again_is_told_and_has_one_row(make_study):
    console, watcher = shown(terminal=True)
    study = make_study()
    trial = plan(study)[0]
    with watcher:
        watcher.on_plan(study, plan(study), plan(study))
        watcher.on_trial_start(trial, MACHINE)
        watcher.on_epoch(trial, EpochRecord("a", 0, 1, {}))
        watcher.on_trial_start(trial, MACHINE)
        rows = [(str(task.description), task.completed) for task in watcher._progress.tasks]
    assert rows[1:] == [("trial 1/4 a seed 0", 0)]
    assert "trial 1/4 a seed 0: worker died; restarting the trial" in console.file.getvalue()


def test_a_sequential_study_says_why_arms_stop_and_counts_on_less(make_study):
    console, watcher = shown()
    study = make_study(seeds={"min": 1, "max": 3})
    with watcher:
        watcher.on_plan(study, plan(study), plan(study))
        for trial in plan(study)[:2]:
            watcher.on_trial_start(trial, MACHINE)
            watcher.on_trial_end(trial, Outcome.FINISHED, "")
        before = watcher._forecast.fraction
        watcher.on_arm_stopped(study, "b", 1, "its verdict is settled")
        some = watcher._forecast.fraction
        watcher.on_arm_stopped(study, "a", 1, "no arm is left to compare with")
        assert (before, some, watcher._forecast.fraction) == (pytest.approx(2 / 6), pytest.approx(2 / 4), 1.0)
    first, _, *last = console.file.getvalue().splitlines()
    assert first == f"{study.label}: 2 arms, 1 to 3 seeds, at most 6 trials"
    assert last == [
        "b: stopped after 1 seed, its verdict is settled",
        "a: stopped after 1 seed, no arm is left to compare with",
    ]
