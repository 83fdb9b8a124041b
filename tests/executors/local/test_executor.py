"""Worker processes: how they are started, what they see, and every way in which they can die."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

import loops
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import FairtrialError, StudyError
from fairtrial.executors.base import Ended, EpochFinished, Started, Workload
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.local.process import WorkerProcess
from fairtrial.scheduler import plan
from fairtrial.trial import Outcome
from workloads import arm, execute, opened, patient, submit

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


def ends(messages):
    return {arm(message): message for message in messages if isinstance(message, Ended)}


def metrics(messages, name):
    return [message.record.metrics[name] for message in messages if isinstance(message, EpochFinished)]


@pytest.fixture
def dying_study(make_study):
    """Two good arms about one that ends its worker."""

    def make(end, **params):
        arms = {"a": {}, "bad": {"params": {"end": end, **params}}, "b": {"params": {"pace": 2}}}
        return plan(make_study(seeds=1, arms=arms, training={"epochs": 3, "loop": "loops:dying"}))

    return make


DEATHS = {
    "kill": "worker killed by signal 9 (SIGKILL); out of memory is the usual reason",
    "exit": "worker exited with status 0 before it finished",
    "sys.exit": "worker exited with status 3 before it finished",
    "segfault": "worker killed by signal 11 (SIGSEGV); native code has crashed",
    "close the pipe": "worker stopped answering and was killed",
    "memory": "out of memory",
    "torch memory": "out of memory: [enforce fail at alloc_cpu.cpp:127] err == 0. "
    "DefaultCPUAllocator: can't allocate memory",
    "gpu memory": "out of memory: CUDA out of memory. Tried to allocate 2 GiB",
}
WELL = [1, 2, 3]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("end", "what"), DEATHS.items(), ids=DEATHS.keys())
def test_a_trial_that_loses_two_workers_has_failed_and_the_others_go_on(dying_study, end, what, workers):
    messages = execute(LocalExecutor(workers), loops.dying, dying_study(end))
    assert stories(messages) == {
        "a": [Started, *WELL, Outcome.FINISHED],
        "bad": [Started, 1, Started, 1, Outcome.FAILED],
        "b": [Started, *WELL, Outcome.FINISHED],
    }
    lines = ends(messages)["bad"].detail.splitlines()
    assert lines[0].removesuffix("; no other trial ran beside it") == what
    assert [line for line in lines if line.startswith("previous attempt: ")] == [f"previous attempt: {what}"]


@pytest.mark.parametrize("end", ["kill", "exit", "segfault", "memory"])
def test_a_trial_that_loses_one_worker_gets_another(dying_study, end):
    messages = execute(LocalExecutor(2), loops.dying, dying_study(end, times=1))
    assert stories(messages)["bad"] == [Started, 1, Started, *WELL, Outcome.FINISHED]
    assert ends(messages)["bad"].detail == ""


def stories(messages):
    """What came of each arm, in order."""
    told = {}
    for message in messages:
        story = told.setdefault(arm(message), []) if message else None
        if isinstance(message, Started):
            story.append(Started)
        if isinstance(message, EpochFinished):
            story.append(message.record.epoch)
        if isinstance(message, Ended):
            story.append(message.outcome)
    return told


def test_a_retry_goes_on_from_the_checkpoint(make_study, monkeypatch, tmp_path):
    training = {"epochs": 3, "loop": "loops:keeping", "checkpoint_seconds": 0}
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}, training=training))
    monkeypatch.setenv("FAIRTRIAL_FAILPOINT", "checkpoint.manifest_renamed:5")  # in the third epoch
    monkeypatch.setenv("FAIRTRIAL_FAILPOINT_HITS", str(tmp_path / "hits"))
    messages = execute(LocalExecutor(1), loops.keeping, [trial], checkpoints=CheckpointManager("kept"))
    assert stories(messages)["a"] == [Started, 1, 2, Started, *WELL, Outcome.FINISHED]
    records = [message.record for message in messages if isinstance(message, EpochFinished)]
    assert records[:2] == records[2:4]  # with their times: they were not trained again
    assert (tmp_path / "hits").stat().st_size == 6  # of the six checkpoints none was written twice


def test_a_crash_in_native_code_has_the_traceback_of_python(dying_study):
    messages = execute(LocalExecutor(1), loops.dying, dying_study("segfault"))
    assert "loops.py" in ends(messages)["bad"].detail
    assert "in end_process" in ends(messages)["bad"].detail


def test_a_death_is_noticed_though_a_child_holds_the_pipe_and_the_child_ends_too(dying_study):
    messages = execute(LocalExecutor(1), loops.dying, dying_study("leave a child behind"))
    children = [int(pid) for pid in Path("children").read_text().split()]
    assert len(children) == 2
    assert gone(children)
    assert "SIGKILL" in ends(messages)["bad"].detail
    assert ends(messages)["b"].outcome is Outcome.FINISHED


def test_an_exception_is_told_in_the_first_line_and_not_tried_again(make_study):
    (trial,) = plan(make_study(seeds=1, arms={"a": {"params": {"end": "raises"}}}))
    messages = execute(LocalExecutor(1), loops.mixed, [trial])
    assert stories(messages)["a"] == [Started, 1, Outcome.FAILED]
    first, second, *_, last = ends(messages)["a"].detail.splitlines()
    assert (first, second, last) == ("RuntimeError: boom", "Traceback (most recent call last):", first)


def test_a_trial_that_takes_too_long_has_failed_and_is_not_tried_again(dying_study):
    messages = execute(LocalExecutor(2, time_limit=1.5), loops.dying, dying_study("loop"))
    assert stories(messages)["bad"] == [Started, 1, Outcome.FAILED]
    first, *trace = ends(messages)["bad"].detail.splitlines()
    assert first == "time limit of 1.5 s exceeded in epoch 2"
    assert any("in end_process" in line for line in trace)  # where it was
    assert ends(messages)["b"].outcome is Outcome.FINISHED


def test_it_is_told_where_a_training_was_that_has_a_thread_of_its_own(make_study):
    (trial,) = plan(make_study(seeds=1, arms={"a": {}}))
    messages = execute(LocalExecutor(1, time_limit=1.5), loops.endless_in_a_callback, [trial])
    assert stories(messages)["a"] == [Started, 1, Outcome.FAILED]
    assert "in endless_in_a_callback" in ends(messages)["a"].detail


def test_a_trial_that_asks_for_too_much_memory_has_failed(dying_study):
    messages = execute(LocalExecutor(1, memory_limit=2 << 30), loops.dying, dying_study("much memory"))
    assert stories(messages)["bad"] == [Started, 1, Started, 1, Outcome.FAILED]
    first, second, *rest = ends(messages)["bad"].detail.splitlines()
    assert (first, second) == ("memory limit of 2.0 GiB reached", "Traceback (most recent call last):")
    assert any("in end_process" in line for line in rest)


def test_any_error_of_a_trial_without_room_under_its_limit_is_for_lack_of_memory(dying_study):
    messages = execute(LocalExecutor(1, memory_limit=512 << 20), loops.dying, dying_study("no room"))
    first, *rest = ends(messages)["bad"].detail.splitlines()
    assert first == "memory limit of 512.0 MiB reached"
    assert any("field 'target' is required" in line for line in rest)


def test_an_error_with_room_left_under_the_limit_is_the_trial_s_own(make_study):
    study = make_study(seeds=1, arms={"a": {"params": {"end": "raises"}}})
    messages = execute(LocalExecutor(1, memory_limit=512 << 20), loops.mixed, plan(study))
    assert stories(messages)["a"] == [Started, 1, Outcome.FAILED]  # at the first attempt
    assert ends(messages)["a"].detail.splitlines()[-1] == "RuntimeError: boom"


def test_a_limit_that_leaves_no_room_to_begin_is_told(make_study):
    executor = LocalExecutor(1, memory_limit=512 << 20)
    with pytest.raises(FairtrialError, match=r"before they can start a trial: memory limit of 512\.0 MiB reached; see"):
        execute(executor, loops.good, plan(make_study()), machine=loops.machine_that_needs_memory)


def test_a_stopped_worker_is_given_up_and_killed(dying_study):
    executor = patient(LocalExecutor(2))
    messages = execute(executor, loops.dying, dying_study("stop", times=1))
    assert stories(messages)["bad"] == [Started, 1, Started, *WELL, Outcome.FINISHED]
    assert gone([int(Path("stopped").read_text())])


def test_a_worker_that_stops_twice_has_failed(dying_study):
    executor = patient(LocalExecutor(1))
    lines = ends(execute(executor, loops.dying, dying_study("stop")))["bad"].detail.splitlines()
    assert lines == ["worker was silent for 10 s", "previous attempt: worker was silent for 10 s"]


def test_a_worker_that_holds_the_interpreter_in_native_code_says_where(dying_study):
    executor = patient(LocalExecutor(1))
    first, *trace = ends(execute(executor, loops.dying, dying_study("hold the lock")))["bad"].detail.splitlines()
    assert first == "worker was silent for 10 s"
    assert [line for line in trace if "was silent" in line] == ["previous attempt: worker was silent for 10 s"]
    assert sum("in end_process" in line for line in trace) == 2


def test_leaving_lets_trials_save_what_they_have(make_study):
    training = {"epochs": 10000, "loop": "loops:keeping"}
    (trial,) = plan(make_study(seeds=1, arms={"a": {"params": {"sleep": 0.01}}}, training=training))
    kept = CheckpointManager("kept")
    with (
        suppress(KeyboardInterrupt),
        opened(LocalExecutor(1), loops.keeping_a_diary, checkpoints=kept) as session,
    ):
        submit(session, trial)
        for message in session.messages():
            if isinstance(message, EpochFinished):
                raise KeyboardInterrupt
    assert Path("diary").read_text() == "Stopped"
    assert kept.open(trial).load()["epoch"] >= 1


@pytest.mark.parametrize("leave_by", ["an exception in the middle of a look", "an exception elsewhere"])
def test_leaving_ends_trials_that_do_not_save(make_study, monkeypatch, leave_by):
    first, second = plan(make_study(arms={"a": {}}))
    with (
        suppress(KeyboardInterrupt),
        opened(LocalExecutor(2), loops.beating, checkpoints=CheckpointManager("kept")) as session,
    ):
        submit(session, first, second)
        pids = []
        for message in session.messages():
            if isinstance(message, EpochFinished):
                pids.append(int(message.record.metrics["pid"]))
            if len(pids) == 2 and leave_by == "an exception elsewhere":
                raise KeyboardInterrupt
            if len(pids) == 2:
                monkeypatch.setattr("fairtrial.executors.local.executor.wait", interrupted)
    assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)


def interrupted(*args):
    raise KeyboardInterrupt


def test_what_a_given_up_worker_still_says_is_not_heard(dying_study, monkeypatch):
    """As if it could not be killed: on a machine, say, that hangs and comes back."""
    given_up = []
    close = WorkerProcess.close

    def let_live(worker):
        given_up.append(worker)

    monkeypatch.setattr(WorkerProcess, "close", let_live)
    story = []
    with opened(patient(LocalExecutor(1)), loops.dying) as session:
        _, bad, other = dying_study("stop", times=1)
        submit(session, bad)
        for message in session.messages():
            story.append(message)
            if isinstance(message, Started) and given_up and message.trial_id == bad.hash:
                os.kill(given_up[0]._process.pid, signal.SIGCONT)
                assert given_up[0].connection.poll(PATIENCE)  # it speaks again, into the pipe that nobody reads
                submit(session, other)
        said = []
        while not isinstance(report := given_up[0].connection.recv(), Ended):
            said.append(report)
    for worker in given_up:
        close(worker)
    assert any(isinstance(report, EpochFinished) for report in said)
    assert stories(story) == {
        "bad": [Started, 1, Started, *WELL, Outcome.FINISHED],
        "b": [Started, *WELL, Outcome.FINISHED],
    }


def test_a_suspended_parent_does_not_take_its_workers_for_silent(script):
    """Both sleep for longer than a worker may be silent, and wake together."""
    process, pids = script
    for pid in (process.pid, *pids):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(11)
    for pid in (process.pid, *pids):
        os.kill(pid, signal.SIGCONT)
    time.sleep(2)
    assert all(alive(pid) for pid in (process.pid, *pids))


def test_a_trial_whose_worker_died_before_it_began_goes_to_another(make_study):
    trials = plan(make_study())
    messages = execute(LocalExecutor(1), loops.good, trials, machine=loops.machine_that_dies_once)
    started = [message.trial_id for message in messages if isinstance(message, Started)]
    assert started == [trial.hash for trial in trials]
    assert {message.outcome for message in messages if isinstance(message, Ended)} == {Outcome.FINISHED}


def test_workers_that_never_begin_are_an_error(make_study):
    with pytest.raises(FairtrialError, match=r"before they can start a trial: worker exited with status 7"):
        execute(LocalExecutor(2), loops.good, plan(make_study()), machine=loops.machine_that_dies)


def test_one_trial_before_which_workers_always_die_is_an_error_though_others_begin(make_study):
    trials = plan(make_study(seeds=200, arms={"a": {}, "bad": {"params": {"x": 1}}}))
    trials = [trial for trial in trials if trial.arm == "a" or trial.seed == 0]
    with pytest.raises(FairtrialError, match=r"before they can start a trial: worker exited with status 7"):
        execute(LocalExecutor(2), loops.slow, trials, machine=loops.machine_that_dies_for_some)
    assert Path("begun").stat().st_size < 200  # it does not come up only when nothing else is left


def test_a_worker_that_dies_between_trials_is_replaced(make_study):
    first, second, *_ = plan(make_study())
    with opened(LocalExecutor(1), loops.looking_around) as session:
        submit(session, first)
        (pid,) = metrics(session.messages(), "pid")
        os.kill(int(pid), signal.SIGKILL)
        assert gone([int(pid)])
        submit(session, second)
        messages = list(session.messages())
    assert ends(messages)[second.arm].outcome is Outcome.FINISHED
    assert metrics(messages, "pid") != [pid]


def test_what_a_worker_sees(make_study, capfd):
    options = {"set_up": loops.set_up, "environment": loops.place}
    messages = execute(LocalExecutor(2, 3), loops.looking_around, plan(make_study(seeds=4)), **options)
    assert len(metrics(messages, "pid")) == 8
    assert os.getpid() not in metrics(messages, "pid")
    assert set(metrics(messages, "threads")) == {3}
    assert set(metrics(messages, "place")) <= {0, 1}
    assert set(metrics(messages, "set_ups")) == {1}
    assert set(metrics(messages, "inherited")) == {0}
    assert capfd.readouterr().out == "printed by a loop\n" * 8


def test_the_kernel_would_kill_a_worker_or_its_children_before_the_parent(make_study):
    messages = execute(LocalExecutor(1), loops.looking_around, plan(make_study(seeds=1)))
    ours = int(Path("/proc/self/oom_score_adj").read_text())
    scores = metrics(messages, "oom_score") + metrics(messages, "oom_score_of_child")
    assert set(scores) == {max(500, ours)}


def test_trials_run_side_by_side(make_study):
    trials = plan(make_study(arms={"a": {}}))
    messages = execute(LocalExecutor(2), loops.meeting, trials)
    assert len(set(metrics(messages, "pid"))) == 2


def test_a_worker_finds_what_this_process_finds(make_study, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.py").write_text("def train(trial):\n    yield {'loss': 0.25}\n")
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    import mine

    messages = execute(LocalExecutor(1), mine.train, plan(make_study(seeds=1)))
    assert metrics(messages, "loss") == [0.25, 0.25]


def test_numbers_of_workers_and_threads_are_checked():
    for numbers in ({"workers": 0}, {"workers": -1}, {"threads": 0}):
        with pytest.raises(FairtrialError, match=r"(workers|threads) = (0|-1): must be an integer of at least 1"):
            LocalExecutor(**numbers)


def of_this_process(trial):
    yield {"test_acc": 0.5}


@pytest.mark.parametrize("where", ["of the running script or notebook", "within another function"])
def test_functions_that_workers_cannot_import_are_refused_in_a_line_with_the_two_ways_that_work(
    make_study, monkeypatch, where
):
    if where == "within another function":

        def train(trial):
            yield from of_this_process(trial)

    else:
        train = of_this_process
        monkeypatch.setattr(train, "__module__", "__main__")
    trials = plan(make_study(training={"loop": train, "epochs": 1}))
    with pytest.raises(StudyError) as refused:
        LocalExecutor(1).open(Workload(loops.good, loops.machine, trials))
    name = f"{train.__module__}:{train.__qualname__}"
    assert str(refused.value) == (
        f'training.loop = "{name}": workers can\'t import a function {where}; move it to the top of a module, '
        "or run with executor=fairtrial.InlineExecutor()"
    )


SCRIPT = """
from fairtrial.executors.base import EpochFinished
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.scheduler import plan
from fairtrial.spec import Study
import loops
from workloads import opened, patient

