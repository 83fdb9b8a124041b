"""Trials as tasks of a Ray cluster, or of a Ray on this machine: ``pip install "fairtrial[ray]"``."""

import math
import pickle
import sys
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import fairtrial
from fairtrial.errors import CheckpointError, FairtrialError
from fairtrial.executors.base import Ended, Message, Progressed, Started, Workload, check_importable
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import THREAD_VARIABLES
from fairtrial.executors.local.supervisor import WorkerDied
from fairtrial.executors.local.worker import CheckpointFailed, WorkerJob
from fairtrial.executors.ray import task
from fairtrial.executors.ray.cluster import RayCluster, check_installed
from fairtrial.executors.ray.task import NodeRefused, TaskSpec
from fairtrial.executors.retries import Retries
from fairtrial.executors.slots import check_counts, usable_cores
from fairtrial.registry import EXECUTORS
from fairtrial.trial import Trial

#: Seconds between two looks at the cluster: is it there, and has it grown or shrunk?
SECONDS_A_LOOK = 1.0

#: Seconds for which trials wait for a node if there is none with room for one.
SECONDS_WITHOUT_NODES = 60.0

#: Seconds that cancelled tasks get beyond what their workers get, before they are killed; and those to see them dead.
GRACE = 2.0


@EXECUTORS.register("ray")
class RayExecutor:
    """Runs trials as Ray tasks.

    On nodes with the same files, training loops are found by this process's ``sys.path``. Others need the same version
    of fairtrial, and the module of a training loop, installed.

    Args:
        address: ``"auto"`` or ``"host:port"`` of a cluster that this machine belongs to; by default Ray is started on
            this machine. If this process is connected to a Ray already, that is used.
        workers: trials side by side at most, from 1; by default as many as the cluster has room for.
        threads: cores of each trial, and threads that its numeric libraries may start, from 1; by default 1.
        checkpoints: the folder or URL where trials save their state, which all nodes must see; by default a folder
            beside the store.
        time_limit: seconds that an attempt at a trial may take; one that takes longer has failed. None: no limit.
        memory_limit: bytes that each worker may ask for; a trial that asks for more, on the second attempt too, has
            failed. None: no limit.

    Raises:
        FairtrialError: a number that means nothing, or Ray is not installed.

    Attributes:
        limits: what a trial may use.

    Example:
        >>> executor = RayExecutor("auto", checkpoints="/shared/checkpoints")         # doctest: +SKIP
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        threads: int | None = None,
        checkpoints: str | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
    ) -> None:
        check_installed()
        check_counts(workers=workers, threads=threads)
        self.checkpoints = checkpoints
        self.limits = Limits(time_limit, memory_limit)
        self._address, self._workers, self._threads = address, workers, threads or 1

    def open(self, workload: Workload) -> "RaySession":
        """Connect to the cluster, and begin to run a study.

        Raises:
            StudyError: a training loop that workers can't import.
            FairtrialError: the cluster can't be reached.
        """
        check_importable(workload.trials)
        if workload.checkpoints is not None and "://" not in workload.checkpoints.place:
            place = str(Path(workload.checkpoints.place).absolute())  # nodes have another working folder
            workload = replace(workload, checkpoints=replace(workload.checkpoints, place=place))
        cores = (self._workers or max(1, usable_cores() // self._threads)) * self._threads
        return RaySession(workload, RayCluster(self._address, cores), self._workers, self._threads, self.limits)


@dataclass(eq=False)
class _Attempt:
    """A trial on its way through Ray. Messages are read from attempts, so that one given up is never heard again."""

    trial: Trial
    reports: Any
    begun: bool = False


class RaySession:
    """A study on a Ray cluster. Keeps the promises of `executors.base`, and these.

    * Ray decides where a task runs; there are never more at once than the nodes have room for, so that trials start in
      the order of submission. A cluster that grows is used; nodes that are lost are done without.
    * A trial whose worker or node has died is retried once, from its last checkpoint if all nodes see the checkpoints.
      A second death fails it. Ray itself retries nothing.
    * Reports come through Ray's streaming generators, whose owner is this process: they come in order, need no mailbox
      actor that could die by itself, and end in the error that ended the task.
    * Leaving the context cancels all tasks, and kills those that have not ended seconds later. Ray is shut down if this
      session has connected to it.
    * The cluster's loss is an error within seconds; what has been reported stays.
    """

    slots = None

    def __init__(
        self, workload: Workload, cluster: RayCluster, workers: int | None, threads: int, limits: Limits
    ) -> None:
        self._workload, self._cluster, self._limits = workload, cluster, limits
        self._workers, self._threads, self._gpus = workers, threads, int(workload.gpus > 0)
        self._waiting: deque[Trial] = deque()
        self._live: dict[Any, _Attempt] = {}
        self._retries = Retries()
        self._room, self._looked, self._had_room = 0, -math.inf, -math.inf

    def __enter__(self) -> Self:
        """Look for room, and send data that nodes need.

        Raises:
            FairtrialError: no node has room for a trial.
        """
        try:
            self._look()
            self._task, self._spec, self._data = self._prepare()
        except BaseException:
            self._cluster.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()
        try:
            self._cancel()
        finally:
            self._cluster.close()

    def submit(self, trial: Trial) -> None:
        """Queue a trial."""
        self._waiting.append(trial)

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile. Closing this iterator cancels those that run.

        Raises:
            FairtrialError: the cluster is lost, a node has another version of fairtrial or can't run it at all, or a
                trial's workers end, one after another, before they have begun it.
        """
        try:
            while self._waiting or self._live:
                self._assign()
                ready = self._ready(0)
                if not ready:
                    yield None
                    self._look()
                    ready = self._ready(SECONDS_A_LOOK)
                for attempt in ready:
                    yield from self._hear(attempt)
            yield None
        finally:
            self._cancel()

    def _prepare(self) -> tuple[Any, TaskSpec, list[Any]]:
        """Make the remote function, and put what all tasks share where they find it."""
        data = None if self._cluster.local else self._workload.data
        spec = TaskSpec(
            session=uuid.uuid4().hex,
            version=fairtrial.__version__,
            path=tuple(str(Path(entry).absolute()) for entry in sys.path),
            folder=str(Path.cwd()),
            environment=dict.fromkeys(THREAD_VARIABLES, str(self._threads)),
            limits=self._limits,
            saves=self._workload.checkpoints is not None,
            job=pickle.dumps(WorkerJob.of(self._workload, self._threads, self._limits.memory)),
            place=None if data is None else pickle.dumps(data.place),
        )
        remote = self._cluster.ray.remote(
            num_returns="streaming", max_retries=0, num_cpus=self._threads, num_gpus=self._gpus
        )(task.run_task)
        return remote, spec, [] if data is None else [self._cluster.ray.put(data.gather())]

    def _look(self) -> None:
        """Look, now and then, whether the cluster is there and how many trials it has room for."""
        now = time.monotonic()
        if now - self._looked < SECONDS_A_LOOK:
            return
        self._cluster.check()
        self._looked, room = now, self._cluster.room(self._threads, self._gpus)
        self._room = min(room, self._workers or room)
        if self._room:
            self._had_room = now
        elif now - self._had_room > SECONDS_WITHOUT_NODES:
            has = "has lost all nodes" if math.isfinite(self._had_room) else "has no node"
            raise FairtrialError(f"the Ray cluster {has} with {self._needs()}")

    def _needs(self) -> str:
        cores = "a core" if self._threads == 1 else f"{self._threads} cores"
        return f"{cores} and {self._gpus:g} GPU" if self._gpus else cores

    def _assign(self) -> None:
        """Send out waiting trials as long as there is room."""
        while self._waiting and len(self._live) < self._room:
            trial = self._waiting.popleft()
            reports = self._task.remote(self._spec, trial, self._data)
            self._live[reports] = _Attempt(trial, reports)

    def _ready(self, seconds: float) -> list[_Attempt]:
        """Find the attempts that have something to say, waiting for the first."""
        if not self._live:
            time.sleep(seconds)
            return []
        wanted = 1 if seconds else len(self._live)
        ready, _ = self._cluster.ray.wait([*self._live], num_returns=wanted, timeout=seconds)
        return [self._live[reports] for reports in ready]

    def _hear(self, attempt: _Attempt) -> Iterator[Message]:
        """Take in what an attempt says."""
        for report in self._read(attempt):
            match report:
                case NodeRefused(reason):
                    raise FairtrialError(reason)
                case CheckpointFailed(detail):
                    raise CheckpointError(detail)
                case WorkerDied(cause):
                    yield from self._lose(attempt, cause)
                case Progressed():
                    self._workload.on_progress(report)
                case Ended():
                    self._live.pop(attempt.reports, None)
                    yield self._retries.ended(report)
                case _:
                    attempt.begun |= isinstance(report, Started)
                    yield report

    def _read(self, attempt: _Attempt) -> list[Any]:
        """Read the next reports of an attempt.

        Raises:
            FairtrialError: the cluster is lost, or the task can't run on its node.
        """
        ray, errors = self._cluster.ray, self._cluster.ray.exceptions
        try:
            return list(pickle.loads(ray.get(next(attempt.reports))))  # noqa: S301  (from our own task)
        except StopIteration:
            return [WorkerDied("task ended before its trial")]
        except errors.LocalRayletDiedError:
            self._cluster.declare_lost()
        except errors.TaskCancelledError:
            return [WorkerDied("task was cancelled from outside")]
        except errors.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            raise FairtrialError(f"a node of the Ray cluster can't run trials: {last}") from error
        except errors.RayError as error:
            return [WorkerDied(_describe(error))]
        return []

    def _lose(self, attempt: _Attempt, cause: str) -> Iterator[Message]:
        """Deal with the death of a trial's worker or node."""
        self._cluster.check()  # where all is lost, no single trial is to blame
        self._looked = -math.inf
        self._live.pop(attempt.reports, None)
        end = self._retries.lost(attempt.trial.hash, cause, begun=attempt.begun)
        if end is None:
            self._waiting.appendleft(attempt.trial)
        else:
            yield end

    def _cancel(self) -> None:
        """Cancel what runs; kill what does not end in time."""
        attempts, self._live = [*self._live], {}
        if self._cluster.lost or not attempts:
            return
        ray = self._cluster.ray
        for force, seconds in ((False, task.GRACE + GRACE), (True, GRACE)):
            for reports in attempts:
                ray.cancel(reports, force=force)
            attempts = _unfinished(ray, attempts, time.monotonic() + seconds)
            if not attempts:
                return


def _unfinished(ray: Any, attempts: Iterable[Any], deadline: float) -> list[Any]:
    """Wait until tasks have ended, reading past what they still say; returns those that have not."""
    left = [*attempts]
    while left and (seconds := deadline - time.monotonic()) > 0:
        ready, _ = ray.wait(left, timeout=seconds)
        for reports in ready:
            try:
                ray.get(next(reports))
            except (StopIteration, ray.exceptions.RayError):
                left.remove(reports)
    return left


def _describe(error: Exception) -> str:
    """Say in a line what Ray says about a death, and leave what it advises below that."""
    text = str(error).strip() or type(error).__name__
    first, _, rest = text.partition(". ")
    return f"{first.rstrip('.')}\n{rest}".strip()


def describe_cluster(address: str) -> str:
    """Connect to a cluster, and say in a few words what it has.

    Raises:
        FairtrialError: Ray is not installed, or the cluster can't be reached.
    """
    cluster = RayCluster(address, 1)
    try:
        cluster.check()
        nodes = sum(1 for node in cluster.ray.nodes() if node["Alive"])
        return f"the cluster at {address} has {nodes} nodes, with room for {cluster.room(1, 0)} trials of a core each"
    finally:
        cluster.close()
