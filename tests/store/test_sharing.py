"""Runs of studies that share trials, side by side in one store: nothing is trained twice, and nobody fails."""

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import loops
from fairtrial import digest_results
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome
from workloads import inline, run

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def study(name, own):
    """Two seeds of an arm that others share, and of one that they don't."""
    arms = {"shared": {"params": {"sleep": 0.01}}, "own": {"params": {"sleep": 0.01, "pace": own}}}
    training = {"epochs": 3, "loop": "loops:keeping_until_go"}
    return Study.from_dict({"name": name, "reference": "shared", "seeds": 3, "training": training, "arms": arms})


FIRST, SECOND = study("first", 2), study("second", 3)
SHARED = {trial.hash for trial in plan(FIRST)} & {trial.hash for trial in plan(SECOND)}


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request):
    return "s.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")


def test_trials_are_left_to_the_living_run_that_was_added_first(place):
    assert len(SHARED) == 3
    with SQLStore(place) as store, SQLStore(place) as other:
        with store.lock(FIRST), other.lock(SECOND):
            store.add_study(FIRST, NOW)
            other.add_study(SECOND, NOW - timedelta(hours=1))  # by a clock that is late
            assert other.trained_elsewhere(SECOND) == dict.fromkeys(SHARED, FIRST.label)
            assert store.trained_elsewhere(FIRST) == {}
        assert other.trained_elsewhere(SECOND) == {}
        with store.lock(FIRST), other.lock(SECOND):
            assert other.trained_elsewhere(SECOND) == dict.fromkeys(SHARED, FIRST.label)
            store.add_study(FIRST, NOW)  # it runs again, after the other
            assert other.trained_elsewhere(SECOND) == {}
            assert store.trained_elsewhere(FIRST) == dict.fromkeys(SHARED, SECOND.label)


def test_a_lock_can_be_taken_while_others_look_at_it(place):
    """A look must not turn a run away that is just about to begin."""
    done = threading.Event()

    def look():
        with SQLStore(place) as other, other.lock(SECOND):
            other.add_study(SECOND, NOW)
            while not done.is_set():
                other.trained_elsewhere(SECOND)

    with SQLStore(place) as store:
        store.add_study(FIRST, NOW)
        looking = [threading.Thread(target=look)]
        looking[0].start()
        try:
            for _ in range(50):
                with store.lock(FIRST):
                    pass
        finally:
            done.set()
            looking[0].join()


SCRIPT = """
import sys
import fairtrial
import fairtrial.runner
import loops
from fairtrial.callbacks import Callback
from fairtrial.executors.base import Workload

def compose(study, trials, checkpoints, on_download, on_progress, *, elsewhere):  # torch takes seconds to load
    return Workload(loops.keeping_until_go, loops.machine, tuple(trials), checkpoints)

class Telling(Callback):
    def on_trial_start(self, trial, machine):
        print("started", flush=True)
    def on_warning(self, trial, text):
        if trial is None:
            print("waits", flush=True)

fairtrial.runner.compose_workload = compose
with fairtrial.SQLStore(sys.argv[2]) as store:
    fairtrial.runner.run_study(
        fairtrial.load(sys.argv[1]), store=store, executor=fairtrial.LocalExecutor(2), callbacks=[Telling()]
    )
"""


def start(one, place):
    """Run a study in a process of its own, which tells what happens."""
    Path("script.py").write_text(SCRIPT)
    Path(f"{one.name}.toml").write_text(one.to_toml())
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "script.py", f"{one.name}.toml", place]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """Wait for the end of a run, which has nothing to complain of."""
    with process:
        out, err = process.stdout.read(), process.stderr.read()  # what `readline` has read ahead is there, too
    assert (process.returncode, err) == (0, "")
    return out


def digest(one, place):
    with SQLStore(place, create=False) as store:
        results = store.results(one)
    assert [result.outcome for result in results] == [Outcome.FINISHED] * 6
    return digest_results(results)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The digests of both studies, each run alone."""
    digests = {}
    for one in (FIRST, SECOND):
        store = str(tmp_path_factory.mktemp("alone") / "s.db")
        with SQLStore(store) as opened:
            run(one, store=opened, executor=inline(loops.keeping))
        digests[one.name] = digest(one, store)
    return digests


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["", "first", "second"])
def test_runs_that_share_trials_both_end_as_alone_even_if_one_is_killed(place, killed, alone):
    first = start(FIRST, place)
    assert first.stdout.readline() == "started\n"
    second = start(SECOND, place)
    while second.stdout.readline() != "waits\n":
        assert second.poll() is None, second.stderr.read()
    if killed:
        victim = first if killed == "first" else second
        victim.kill()
        victim.communicate(timeout=120)
    Path("go").touch()
    if killed != "first":
        assert finish(first).count("started") == 5
    if killed != "second":
        trained = finish(second).count("started")
        assert trained > 3 if killed else trained == 3
    for one in (FIRST, SECOND):
        finish(start(one, place))
        assert digest(one, place) == alone[one.name]


@pytest.mark.slow
def test_runs_that_begin_at_once_train_nothing_twice(place, alone):
    Path("go").touch()
    both = [start(one, place) for one in (FIRST, SECOND)]
    assert sum(finish(process).count("started") for process in both) == 9
    assert {one.name: digest(one, place) for one in (FIRST, SECOND)} == alone
