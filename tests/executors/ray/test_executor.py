"""Trials as tasks of a Ray on this machine: what they see, how they die, and what is refused."""

import os
import sys
from functools import partial
from pathlib import Path
from time import monotonic, sleep

import pytest

import fairtrial
import loops
from fairtrial.checkpoints import CheckpointManager
from fairtrial.cli import main as cli
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, EpochFinished, Started
from fairtrial.executors.ray.executor import RayExecutor
from fairtrial.scheduler import plan
from fairtrial.trial import Outcome
from workloads import arm, execute, opened, patient, submit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("local_ray")]

PATIENCE = 60  # seconds after which a test gives up; nothing waits that long unless it is broken
RayOfTwo = partial(RayExecutor, workers=2)


def metrics(messages, name):
    return [message.record.metrics[name] for message in messages if isinstance(message, EpochFinished)]


def story(messages, name):
    """What one trial has told: a number for each epoch, else the kind of message."""
    ours = [message for message in messages if arm(message) == name]
    return [message.record.epoch if isinstance(message, EpochFinished) else type(message).__name__ for message in ours]


@pytest.fixture
def trials(make_study):
    """Two good arms about one that ends a process."""

    def make(loop, end):
        arms = {"a": {}, "bad": {"params": {"end": end}}, "b": {"params": {"pace": 2}}}
        training = {"epochs": 3, "loop": f"loops:{loop}", "checkpoint_seconds": 0}
        return plan(make_study(seeds=1, arms=arms, training=training))

    return make


@pytest.mark.parametrize("process", ["own", "parent"], ids=["worker", "Ray's own process"])
@pytest.mark.parametrize("keeps", [False, True], ids=["no checkpoints", "checkpoints"])
def test_a_death_begins_the_trial_again_from_its_checkpoint(trials, process, keeps, tmp_path):
    keep = CheckpointManager(str(tmp_path / "checkpoints")) if keeps else None
    messages = execute(RayOfTwo(), loops.dying_at_first, trials("dying_at_first", process), checkpoints=keep)
    assert story(messages, "bad") == ["Started", 1, "Started", 1, 2, 3, "Ended"]
    assert Path("bad0.begun").read_text().split() == ["0", "1" if keeps else "0"]
    assert story(messages, "a") == story(messages, "b") == ["Started", 1, 2, 3, "Ended"]
    assert {message.outcome for message in messages if isinstance(message, Ended)} == {Outcome.FINISHED}


@pytest.mark.parametrize(
    ("end", "what"),
    {
        "kill": "worker killed by signal 9 (SIGKILL); out of memory is the usual reason",
        "sys.exit": "worker exited with status 3 before it finished",
        "segfault": "worker killed by signal 11 (SIGSEGV); native code has crashed",
    }.items(),
)
def test_a_second_death_fails_the_trial_with_its_cause(trials, end, what):
    messages = execute(RayOfTwo(), loops.dying, trials("dying", end))
    assert story(messages, "bad") == ["Started", 1, "Started", 1, "Ended"]
    ends = {arm(message): message for message in messages if isinstance(message, Ended)}
    first = ends["bad"].detail.splitlines()[0].removesuffix("; no other trial ran beside it")
    assert (ends["bad"].outcome, first) == (Outcome.FAILED, what)
    assert ("in dying" in ends["bad"].detail) == (end == "segfault")
    assert ends["a"].outcome is ends["b"].outcome is Outcome.FINISHED


@pytest.mark.parametrize(
    ("end", "what", "attempts"),
    [
        ("loop", "time limit of 3 s exceeded in epoch 2", 1),
        ("much memory", "memory limit of 8.0 GiB reached", 2),
        ("exit", "worker exited with status 0 before it finished", 2),
    ],
)
def test_limits_hold_here_too(trials, end, what, attempts):
    messages = execute(RayOfTwo(time_limit=3, memory_limit=8 << 30), loops.dying, trials("dying", end))
    assert story(messages, "bad") == ["Started", 1] * attempts + ["Ended"]
    ends = {arm(message): message for message in messages if isinstance(message, Ended)}
    assert (ends["bad"].outcome, ends["bad"].detail.splitlines()[0]) == (Outcome.FAILED, what)
    assert ends["a"].outcome is ends["b"].outcome is Outcome.FINISHED


