"""The inside of a Ray task: one trial, run by a worker process of its own on the task's node.

The training loop does not run in Ray's process but in a `WorkerProcess` beside it, as under the local executor. So a
loop always runs in a main thread and in the same environment; its crash is reported with its cause and traceback; and
while it computes, the task receives its progress and can be cancelled. The worker stays for the next task of Ray's
process, and dies with that process.
"""

import importlib
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any

from filelock import FileLock

import fairtrial
from fairtrial.errors import FairtrialError
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.process import WorkerProcess, end_all
from fairtrial.executors.session import Report

#: Seconds between two checks whether the worker has died unnoticed, or the task is cancelled: Ray's way to interrupt a
#: task does not wake it.
SECONDS_A_CHECK = 0.2

#: Seconds that a worker whose task is cancelled gets to end by itself.
GRACE = 3.0


@dataclass(frozen=True)
class TaskSpec:
    """What all tasks of one session have in common."""

    session: str  # a worker serves one session only
    version: str  # of fairtrial, on the machine that runs the study
    path: tuple[str, ...]  # its sys.path, without relative entries
    folder: str  # its working folder
    environment: Mapping[str, str]  # variables of workers
    limits: Limits
    saves: bool  # whether trials can save their state
    job: bytes  # the pickled WorkerJob; only a worker unpickles it, because that may load torch
    place: bytes | None  # pickled function that puts data into a node's cache; see NodeData


@dataclass
class _WorkerSlot:
    """The worker of this process, and the session that it serves."""

    session: str = ""
    worker: WorkerProcess | None = None

    def clear(self, grace: float = 0.0) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            if grace:
                worker.ask_to_stop()
            end_all([worker], monotonic() + grace)


_SLOT = _WorkerSlot()


def run_task(spec: TaskSpec, trial: bytes, data: Sequence[Any]) -> Iterator[bytes]:
    """Run a pickled trial and yield pickled lists of its reports. The body of a Ray task.

    The trial's settings may be of classes that are found only once this process has the path of the ``spec``.
    ``data`` is a reference to the data for nodes that can't download them, if any; in a list, so that Ray does not send
    the data along with every task.
    """
    if spec.version != fairtrial.__version__:
        raise FairtrialError(
            f"node {platform.node()} has fairtrial {fairtrial.__version__}, but this machine has {spec.version}: "
            "install the same version on every node"
        )
    try:
        worker = _worker(spec, data)
        worker.give(pickle.loads(trial))  # noqa: S301  (from the machine that runs the study)
        while worker.trials:
            yield pickle.dumps(_reports(worker))
    except KeyboardInterrupt:  # so Ray cancels a task
        return
    finally:
        if _SLOT.worker is not None and (not _SLOT.worker.alive or _SLOT.worker.trials):
            _SLOT.clear(GRACE if spec.saves and _SLOT.worker.alive else 0.0)


def _worker(spec: TaskSpec, data: Sequence[Any]) -> WorkerProcess:
    """Find this process's worker, or start one that serves the session."""
    if _SLOT.session != spec.session:
        _SLOT.clear()
        here = [entry for entry in spec.path if Path(entry).exists()]  # modules and files, as far as this node has them
        sys.path[:] = [*here, *(entry for entry in sys.path if entry not in here)]
        with suppress(OSError):
            os.chdir(spec.folder)
        if spec.place is not None:
            _place_once(spec.session, spec.place, data)
        _SLOT.session = spec.session
    if _SLOT.worker is not None and _SLOT.worker.dead():  # between two trials, so that none has lost it
        _SLOT.clear()
    if _SLOT.worker is None:
        _SLOT.worker = WorkerProcess(spec.job, spec.environment, spec.limits)
    return _SLOT.worker


def _reports(worker: WorkerProcess) -> list[Report]:
    """Wait for a report, and take all others that are ready: that saves most messages among quick trials."""
    reports: list[Report] = []
    while worker.trials and (not reports or worker.connection.poll()):
        ready = wait([worker.connection], SECONDS_A_CHECK)
        new = [worker.read() if ready else None]
        if worker.alive:
            new.append(worker.check(0.0 if ready else SECONDS_A_CHECK))
        reports += [report for report in new if report is not None]
    return reports


def _place_once(session: str, place: bytes, data: Sequence[Any]) -> None:
    """Have data put into this node's cache, unless another process of the node has done that for this session.

    It is done in a task of its own, whose process ends with it: it may load torch, and this process need not.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    ray: Any = importlib.import_module("ray")  # its types know only some of its options
    node = ray.get_runtime_context().get_node_id()
    done = Path(tempfile.gettempdir()) / f"fairtrial-{session}-{node}"  # two nodes of a test share a machine
    with FileLock(f"{done}.lock"):
        if not done.exists():
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            task = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy=here)(place_data)
            ray.get(task.remote(tuple(sys.path), place, data))
            done.touch(exist_ok=False)  # never through a link


def place_data(path: Sequence[str], place: bytes, data: Sequence[Any]) -> None:
    """Put data into this node's cache; see `TaskSpec` and `run_task`. The body of a Ray task."""
    import ray  # noqa: PLC0415

    sys.path[:] = path
    pickle.loads(place)(lambda: ray.get(data[0]))  # noqa: S301  (from the machine that runs the study)