print("begun", flush=True)
study = Study.from_dict({"name": "s", "reference": "a", "seeds": 2, "arms": {"a": {}}})
try:
    with opened(patient(LocalExecutor(2)), loops.LOOP) as session:
        for trial in plan(study):
            session.submit(trial)
        for message in session.messages():
            if isinstance(message, EpochFinished):
                print(int(message.record.metrics["pid"]), flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.fixture
def script(request):
    """Run a script with two workers that never end; give the process and the workers' numbers."""
    path = Path("script.py")
    path.write_text(textwrap.dedent(SCRIPT).replace("LOOP", getattr(request, "param", "beating")))
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


@pytest.mark.parametrize("script", ["parenting"], indirect=True)
def test_what_training_loops_have_started_ends_with_a_parent_that_is_killed(script):
    """Even though native code in the workers holds the interpreter's lock."""
    process, pids = script
    children = [int(pid) for pid in Path("children").read_text().split()]
    assert len(children) == 2
    assert all(alive(pid) for pid in (*pids, *children))
    process.kill()
    process.wait(PATIENCE)
    assert gone([*pids, *children])


@pytest.mark.parametrize("script", ["parenting"], indirect=True)
def test_what_training_loops_have_started_ends_with_a_parent_that_leaves(script):
    process, pids = script
    children = [int(pid) for pid in Path("children").read_text().split()]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert not any(alive(pid) for pid in pids)
    assert gone(children)


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
