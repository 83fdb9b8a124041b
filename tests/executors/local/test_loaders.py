"""PyTorch's data loaders with processes of their own, in training loops that workers run."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import loader_loops
from fairtrial.executors.base import Ended, EpochFinished
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.scheduler import plan
from fairtrial.trial import Outcome
from workloads import execute

pytestmark = pytest.mark.slow  # each worker loads torch

PATIENCE = 120  # seconds after which a test gives up

LIMIT = 6 << 30


def run_loading(make_study, end=None):
    (trial, *_) = plan(make_study(arms={"a": {"params": {"end": end} if end else {}}}, seeds=1))
    return execute(LocalExecutor(1, memory_limit=LIMIT), loader_loops.loading, [trial])


def test_a_loader_works_under_a_memory_limit(make_study):
    messages = run_loading(make_study)
    assert [one.record.metrics["total"] for one in messages if isinstance(one, EpochFinished)] == [120.0] * 3
    assert messages[-1].outcome is Outcome.FINISHED
    assert len(set(Path("loaders").read_text().split())) == 2 * 3  # two processes an epoch


@pytest.mark.parametrize("end", ["memory", "numpy memory"])
def test_a_loaders_process_that_reaches_the_memory_limit_says_so(make_study, end):
    (ended,) = [one for one in run_loading(make_study, end) if isinstance(one, Ended)]
    assert (ended.outcome, ended.detail.partition("\n")[0]) == (Outcome.FAILED, "memory limit of 6.0 GiB reached")
    assert "in DataLoader worker process" in ended.detail


def test_a_loaders_process_that_is_killed_counts_as_out_of_memory(make_study):
    (ended,) = [one for one in run_loading(make_study, "kill") if isinstance(one, Ended)]
    first = ended.detail.partition("\n")[0]
    assert re.match(r"out of memory: DataLoader worker \(pid \d+\) is killed by signal: Killed", first)
    assert "previous attempt: out of memory: DataLoader worker" in ended.detail


STUDY = """
name = "loading"
reference = "a"
training = { loop = "loader_loops:waiting", epochs = 3 }
evidence.metric = "final_test_acc"
[arms.a]
"""


@pytest.fixture
def running():
    """A study on the command line whose loader's processes wait; give the process and theirs."""
    Path("study.toml").write_text(STUDY)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "fairtrial", "run", "study.toml", "--workers", "1", "--memory-limit", "6GiB"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            wait_until(Path("begun").exists)
            yield process, {int(pid) for pid in Path("loaders").read_text().split()}
        finally:
            process.kill()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_ctrl_c_ends_a_loaders_processes(running):
    process, loaders = running
    assert len(loaders) == 2
    assert all(map(alive, loaders))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; every finished epoch is in fairtrial.db" in err
    wait_until(lambda: not any(map(alive, loaders)))


def test_a_loaders_processes_end_with_a_run_that_is_killed(running):
    process, loaders = running
    process.kill()
    process.wait(PATIENCE)
    wait_until(lambda: not any(map(alive, loaders)))
