"""Trials as tasks of a Ray cluster, or of a Ray on this machine: ``pip install "fairtrial[ray]"``."""

import math
import pickle
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import fairtrial
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import CheckpointError, FairtrialError
from fairtrial.executors.base import CheckpointFailed, Ended, Message, Started, TrainingLoop
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import FALSE_STARTS, THREAD_VARIABLES, check_importable
from fairtrial.executors.local.worker import ProgressReport, WorkerJob
from fairtrial.executors.ray import task
from fairtrial.executors.ray.cluster import RayCluster
from fairtrial.executors.ray.task import NodeRefused, TaskSpec, WorkerDied
from fairtrial.executors.slots import check_counts, usable_cores
from fairtrial.trial import Machine, Outcome, Trial

#: How often a trial may begin. One death may be the node's bad luck; a second is likely the trial's own doing.
ATTEMPTS = 2

#: Seconds between two looks at the cluster: is it there, and has it grown or shrunk?
SECONDS_A_LOOK = 1.0

#: Seconds for which trials wait for a node if there is none with room for one.
SECONDS_WITHOUT_NODES = 60.0

#: Seconds that cancelled tasks get beyond what their workers get, before they are killed; and those to see them dead.
GRACE = 2.0


@dataclass(frozen=True)
class NodeData:
    """Data that every node needs, for nodes that can't get them by themselves.

    Attributes:
        gather: called here, once, where the cluster was not started here; what it returns goes into Ray's object store.
        place: called once on each node before its first trial, with a function that gets what ``gather`` returned. A
            function that nodes can import.
    """

    gather: Callable[[], object]
    place: Callable[[Callable[[], object]], None]


@dataclass(eq=False)
class _Attempt:
    """A trial on its way through Ray. Messages are read from attempts, so that one given up is never heard again."""

    trial: Trial
    reports: Any
    started: bool = False


