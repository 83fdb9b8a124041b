"""Worker processes: how they are started, what they see, and every way in which they can die."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

import loops
from fairtrial.errors import FairtrialError
from fairtrial.execute.base import Ended, Epoch, Started
from fairtrial.execute.local import LocalExecutor
from fairtrial.plan import plan
from fairtrial.records import Outcome

PATIENCE = 60  # seconds after which a test gives up; nothing waits that long unless it is broken


def alive(pid):
    """Tell whether a process runs; one that has ended and that nobody has asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids):
    """Wait until processes have ended."""
    deadline = time.monotonic() + PATIENCE
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def execute(executor, trials):
    with executor:
        for trial in trials:
            executor.submit(trial)
        return list(executor.messages())


def ends(messages):
    return {message.trial.arm: message for message in messages if isinstance(message, Ended)}


def metrics(messages, name):
    return [message.record.metrics[name] for message in messages if isinstance(message, Epoch)]


@pytest.fixture
def dying_study(make_study):
    """Two good arms about one that ends its worker."""

    def make(end):
        arms = {"a": {}, "bad": {"params": {"end": end}}, "b": {"params": {"pace": 2}}}
        return plan(make_study(seeds=1, arms=arms, training={"epochs": 3, "loop": "loops:dying"}))

    return make


DEATHS = {
    "kill": "worker killed by signal 9 (SIGKILL); out of memory is the usual reason",
    "exit": "worker exited with status 0 before it was done",
    "sys.exit": "worker exited with status 3 before it was done",
    "segfault": "worker killed by signal 11 (SIGSEGV); native code has crashed",
    "close the pipe": "worker no longer answered, and was ended",
}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("end", "what"), DEATHS.items(), ids=DEATHS.keys())
def test_a_death_fails_one_trial_and_leaves_the_others_alone(dying_study, end, what, workers):
    messages = execute(LocalExecutor(loops.dying, loops.machine, workers=workers), dying_study(end))
    outcomes = ends(messages)
    assert {arm: end.outcome for arm, end in outcomes.items()} == {
        "a": Outcome.FINISHED,
        "bad": Outcome.FAILED,
        "b": Outcome.FINISHED,
    }
    assert outcomes["bad"].detail.splitlines()[0] == what
    epochs = [(message.trial.arm, message.record.epoch) for message in messages if isinstance(message, Epoch)]
    assert sorted(epochs) == [(arm, epoch) for arm in ("a", "b") for epoch in (1, 2, 3)] + [("bad", 1)]


def test_a_crash_in_native_code_has_the_traceback_of_python(dying_study):
    messages = execute(LocalExecutor(loops.dying, loops.machine, workers=1), dying_study("segfault"))
    assert "loops.py" in ends(messages)["bad"].detail
    assert "in dying" in ends(messages)["bad"].detail


def test_a_death_is_noticed_though_a_child_holds_the_pipe(dying_study):
    messages = execute(LocalExecutor(loops.dying, loops.machine, workers=1), dying_study("leave a child behind"))
    child = int(Path("child").read_text())
    assert alive(child)
    os.kill(child, signal.SIGKILL)
    assert "SIGKILL" in ends(messages)["bad"].detail
    assert ends(messages)["b"].outcome is Outcome.FINISHED


def test_a_trial_whose_worker_died_before_it_began_goes_to_another(make_study):
    trials = plan(make_study())
    messages = execute(LocalExecutor(loops.good, loops.machine_that_dies_once, workers=1), trials)
    assert [message.trial for message in messages if isinstance(message, Started)] == list(trials)
    assert {message.outcome for message in messages if isinstance(message, Ended)} == {Outcome.FINISHED}


def test_workers_that_never_begin_are_an_error(make_study):
    with pytest.raises(FairtrialError, match=r"before they can begin a trial: worker exited with status 7"):
        execute(LocalExecutor(loops.good, loops.machine_that_dies, workers=2), plan(make_study()))


