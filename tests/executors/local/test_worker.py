"""What a worker sends."""

import subprocess
import sys
from multiprocessing import Pipe

import pytest

from fairtrial.executors.base import Progressed
from fairtrial.executors.local import worker


@pytest.fixture
def pipe():
    ours, theirs = Pipe()
    with ours, theirs:
        yield ours, worker.Outbox(theirs)


def received(connection):
    reports = []
    while connection.poll():
        reports.append(connection.recv())
    return reports


def test_progress_that_comes_too_soon_is_dropped(pipe, monkeypatch):
    connection, line = pipe
    moments = iter([10.0, 10.01, 10.2, 10.29, 10.31])
    monkeypatch.setattr(worker, "monotonic", lambda: next(moments))
    for batch in range(1, 6):
        line.progress(Progressed("a trial", batch, 9, {"train_acc": batch / 10}))
    assert [report.batch for report in received(connection)] == [1, 3, 5]


def test_progress_is_sent_as_plain_numbers(pipe):
    import torch

    connection, line = pipe
    line.progress(Progressed("a trial", 1, 9, {"train_acc": torch.tensor(0.5)}))
    (report,) = received(connection)
    assert report == Progressed("a trial", 1, 9, {"train_acc": 0.5})
    assert type(report.metrics["train_acc"]) is float


def test_a_worker_without_a_parent_ends(pipe, monkeypatch):
    connection, line = pipe
    ended = []
    monkeypatch.setattr(worker.os, "_exit", ended.append)
    connection.close()
    line.progress(Progressed("a trial", 1, 9, {}))
    assert ended == [worker.ABANDONED]


def test_a_worker_loads_nothing_that_only_reports_and_stores_need():
    """Each worker would load it again: SciPy, tables, charts and databases take seconds on a busy machine."""
    code = (
        "import sys; from fairtrial.executors.local import worker; from fairtrial.training import machine, prepare; "
        "machine.set_up_worker(1); machine.describe_process(); "
        "slow = ('scipy', 'pandas', 'pyarrow', 'altair', 'sqlalchemy', 'rich', 'typer', 'jinja2', 'PIL', 'sklearn'); "
        "print(*(name for name in slow if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
