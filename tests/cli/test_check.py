"""The command that checks a study's training loop."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import rough_loops
from fairtrial.checking import running
from fairtrial.executors.base import Workload
from fairtrial.executors.records import RecordRules
from loops import machine

STUDY = """
name = "checked"
reference = "a"
training = { loop = "rough_loops:LOOP", epochs = 4 }
evidence.metric = "final_test_acc"
[arms.a]
[arms.b]
params.pace = 2
"""


@pytest.fixture
def study(monkeypatch, forked):
    """Write a study of a loop of tests/rough_loops.py, which workers run without torch."""

    def prepare(study, trials):
        loop = getattr(rough_loops, study.arms[0].settings.training.loop.partition(":")[2])
        return Workload(loop, machine, tuple(trials), rules=RecordRules.of(study))

    monkeypatch.setattr(running, "_workload", prepare)

    def write(loop):
        Path("checked.toml").write_text(STUDY.replace("LOOP", loop))
        return "checked.toml"

    return write


def test_a_sound_loop_is_a_table_and_status_0(study, invoke):
    status, out, _ = invoke("check", study("sound"), "--epochs", "2")
    assert status == 0
    assert "nothing is wrong" in out.splitlines()[0]
    assert "at most 2 epochs" in out.splitlines()[0]
    assert [line[:4].strip() for line in out.splitlines()[1:] if line[:4].strip()] == ["ok"] * 7


def test_a_fault_is_status_1_and_says_what_to_do(study, invoke):
    status, out, _ = invoke("check", study("never_loading"))
    assert status == 1
    assert "BAD  resuming" in out
    assert "Call trial.load() before the first record" in " ".join(out.split())


def test_json_is_nothing_but_json(study, invoke):
    status, out, _ = invoke("check", study("nothing"), "--json", "--time-limit", "1m", "--memory-limit", "8GiB")
    assert status == 1
    table = json.loads(out)
    assert not table["sound"]
    assert {one["state"] for one in table["findings"]} == {"bad"}


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--time-limit", "soon"], ["--set", "training.epochs=none"]])
def test_what_is_not_allowed_is_one_line(study, invoke, option):
    status, out, err = invoke("check", study("sound"), *option)
    assert (status, out, err.count("\n")) == (2, "", 1)


@pytest.mark.slow  # loads torch
def test_ctrl_c_ends_a_check_with_one_line():
    Path("checked.toml").write_text(STUDY.replace("LOOP", "endless_and_begun"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(Path.cwd())}
    command = [sys.executable, "-m", "fairtrial", "check", "checked.toml"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        deadline = time.monotonic() + 120
        while not Path("begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; nothing was recorded"
    assert list(Path().glob("fairtrial-check-*")) == []