def test_a_worker_that_dies_between_trials_is_replaced(make_study):
    first, second, *_ = plan(make_study())
    with LocalExecutor(loops.looking_around, loops.machine, workers=1) as executor:
        executor.submit(first)
        (pid,) = metrics(executor.messages(), "pid")
        os.kill(int(pid), signal.SIGKILL)
        assert gone([int(pid)])
        executor.submit(second)
        messages = list(executor.messages())
    assert ends(messages)[second.arm].outcome is Outcome.FINISHED
    assert metrics(messages, "pid") != [pid]


def test_what_a_worker_sees(make_study, capfd):
    executor = LocalExecutor(
        loops.looking_around, loops.machine, workers=2, threads=3, set_up=loops.set_up, environment=loops.place
    )
    messages = execute(executor, plan(make_study(seeds=4)))
    assert len(metrics(messages, "pid")) == 8
    assert os.getpid() not in metrics(messages, "pid")
    assert set(metrics(messages, "threads")) == {3}
    assert set(metrics(messages, "place")) <= {0, 1}
    assert set(metrics(messages, "set_ups")) == {1}
    assert set(metrics(messages, "inherited")) == {0}
    assert capfd.readouterr().out == "printed by a loop\n" * 8


def test_trials_run_side_by_side(make_study):
    trials = plan(make_study(arms={"a": {}}))
    messages = execute(LocalExecutor(loops.meeting, loops.machine, workers=2), trials)
    assert len(set(metrics(messages, "pid"))) == 2


def test_a_worker_finds_what_this_process_finds(make_study, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text("def train(trial):\n    yield {'loss': 0.25}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    import mine

    messages = execute(LocalExecutor(mine.train, loops.machine, workers=1), plan(make_study(seeds=1)))
    assert metrics(messages, "loss") == [0.25, 0.25]


def test_numbers_of_workers_and_threads_are_checked():
    for numbers in ({"workers": 0}, {"workers": -1}, {"workers": 1, "threads": 0}):
        with pytest.raises(FairtrialError, match=r"(workers|threads) = (0|-1): must be a whole number from 1 up"):
            LocalExecutor(loops.good, loops.machine, **numbers)


def test_functions_that_workers_cannot_import_are_refused():
    with pytest.raises(
        FairtrialError, match="<lambda>: workers can't import it, only functions at the top of a module"
    ):
        LocalExecutor(lambda trial: iter(()), loops.machine, workers=1)
    with pytest.raises(FairtrialError, match="workers can't import it"):
        LocalExecutor(loops.good, loops.machine, workers=1, set_up=partial(print, lambda: 0))


SCRIPT = """
from fairtrial.execute.base import Epoch
from fairtrial.execute.local import LocalExecutor
from fairtrial.plan import plan
from fairtrial.spec import Study
import loops

print("begun", flush=True)
study = Study.from_dict({"name": "s", "reference": "a", "seeds": 2, "arms": {"a": {}}})
try:
    with LocalExecutor(loops.beating, loops.machine, workers=2) as executor:
        for trial in plan(study):
            executor.submit(trial)
        for message in executor.messages():
            if isinstance(message, Epoch):
                print(int(message.record.metrics["pid"]), flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def script():
    """Run a script with two workers that never end; give the process and the workers' numbers."""
    path = Path("script.py")
    path.write_text(textwrap.dedent(SCRIPT))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            pids = set()
            while len(pids) < 2:
                pids.add(int(process.stdout.readline()))
            yield process, pids
        finally:
            process.kill()


def test_workers_end_with_a_parent_that_is_killed(script):
    process, pids = script
    assert all(alive(pid) for pid in pids)
    process.kill()
    process.wait(PATIENCE)
    assert gone(pids)


def test_stopped_workers_end_with_a_parent_that_is_killed(script):
    process, pids = script
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)  # as deaf as native code that never lets Python run
    process.kill()
    process.wait(PATIENCE)
    assert gone(pids)


def test_ctrl_c_ends_all_and_only_the_parent_speaks(script):  # once: workers do not run the script's main part
    process, pids = script
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "begun" not in out
    assert out.endswith("interrupted\n")
    assert err == ""
    assert not any(alive(pid) for pid in pids)


def test_ctrl_c_ends_a_worker_that_does_not_answer(script):
    process, pids = script
    os.kill(min(pids), signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert not any(alive(pid) for pid in pids)
