"""What is said of a worker's end."""

import errno
import os
from pathlib import Path

import pytest

from fairtrial.errors import FairtrialError
from fairtrial.executors.limits import Limits
from fairtrial.executors.local import process

ENDS = {
    0: "worker exited with status 0 before it finished",
    7: "worker exited with status 7 before it finished",
    -9: "worker killed by signal 9 (SIGKILL); out of memory is the usual reason",
    -6: "worker killed by signal 6 (SIGABRT); native code has aborted",
    -15: "worker killed by signal 15 (SIGTERM)",
    -40: "worker killed by signal 40",
}


@pytest.mark.parametrize(("code", "words"), ENDS.items())
def test_exit_statuses_in_words(code, words):
    assert process._describe(code) == words


def test_a_worker_that_the_system_refuses_is_told(monkeypatch):
    def start(*args, **options):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(process.subprocess, "Popen", start)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FairtrialError, match=r"^a worker process can't be started: Resource temporarily unavailable$"):
        process.WorkerProcess(b"", {}, Limits())
    assert len(list(Path("/proc/self/fd").iterdir())) == before
