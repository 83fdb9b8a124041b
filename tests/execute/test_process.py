"""What is said of a worker's end."""

import errno
import os
import signal
import subprocess

import pytest

import loops
from fairtrial.errors import FairtrialError
from fairtrial.execute import process
from fairtrial.execute.worker import Job

ENDS = {
    0: "worker exited with status 0 before it was done",
    7: "worker exited with status 7 before it was done",
    -9: "worker killed by signal 9 (SIGKILL); out of memory is the usual reason",
    -6: "worker killed by signal 6 (SIGABRT); native code has given up",
    -15: "worker killed by signal 15 (SIGTERM)",
    -40: "worker killed by signal 40",
}


@pytest.mark.parametrize(("code", "words"), ENDS.items())
def test_exit_statuses_in_words(code, words):
    assert process._describe(code) == words


def test_ctrl_c_waits_while_a_worker_is_started_and_does_not_reach_it():
    interrupted = pytest.raises(KeyboardInterrupt)
    with interrupted, process._interrupts_held():
        mask = subprocess.check_output(["grep", "SigBlk", "/proc/self/status"], text=True)
        signal.raise_signal(signal.SIGINT)
        assert int(mask.split()[1], 16) & 1 << (signal.SIGINT - 1)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_worker_is_started_with_ctrl_c_held_back_and_a_failure_is_told(monkeypatch):
    masks = []

    def start(*args, **options):
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(process.subprocess, "Popen", start)
    with pytest.raises(FairtrialError, match=r"^a worker process can't be started: Resource temporarily unavailable$"):
        process.WorkerProcess(Job(loops.good, loops.machine, None), {})
    assert signal.SIGINT in masks[0]
