"""The inside of a Ray task: one trial, run by a worker process of its own on the task's node.

The training loop does not run in Ray's process but in a `WorkerProcess` beside it, as under the local executor. So a
loop finds itself in a main thread and in the same environment wherever it runs; its crash is told with its cause and
traceback; and while it computes, the task hears its progress and can be cancelled. The worker stays for the next task
that comes to Ray's process. It dies with it, too: the kernel sees to that on Linux, the end of the pipe elsewhere.
"""

import contextlib
import fcntl
import importlib
import os
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from pathlib import Path
from time import monotonic
from typing import Any, cast

import fairtrial
from fairtrial.executors.base import CheckpointFailed, Ended, Epoch, Started
from fairtrial.executors.limits import Limits, format_seconds
from fairtrial.executors.local.process import WorkerProcess, end_all
from fairtrial.executors.local.worker import Heartbeat, ProgressReport, Report, WorkerFailed, WorkerJob
from fairtrial.trial import Outcome, Trial

#: Seconds between two looks at whether the worker has died unheard, or the task is cancelled: Ray's way to interrupt a
#: task does not wake it.
SECONDS_A_LOOK = 0.2

#: Seconds that a worker whose task is cancelled gets to end by itself.
GRACE = 3.0


@dataclass(frozen=True)
class TaskSpec:
    """What all tasks of one executor have in common.

    Attributes:
        key: names the executor; a worker serves one only.
        version: the conductor's version of fairtrial.
        path: the conductor's ``sys.path``, without relative entries.
        folder: its working folder.
        environment: variables of workers.
        limits: what a trial may use.
        keeps: whether trials can save their state.
        job: the pickled `WorkerJob`; only a worker unpickles it, because that may load torch.
        place: pickled function that puts data into a node's cache, or None; see `ray.Supplies`.
    """

    key: str
    version: str
    path: tuple[str, ...]
    folder: str
    environment: Mapping[str, str]
    limits: Limits
    keeps: bool
    job: bytes
    place: bytes | None


@dataclass(frozen=True)
class WorkerDied:
    """The worker has died with the trial in hand."""

    cause: str


@dataclass(frozen=True)
class NodeRefused:
    """This node can't run trials of this study, and why."""

    reason: str


class _Sealed:
    """Stands for a pickled object, and becomes it where it is unpickled."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __reduce__(self) -> tuple[Callable[[bytes], object], tuple[bytes]]:
        return pickle.loads, (self._content,)


@dataclass
class _Desk:
    """The worker of this process, and the executor that it serves."""

    key: str = ""
    worker: WorkerProcess | None = None

    def clear(self, grace: float = 0.0) -> None:
        """End the worker, if there is one."""
        worker, self.worker = self.worker, None
        if worker is not None:
            if grace:
                worker.ask_to_stop()
            end_all([worker], monotonic() + grace)


_DESK = _Desk()


def run_trial(order: TaskSpec, trial: Trial, supplies: Sequence[Any]) -> Iterator[bytes]:
    """Run a trial. Is the body of a Ray task.

    Args:
        order: what all tasks have in common.
        trial: the trial.
        supplies: reference to the data for nodes that can't fetch them; in a list, so that Ray does not send them along
            with every task. Empty if there are none.

    Yields:
        Pickled lists of what the worker has reported since the last, without the trial; at last `WorkerDied` or
        `NodeRefused` where there is no `Ended`.
    """
    if order.version != fairtrial.__version__:
        yield pickle.dumps([NodeRefused(_other_version(order.version))])
        return
    try:
        worker = _worker(order, supplies)
        worker.give(trial)
        while worker.trial is not None:
            yield pickle.dumps(_gather(worker, order.limits))
    except KeyboardInterrupt:  # so Ray cancels a task
        return
    finally:
        if _DESK.worker is not None and _DESK.worker.trial is not None:
            _DESK.clear(GRACE if order.keeps else 0.0)


def _worker(order: TaskSpec, supplies: Sequence[Any]) -> WorkerProcess:
    """Find this process's worker, or start one that serves the executor."""
    if _DESK.key != order.key:
        _DESK.clear()
        _settle(order)
        if order.place is not None:
            _stock_once(order.key, order.place, supplies)
        _DESK.key = order.key
    if _DESK.worker is not None and _DESK.worker.dead():  # between two trials: nobody's loss
        _DESK.clear()
    if _DESK.worker is None:
        _DESK.worker = WorkerProcess(cast("WorkerJob", _Sealed(order.job)), order.environment)
    return _DESK.worker


