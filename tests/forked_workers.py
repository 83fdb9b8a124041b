"""Workers for checks that begin at once: forks of the test's process, which has loaded torch already."""

import gc
import os
import pickle
import signal
import threading
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from unittest.mock import patch

import torch
import torch._dynamo  # which the first optimizer of a process imports, for seconds

import loops
from fairtrial.executors.local import worker
from fairtrial.executors.session import WorkerDied


class ForkedWorker:
    """A worker as `WorkerProcess` is one, without a new interpreter: modules are as they were when this was forked."""

    def __init__(self, job, environment, limits):
        self.connection, theirs = Pipe()
        self.alive = True
        self._child = loops.fork()
        if self._child == 0:
            self.connection.close()
            work(theirs)
        theirs.close()
        self.connection.send_bytes(job)

    def give(self, trial):
        self.connection.send_bytes(pickle.dumps(trial))

    def read(self):
        try:
            return self.connection.recv()
        except EOFError:
            self.close()
            return WorkerDied("worker has died")

    def check(self, silent):
        return None

    def seconds_left(self):
        return 1.0

    def close(self):
        self.alive = False
        with suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)
        os.waitpid(self._child, 0)
        self.connection.close()


def work(connection):
    """Be a worker until the parent is gone."""
    try:
        outbox, inbox = worker.Outbox(connection), worker.Inbox(connection)
        threading.Thread(target=inbox.listen, daemon=True).start()
        worker._work(outbox, inbox)
    finally:
        os._exit(1)


@contextmanager
def forked_workers():
    """Let checks use such workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()  # a fork that collects garbage would copy all pages of this process
    try:
        with patch("fairtrial.checking.attempts.start_worker", ForkedWorker):
            yield
    finally:
        gc.unfreeze()
        torch.set_num_threads(threads)
