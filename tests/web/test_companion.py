"""The live page beside a run: it ends with the run however that ends, and no run ever fails for it."""

import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from fairtrial.web.companion import NICENESS, Companion
from fairtrial.web.ports import address, listen

#: A run of a simulated study with the live page, that lasts until it is stopped.
STUDY = """
name = "long"
reference = "a"
seeds = 1
training = { loop = "fairtrial.testing:simulate", epochs = 500 }
params = { sleep = 0.1 }
[arms.a]
[arms.b]
params.mean = 0.9
"""


def answers(url):
    """Whether a page answers within a minute."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return answer.status == 200


def test_it_serves_while_the_context_lasts_and_leaves_nothing():
    said = []
    with Companion("fairtrial.db", 0, said.append):
        (line,) = said
        url = line.removeprefix("live page: ")
        assert answers(url)
        (process,) = [one for one in psutil.Process().children() if "companion" in " ".join(one.cmdline())]
        assert process.nice() >= min(19, os.nice(0) + NICENESS)
        assert "fairtrial.db" not in " ".join(process.cmdline())  # a URL may hold a password
    assert not process.is_running()
    assert said == [line]


def test_a_port_that_is_taken_is_said_and_the_run_goes_on():
    said = []
    with listen(port=0) as taken:
        port = taken.getsockname()[1]
        with Companion("fairtrial.db", port, said.append):
            pass
    free = "name another, or 0 for any that is free"
    assert said == [f"no live page: --port {port}: another program listens there; {free}; the study runs without it"]


def test_without_a_port_a_free_one_is_taken(monkeypatch):
    said = []
    with listen(port=0) as taken:
        monkeypatch.setattr("fairtrial.web.companion.PORT", taken.getsockname()[1])
        with Companion("fairtrial.db", None, said.append):
            assert said[0].startswith("live page: ")
            assert address(taken) not in said[0]


def test_a_store_in_memory_has_no_page():
    said = []
    with Companion(":memory:", 0, said.append):
        pass
    assert said == ["no live page: no other process can read a store in memory; the study runs without it"]


def test_a_process_that_can_not_start_or_dies_is_said(monkeypatch, eventually):
    said = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", "/no/such/python")
        with Companion("fairtrial.db", 0, said.append):
            pass
    assert said[-1].startswith("no live page: ")
    monkeypatch.setattr("fairtrial.web.companion._PROGRAM", "raise SystemExit(7)")
    with Companion("fairtrial.db", 0, said.append):
        eventually(lambda: "ended" in said[-1])
    assert said[-1] == "the live page has ended (status 7); the study goes on, and fairtrial serve shows it"


@pytest.fixture
def running(tmp_path):
    """Start `fairtrial run --serve`; give the process, and what it said once the page was there."""
    Path("long.toml").write_text(STUDY)
    words = ["run", "long.toml", "--serve", "--port", "0", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fairtrial", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process, next(line for line in process.stderr if "live page" in line).split()[-1]
    process.kill()
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_however_the_run_ends(running, number, eventually):
    process, url = running
    assert answers(url)
    whole = psutil.Process(process.pid).children(recursive=True)
    assert any("companion" in " ".join(one.cmdline()) for one in whole)
    process.send_signal(number)
    # Python itself ends with the signal where Ctrl-C came while a library ran text as code, however it was handled.
    assert process.wait(60) in ({-number} if number == signal.SIGKILL else {-number, 128 + number})
    eventually(lambda: not [one for one in whole if one.is_running() and one.status() != psutil.STATUS_ZOMBIE])


@pytest.mark.slow
def test_serve_ends_at_once_at_ctrl_c_with_a_page_open(invoke):
    Path("short.toml").write_text(STUDY.replace("500", "1"))
    assert invoke("run", "short.toml")[0] == 0
    words = [sys.executable, "-m", "fairtrial", "serve", "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        url = process.stderr.readline().split()[2]
        with urllib.request.urlopen(f"{url}events", timeout=60) as page:
            assert page.readline().startswith(b"retry")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 128 + signal.SIGINT
        assert process.stderr.read() == ""