class RayExecutor:
    """Runs trials as Ray tasks.

    Keeps the promises of `executors.base`, and these:

    * Ray decides where a task runs; there are never more at once than the nodes have room for, so that trials start in
      the order of submission. A cluster that grows is used; nodes that are lost are done without.
    * A trial whose worker or node has died begins again, once, from its last checkpoint if there are checkpoints in a
      place that all nodes see. A second death fails it, with what is known as the detail. Ray retries nothing.
    * Reports come through Ray's streaming generators, whose owner is this process: they come in order, need no mailbox
      actor that could die by itself, and end in the error that ended the task.
    * Leaving the context cancels all tasks, and kills those that have not ended seconds later. Ray is shut down if this
      executor has connected to it.
    * The cluster's loss is an error within seconds; what has been told stays told.

    On nodes with the same files, loops are found by this process's ``sys.path``. Others need the same version of
    fairtrial, and the module of a training loop, installed.

    Args:
        loop: the training loop; a function that a worker can import, as ``machine`` and ``set_up`` must be too.
        machine: describes the machine that a worker sees; called in the worker, with each trial.
        address: ``"auto"`` or ``"host:port"`` of a cluster that this machine belongs to; by default Ray is started on
            this machine. If this process is connected to a Ray already, that is used.
        workers: trials side by side at most, from 1; by default as many as the cluster has room for.
        threads: cores of each trial, and threads that its numeric libraries may start, from 1.
        gpus: GPUs of each trial.
        set_up: called in each worker process before its first trial.
        environment: variables of the workers.
        checkpoints: where trials may keep their state, or None.
        supplies: data for nodes that lack them, or None.
        limits: what a trial may use.

    Raises:
        FairtrialError: a number below 1, or a function that workers can't import.

    Example:
        >>> with RayExecutor(loop, machine, address="auto") as executor:  # doctest: +SKIP
        ...     executor.submit(trial)
        ...     for message in executor.messages(): ...
    """

    def __init__(
        self,
        loop: TrainingLoop,
        machine: Callable[[Trial], Machine],
        *,
        address: str | None = None,
        workers: int | None = None,
        threads: int = 1,
        gpus: float = 0,
        set_up: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
        checkpoints: CheckpointManager | None = None,
        supplies: NodeData | None = None,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        check_counts(workers=workers, threads=threads)
        self.checkpoints = checkpoints
        self._limits = limits
        self._job = WorkerJob(loop, machine, set_up, checkpoints, limits.memory)
        check_importable(self._job)
        self._address, self._workers, self._threads, self._gpus = address, workers, threads, gpus
        self._environment = dict.fromkeys(THREAD_VARIABLES, str(threads)) | dict(environment or {})
        self._supplies = supplies
        self._cluster: RayCluster | None = None
        self._waiting: deque[Trial] = deque()
        self._live: dict[Any, _Attempt] = {}
        self._begun: Counter[str] = Counter()
        self._false_starts: Counter[str] = Counter()
        self._room, self._looked, self._had_room = 0, -math.inf, -math.inf

    def __enter__(self) -> Self:
        """Connect to the cluster.

        Raises:
            FairtrialError: Ray is not installed, the cluster can't be reached, or no node has room for a trial.
        """
        cores = (self._workers or max(1, usable_cores() // self._threads)) * self._threads
        self._cluster = cluster = RayCluster(self._address, cores)
        try:
            self._look(cluster)
            self._task, self._order, self._goods = self._prepare(cluster)
        except BaseException:
            cluster.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()
        if self._cluster is not None:
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
        cluster = self._connected()
        try:
            while self._waiting or self._live:
                self._assign()
                ready = self._ready(cluster, 0)
                if not ready:
                    yield None
                    self._look(cluster)
                    ready = self._ready(cluster, SECONDS_A_LOOK)
                for attempt in ready:
                    yield from self._hear(cluster, attempt)
            yield None
        finally:
            self._cancel()

    def _connected(self) -> RayCluster:
        if self._cluster is None:
            raise RuntimeError("enter the executor's context before its messages are read")
        return self._cluster

    def _prepare(self, cluster: RayCluster) -> tuple[Any, Any, list[Any]]:
        """Make the remote function, and put what all tasks share where they find it."""
        order = TaskSpec(
            key=uuid.uuid4().hex,
            version=fairtrial.__version__,
            path=tuple(str(Path(entry).absolute()) for entry in sys.path),
            folder=str(Path.cwd()),
            environment=self._environment,
            limits=self._limits,
            keeps=self.checkpoints is not None,
            job=pickle.dumps(self._job),
            place=None if cluster.local or self._supplies is None else pickle.dumps(self._supplies.place),
        )
        remote = cluster.ray.remote(
            num_returns="streaming", max_retries=0, num_cpus=self._threads, num_gpus=self._gpus
        )(task.run_trial)
        needed = self._supplies is not None and not cluster.local
        goods = [cluster.ray.put(self._supplies.gather())] if needed and self._supplies else []
        return remote, order, goods

    def _look(self, cluster: RayCluster) -> None:
        """Look, now and then, whether the cluster is there and how many trials it has room for."""
        now = time.monotonic()
        if now - self._looked < SECONDS_A_LOOK:
            return
        cluster.check()
        self._looked, room = now, cluster.room(self._threads, self._gpus)
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
            reports = self._task.remote(self._order, replace(trial, listener=None, keeper=None), self._goods)
            self._live[reports] = _Attempt(trial, reports)

    def _ready(self, cluster: RayCluster, seconds: float) -> list[_Attempt]:
        """Find the attempts that have something to say, waiting for the first."""
        if not self._live:
            time.sleep(seconds)
            return []
        wanted = 1 if seconds else len(self._live)
        ready, _ = cluster.ray.wait([*self._live], num_returns=wanted, timeout=seconds)
        return [self._live[reports] for reports in ready]

    def _hear(self, cluster: RayCluster, attempt: _Attempt) -> Iterator[Message]:
        """Take in what an attempt says."""
        trial = attempt.trial
        for report in self._read(cluster, attempt):
            match report:
                case NodeRefused(reason):
                    raise FairtrialError(reason)
                case CheckpointFailed(detail=detail):
                    raise CheckpointError(detail)
                case WorkerDied(cause):
                    yield from self._bury(cluster, attempt, cause)
                case ProgressReport(batch, batches, metrics):
                    if trial.listener is not None:
                        trial.listener(trial, batch, batches, metrics)
                case Started():
                    attempt.started = True
                    self._begun[trial.hash] += 1
                    yield replace(report, trial=trial)
                case Ended():
                    self._forget(attempt)
                    yield replace(report, trial=trial)
                case _:
                    yield replace(report, trial=trial)

    def _read(self, cluster: RayCluster, attempt: _Attempt) -> list[Any]:
        """Read the next reports of an attempt.

        Raises:
            FairtrialError: the cluster is lost, or the task can't run on its node.
        """
        errors = cluster.ray.exceptions
        try:
            return list(pickle.loads(cluster.ray.get(next(attempt.reports))))  # noqa: S301  (from our own task)
        except StopIteration:
            return [WorkerDied("task ended before its trial")]
        except errors.LocalRayletDiedError:
            cluster.declare_lost()
        except errors.TaskCancelledError:
            return [WorkerDied("task was cancelled from outside")]
        except errors.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            raise FairtrialError(f"a node of the Ray cluster can't run trials: {last}") from error
        except errors.RayError as error:
            return [WorkerDied(_describe(error))]
        return []

    def _bury(self, cluster: RayCluster, attempt: _Attempt, cause: str) -> Iterator[Message]:
        """Deal with the death of a trial's worker or node."""
        cluster.check()  # where all is lost, no single trial is to blame
        self._looked = -math.inf
        self._forget(attempt)
        trial = attempt.trial
        if attempt.started and self._begun[trial.hash] >= ATTEMPTS:
            yield Ended(trial, Outcome.FAILED, cause, datetime.now(UTC))
            return
        if not attempt.started:
            self._false_starts[trial.hash] += 1
            if self._false_starts[trial.hash] == FALSE_STARTS:
                raise FairtrialError(f"workers end before they can begin a trial: {cause.splitlines()[0]}")
        self._waiting.appendleft(trial)

    def _forget(self, attempt: _Attempt) -> None:
        self._live.pop(attempt.reports, None)

    def _cancel(self) -> None:
        """Cancel what runs; kill what does not end in time."""
        cluster = self._connected()
        attempts, self._live = [*self._live], {}
        if cluster.lost or not attempts:
            return
        for force, seconds in ((False, task.GRACE + GRACE), (True, GRACE)):
            for reports in attempts:
                cluster.ray.cancel(reports, force=force)
            attempts = _unfinished(cluster.ray, attempts, time.monotonic() + seconds)
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
        nodes = sum(1 for node in cluster.ray.nodes() if node["Heartbeat"])
        return f"the cluster at {address} has {nodes} nodes, with room for {cluster.room(1, 0)} trials of a core each"
    finally:
        cluster.close()