def test_a_stopped_worker_is_given_up_here_too(trials):
    messages = execute(patient(RayOfTwo()), loops.dying, trials("dying", "stop"))
    assert story(messages, "bad") == ["Started", 1, "Started", 1, "Ended"]
    ends = {arm(message): message for message in messages if isinstance(message, Ended)}
    assert (ends["bad"].outcome, ends["bad"].detail.splitlines()[0]) == (Outcome.FAILED, "worker was silent for 10 s")
    assert ends["a"].outcome is ends["b"].outcome is Outcome.FINISHED


def test_workers_that_never_begin_are_an_error(make_study):
    with pytest.raises(
        FairtrialError, match=r"^workers die before they can start a trial: worker exited with status 8"
    ):
        execute(RayOfTwo(), loops.good, plan(make_study()), machine=loops.machine_that_ends)


def test_what_a_worker_sees(make_study):
    messages = execute(RayOfTwo(threads=1), loops.looking_around, plan(make_study(seeds=4)), set_up=loops.set_up)
    assert len(metrics(messages, "pid")) == 8
    assert len(set(metrics(messages, "pid"))) <= 2
    assert os.getpid() not in metrics(messages, "pid")
    assert set(metrics(messages, "threads")) == {1}
    assert set(metrics(messages, "set_ups")) == {1}
    assert set(metrics(messages, "inherited")) == {0}
    assert min(metrics(messages, "oom_score") + metrics(messages, "oom_score_of_child")) >= 500


def test_a_loop_beside_the_study_is_found(make_study, tmp_path, monkeypatch):
    (tmp_path / "beside.py").write_text("from loops import good as mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    import beside

    (end,) = [m for m in execute(RayOfTwo(), beside.mine, plan(make_study())[:1]) if isinstance(m, Ended)]
    assert end.outcome is Outcome.FINISHED


def test_a_loop_that_ignores_requests_is_killed(make_study):
    trial, *_ = plan(make_study())
    file = Path(f"{trial.arm}{trial.seed}")
    with opened(RayOfTwo(), loops.stubborn) as session:
        submit(session, trial)
        messages = session.messages()
        while not file.exists():
            next(messages)
    size = file.stat().st_size
    sleep(0.3)
    assert file.stat().st_size == size > 0


def test_another_version_on_a_node_is_refused(make_study, monkeypatch):
    ours = fairtrial.__version__
    monkeypatch.setattr(fairtrial, "__version__", "99.9")
    with pytest.raises(
        FairtrialError, match=rf"^node \S+ has fairtrial {ours}, but this machine has 99\.9: install"
    ) as caught:
        execute(RayOfTwo(), loops.good, plan(make_study()))
    assert "\n" not in str(caught.value)


def test_more_than_a_node_has_is_refused_in_time(make_study, monkeypatch):
    monkeypatch.setattr("fairtrial.executors.ray.session.SECONDS_WITHOUT_NODES", 1.0)
    with pytest.raises(FairtrialError, match=r"^the Ray cluster has no node with 64 cores$"):
        execute(RayOfTwo(threads=64), loops.good, plan(make_study()))


def test_a_missing_ray_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FairtrialError, match=r'^Ray is not installed; install it by: pip install "fairtrial\[ray\]"$'):
        RayExecutor()


def test_a_study_runs_on_ray_from_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "study.toml").write_text(
        'name = "s"\nreference = "a"\nseeds = 2\n[training]\nloop = "fairtrial.testing:simulate"\nepochs = 2\n'
        "[arms.a]\n[arms.b]\nparams.mean = 0.9\n"
    )
    monkeypatch.setattr(sys, "argv", ["fairtrial", "run", "study.toml", "--executor", "ray", "--workers", "2"])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert done.value.code in {None, 0}
    out, err = capsys.readouterr()
    assert "a" in out
    assert "raylet" not in out + err
    with fairtrial.SQLStore("fairtrial.db") as store:
        results = store.results(fairtrial.load("study.toml"))
    assert [(result.outcome, len(result.epochs)) for result in results] == [(Outcome.FINISHED, 2)] * 4


def test_an_address_without_ray_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fairtrial", "run", "quick", "--address", "auto"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "--address: requires --executor ray" in capsys.readouterr().err


def test_starts_are_told_before_the_trial_goes_on(make_study):
    (trial, *_) = plan(make_study())
    deadline = monotonic() + PATIENCE
    with opened(RayOfTwo(), loops.waiting_for_go) as session:
        submit(session, trial)
        heard = []
        for message in session.messages():
            heard += [message] if message else []
            if len(heard) == 2:  # the loop waits for this file: nothing held these two back
                Path("go").touch()
            assert monotonic() < deadline
    assert isinstance(heard[0], Started)
    assert len(heard) == 5