def _settle(order: TaskSpec) -> None:
    """Let modules and files be found where the conductor finds them, as far as this node has them."""
    here = [entry for entry in order.path if Path(entry).exists()]
    sys.path[:] = [*here, *(entry for entry in sys.path if entry not in here)]
    with contextlib.suppress(OSError):  # another machine need not have it
        os.chdir(order.folder)


def _gather(worker: WorkerProcess, limits: Limits) -> list[Report | WorkerDied]:
    """Wait for a report, and take with it all that are there: among quick trials that saves most of the messages."""
    reports: list[Report | WorkerDied] = []
    while worker.trial is not None and (not reports or worker.connection.poll()):
        if wait([worker.connection], SECONDS_A_LOOK):
            worker.silent = 0.0
            reports += _take_in(worker, worker.receive())
        elif worker.dead():
            reports += _take_in(worker, None)
        else:
            worker.silent += SECONDS_A_LOOK
        if worker.trial is not None:
            reports += _judge(worker, limits)
    return reports


def _take_in(worker: WorkerProcess, report: Report | None) -> list[Report | WorkerDied]:
    """Take note of what a worker says; None is its death."""
    match report:
        case None:
            return [_part_with(worker, worker.autopsy())]
        case WorkerFailed(cause):
            return [_part_with(worker, cause)]
        case Heartbeat():
            return []
        case ProgressReport():
            return [report]
        case Started():
            worker.started = monotonic()
        case Epoch():
            worker.epochs += 1
        case Ended() | CheckpointFailed():
            worker.trial = None
    return [_without_trial(report)]


def _judge(worker: WorkerProcess, limits: Limits) -> list[Report | WorkerDied]:
    """See whether a worker has been silent for too long, or its trial has taken too long."""
    if worker.silent > limits.silence:
        where = worker.where()
        return [_part_with(worker, f"worker said nothing for {format_seconds(limits.silence)}\n{where}".rstrip())]
    late = limits.time is not None and worker.started is not None and monotonic() - worker.started > limits.time
    if not late or worker.connection.poll():
        return []
    cause = f"time limit of {format_seconds(limits.time or 0)} exceeded in epoch {worker.epochs + 1}\n{worker.where()}"
    trial = worker.trial
    _part_with(worker, cause)
    return [_without_trial(Ended(cast("Trial", trial), Outcome.FAILED, cause.rstrip(), datetime.now(UTC)))]


def _part_with(worker: WorkerProcess, cause: str) -> WorkerDied:
    """End a worker that is of no more use."""
    worker.trial = _DESK.worker = None
    worker.close()
    return WorkerDied(cause)


def _without_trial(report: Report) -> Report:
    """Leave out the trial: the executor knows it, and it is larger than all the rest."""
    return replace(report, trial=None)  # type: ignore[arg-type]


def _other_version(theirs: str) -> str:
    return (
        f"node {platform.node()} has fairtrial {fairtrial.__version__}, and this is {theirs}: install the same version "
        "on every node"
    )


def _stock_once(key: str, place: bytes, supplies: Sequence[Any]) -> None:
    """Have data put into this node's cache, unless another process of the node has done that for this executor.

    It is done in a task of its own, whose process ends with it: it may load torch, and this process need not.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    ray: Any = importlib.import_module("ray")  # its types know only some of its options
    node = ray.get_runtime_context().get_node_id()
    done = Path(tempfile.gettempdir()) / f"fairtrial-{key}-{node}"  # two nodes of a test share a machine
    with done.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_size == 0:  # asked of the system: the file knows its size when it was opened
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            task = ray.remote(num_cpus=0, max_calls=1, max_retries=0, scheduling_strategy=here)(stock)
            ray.get(task.remote(tuple(sys.path), place, supplies))
            file.write(b".")


def stock(path: Sequence[str], place: bytes, supplies: Sequence[Any]) -> None:
    """Put data into this node's cache. Is the body of a Ray task.

    Args:
        path: where modules are found.
        place: pickled function that does it, given a function that gets the conductor's data.
        supplies: a reference to them.
    """
    import ray  # noqa: PLC0415

    sys.path[:] = path
    pickle.loads(place)(lambda: ray.get(supplies[0]))  # noqa: S301  (from the conductor)
