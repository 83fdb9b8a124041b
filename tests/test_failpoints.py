"""Nothing is lost and nothing counts twice, wherever a process is killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fairtrial.failpoints import POINTS, failpoint
from fairtrial.spec import Study
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome

pytestmark = pytest.mark.slow

PATIENCE = 600  # seconds after which a test gives up; nothing waits that long unless it is broken
NEVER = 1_000_000
EPOCHS = 2
EVERY_HIT = bool(os.environ.get("EVERY_HIT"))  # takes some minutes: else the first hits, one in the middle and the last
SCRIPT = """
import fairtrial
import fairtrial.runner
import loops
from fairtrial.executors.base import Workload

def compose(study, trials, checkpoints, on_download, on_progress, *, elsewhere):  # torch takes seconds to load
    return Workload(loops.keeping, loops.machine, tuple(trials), checkpoints)

fairtrial.runner.compose_workload = compose
with fairtrial.SQLStore("fairtrial.db") as store:
    executor = fairtrial.LocalExecutor(2, checkpoints="kept")
    fairtrial.runner.run_study(fairtrial.load("small.toml"), store=store, executor=executor)
"""


def a_study(**params):
    """Two arms, two seeds, two epochs; each trial saves four times."""
    return Study.from_dict(
        {
            "name": "small",
            "reference": "a",
            "seeds": 2,
            "training": {"epochs": EPOCHS, "loop": "loops:keeping", "checkpoint_seconds": 0},
            "arms": {"a": {"params": params}, "b": {"params": params | {"pace": 2}}},
        }
    )


def start(folder, study, **environment):
    """Start the study in a folder, or go on with it."""
    folder.mkdir(exist_ok=True)
    (folder / "small.toml").write_text(study.to_toml())
    (folder / "script.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "script.py"]
    return subprocess.Popen(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": paths} | environment, stderr=subprocess.PIPE
    )


def finish(process):
    """Wait for a process, and give its status; it has nothing to complain of."""
    with process:
        _, err = process.communicate(timeout=PATIENCE)
    assert err == b""
    return process.returncode


def outcome(folder, study):
    """Give the study's digest, once each of its trials has one whole result and nothing else is left of any."""
    from fairtrial import digest_results

    with SQLStore(str(folder / "fairtrial.db"), create=False) as store:
        results = store.results(study)
    assert [(result.arm, result.seed) for result in results] == [(arm, seed) for seed in (0, 1) for arm in ("a", "b")]
    for result in results:
        assert result.outcome is Outcome.FINISHED
        assert [record.epoch for record in result.epochs] == [*range(1, EPOCHS + 1)]
        assert result.fingerprints.keys() == {"initial_weights", "final_weights"}
    assert list((folder / "kept").iterdir()) == []
    return digest_results(results)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The digests of studies that nothing has disturbed."""
    digests = {}

    def digest(study):
        if study.hash not in digests:
            folder = tmp_path_factory.mktemp("undisturbed") / "study"
            assert finish(start(folder, study)) == 0
            digests[study.hash] = outcome(folder, study)
        return digests[study.hash]

    return digest


def run_with_death(folder, study, place, number):
    """Run a study, a process of which dies at one hit of a place; go on if it was the parent; tell how many hits."""
    hits = folder.parent / f"{folder.name}.hits"
    hits.touch()
    status = finish(start(folder, study, FAIRTRIAL_FAILPOINT=f"{place}:{number}", FAIRTRIAL_FAILPOINT_HITS=str(hits)))
    reached = hits.stat().st_size
    assert status == (-signal.SIGKILL if place.startswith("runner.") and reached >= number else 0)
    if status:
        assert finish(start(folder, study)) == 0
    return reached


@pytest.mark.parametrize("place", POINTS)
def test_a_death_changes_no_result(tmp_path, place, undisturbed):
    study = a_study()
    whole = run_with_death(tmp_path / "whole", study, place, NEVER)
    assert whole >= 1
    last = whole if whole <= 6 else whole - whole % 2
    fired = 0
    for number in range(1, NEVER) if EVERY_HIT else sorted({1, min(2, whole), max(1, whole // 2), last}):
        folder = tmp_path / str(number)
        fires = run_with_death(folder, study, place, number) >= number
        assert outcome(folder, study) == undisturbed(study)
        fired += fires
        if EVERY_HIT and not fires:
            break
    # How often the parent writes depends on what has come in at once, so a later hit may have none in its run.
    assert fired >= (1 if place.startswith("runner.") else min(3, whole))


TRAINING = """
name = "real"
reference = "a"
[data]
name = "digits"
train = 64
test = 40
[model]
width = 0.5
[training]
epochs = 2
batch_size = 16
checkpoint_seconds = 0
[arms.a]
[arms.b]
optimizer.betas = [0.9, 0.99]
"""


def test_real_training_ends_in_the_same_weights_after_deaths_of_worker_and_parent(tmp_path):
    """By the command line: a worker dies once a state is saved, then the parent with records in hand."""
    (tmp_path / "real.toml").write_text(TRAINING)
    study = Study.from_toml(TRAINING)

    def run(store, **environment):
        command = [sys.executable, "-m", "fairtrial", "run", "real.toml", "--store", store, "--workers", "1"]
        done = subprocess.run(
            command, cwd=tmp_path, check=False, timeout=PATIENCE, capture_output=True, env=os.environ | environment
        )
        assert b"Traceback" not in done.stderr
        return done.returncode

    def digest(store):
        from fairtrial import digest_results

        with SQLStore(str(tmp_path / store), create=False) as opened:
            results = opened.results(study)
        assert [result.outcome for result in results] == [Outcome.FINISHED] * 2
        assert all("final_weights" in result.fingerprints for result in results)
        return digest_results(results)

    assert run("whole.db") == 0
    (tmp_path / "hits").touch()
    shared = {"FAIRTRIAL_FAILPOINT_HITS": str(tmp_path / "hits")}
    assert run("worker.db", FAIRTRIAL_FAILPOINT="checkpoint.manifest_renamed:1", **shared) == 0
    assert (
        tmp_path / "hits"
    ).stat().st_size == 2  # each arm saved once: the one that died did not train that epoch again
    assert run("parent.db", FAIRTRIAL_FAILPOINT="runner.uncommitted:3") == -signal.SIGKILL
    assert run("parent.db") == 0
    assert digest("worker.db") == digest("parent.db") == digest("whole.db")


def test_kills_at_any_moment_change_no_result(tmp_path, undisturbed):
    study = a_study(sleep=0.03)
    expected, dice, killed = undisturbed(study), random.Random(20), 0
    for number in range(10):
        folder = tmp_path / str(number)
        killed += kill_after(start(folder, study), folder, dice.uniform(0, 0.6))
        assert finish(start(folder, study)) == 0
        assert outcome(folder, study) == expected
    assert killed >= 5


def test_a_study_that_is_killed_again_and_again_comes_to_its_end(tmp_path, undisturbed):
    study = a_study(sleep=0.08)
    folder, dice = tmp_path / "study", random.Random(30)
    killed = [kill_after(start(folder, study), folder, dice.uniform(0.1, 0.4)) for _ in range(5)]
    assert sum(killed) >= 3
    assert finish(start(folder, study)) == 0
    assert outcome(folder, study) == undisturbed(study)


def kill_after(process, folder, seconds):
    """Kill a process some time after its database is there; tell whether it was alive."""
    deadline = time.monotonic() + PATIENCE
    while not (folder / "fairtrial.db").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    return finish(process) == -signal.SIGKILL


def test_places_are_passed_without_a_trace_unless_a_test_wants_one(monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *args: pytest.fail("nobody wanted that"))
    failpoint(POINTS[0])
    monkeypatch.setenv("FAIRTRIAL_FAILPOINT", f"{POINTS[0]}:2")
    failpoint(POINTS[1])
    failpoint(POINTS[0])
    assert not list(Path().iterdir())
