"""Runs trials as tasks of a Ray cluster, or of a Ray on this machine: ``pip install "fairtrial[ray]"``."""

import math
import pickle
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import fairtrial
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Message, Workload, check_importable
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import THREAD_VARIABLES
from fairtrial.executors.local.worker import WorkerJob
from fairtrial.executors.ray import task
from fairtrial.executors.ray.cluster import RayCluster, check_installed
from fairtrial.executors.ray.task import TaskSpec
from fairtrial.executors.session import QueuedSession, WorkerDied
from fairtrial.executors.slots import check_counts, usable_cores
from fairtrial.registry import EXECUTORS

if TYPE_CHECKING:
    from fairtrial.trial import Trial

#: Seconds between two checks of the cluster: is it there, and has it grown or shrunk?
SECONDS_A_CHECK = 1.0

#: Seconds for which trials wait if no node has room for one.
SECONDS_WITHOUT_NODES = 60.0

#: Seconds that cancelled tasks get beyond what their workers get, before they are killed; and then to be seen dead.
GRACE = 2.0


@EXECUTORS.register("ray")
class RayExecutor:
    """Runs trials as Ray tasks.

    On nodes with the same files, training loops are found by this process's ``sys.path``. Others need the same version
    of fairtrial, and the module of a training loop, installed.

    Args:
        address: ``"auto"`` or ``"host:port"`` of a cluster that this machine belongs to; by default Ray is started on
            this machine. If this process is connected to a Ray already, that is used.
        workers: trials side by side at most, at least 1; by default as many as the cluster has room for.
        threads: cores of each trial, and threads that its numeric libraries may start, at least 1; by default 1.
        checkpoints: the folder or URL where trials save their state, which all nodes must see; by default a folder
            beside the store.
        time_limit: seconds that an attempt at a trial may take; one that takes longer has failed. None: no limit.
        memory_limit: bytes that each worker may ask for; a trial that asks for more, on the second attempt too, has
            failed. None: no limit.

    Raises:
        FairtrialError: a number that is not allowed, or Ray is not installed.

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
        """Connect to the cluster, and open a session for a study; a FairtrialError if that is impossible."""
        check_importable(workload.trials)
        if workload.checkpoints is not None and "://" not in workload.checkpoints.location:
            location = str(Path(workload.checkpoints.location).absolute())  # nodes have another working folder
            workload = replace(workload, checkpoints=replace(workload.checkpoints, location=location))
        cores = (self._workers or max(1, usable_cores() // self._threads)) * self._threads
        return RaySession(workload, RayCluster(self._address, cores), self._workers, self._threads, self.limits)


class RaySession(QueuedSession):
    """A study on a Ray cluster. Keeps the promises of `executors.base`, and these.

    * Ray decides where a task runs; there are never more at once than the nodes have room for, so that trials start in
      the order of submission. A cluster may grow and shrink.
    * A trial whose worker or node has died is retried once, from its last checkpoint if all nodes see the checkpoints.
      A second death fails it. Ray itself retries nothing.
    * Reports come through Ray's streaming generators, whose owner is this process: they come in order, need no mailbox
      actor that could die by itself, and end in the error that ended the task.
    * Leaving the context cancels all tasks, and kills those that have not ended seconds later. Ray is shut down if this
      session has connected to it.
    * The cluster's loss is an error within seconds; what has been reported stays.
    """

    def __init__(
        self, workload: Workload, cluster: RayCluster, workers: int | None, threads: int, limits: Limits
    ) -> None:
        super().__init__(workload)
        self._cluster, self._limits = cluster, limits
        self._workers, self._threads, self._gpus = workers, threads, int(workload.gpus > 0)
        self._live: dict[Any, Trial] = {}  # by the generator of an attempt's reports, so that an old one is never read
        self._room, self._checked, self._had_room = 0, -math.inf, -math.inf

    def __enter__(self) -> Self:
        """Count the room, make the remote function, and send data that nodes need."""
        ray, data = self._cluster.ray, None if self._cluster.local else self._workload.data
        try:
            self._check()
            self._spec = TaskSpec(
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
            resources = {"num_cpus": self._threads, "num_gpus": self._gpus}
            self._task = ray.remote(num_returns="streaming", max_retries=0, **resources)(task.run_task)
            self._data = [] if data is None else [ray.put(data.gather())]
        except BaseException:
            self._cluster.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        with closing(self._cluster):
            self._cancel()

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile. Closing this iterator cancels those that run."""
        try:
            while self._waiting or self._alone or self._live:
                self._assign()
                ready = self._ready(0)
                if not ready:
                    yield None
                    self._check()
                    ready = self._ready(SECONDS_A_CHECK)
                for reports in ready:
                    yield from self._take_in(reports)
            yield None
        finally:
            self._cancel()

    def _check(self) -> None:
        """Check now and then that the cluster is there, and how many trials it has room for."""
        now = time.monotonic()
        if now - self._checked < SECONDS_A_CHECK:
            return
        self._cluster.check()
        self._checked, room = now, self._cluster.room(self._threads, self._gpus)
        self._room = min(room, self._workers or room)
        if self._room:
            self._had_room = now
        elif now - self._had_room > SECONDS_WITHOUT_NODES:
            has = "has lost all nodes" if math.isfinite(self._had_room) else "has no node"
            cores = "a core" if self._threads == 1 else f"{self._threads} cores"
            needs = f"{cores} and {self._gpus:g} GPU" if self._gpus else cores
            raise FairtrialError(f"the Ray cluster {has} with {needs}")

    def _assign(self) -> None:
        """Send out waiting trials as long as there is room."""
        while len(self._live) < self._room and (trial := self._next(len(self._live))):
            self._live[self._task.remote(self._spec, pickle.dumps(trial), self._data)] = trial

    def _ready(self, seconds: float) -> list[Any]:
        """Find the attempts that have reports to read, waiting for the first."""
        if not self._live:
            time.sleep(seconds)
            return []
        wanted = 1 if seconds else len(self._live)
        ready, _ = self._cluster.ray.wait([*self._live], num_returns=wanted, timeout=seconds)
        return list(ready)

    def _take_in(self, reports: Any) -> Iterator[Message]:
        """Read and handle the next reports of an attempt."""
        trial = self._live[reports]
        for report in self._read(reports):
            if isinstance(report, WorkerDied):
                self._cluster.check()  # where the whole cluster is lost, no single trial is to blame
                self._checked = -math.inf
            if isinstance(report, Ended | WorkerDied):
                self._live.pop(reports, None)
            yield from self._handle(trial, report)

    def _read(self, reports: Any) -> list[Any]:
        """Read the next reports of an attempt; raise a FairtrialError if the cluster is lost or its node unusable."""
        ray, errors = self._cluster.ray, self._cluster.ray.exceptions
        try:
            return list(pickle.loads(ray.get(next(reports))))  # noqa: S301  (from our own task)
        except StopIteration:
            return [WorkerDied("task ended before its trial")]
        except errors.LocalRayletDiedError:
            self._cluster.declare_lost()
        except errors.TaskCancelledError:
            return [WorkerDied("task was cancelled from outside")]
        except errors.RayTaskError as error:
            if isinstance(error.cause, FairtrialError):
                raise error.cause from error
            last = str(error).strip().splitlines()[-1]
            raise FairtrialError(f"a node of the Ray cluster can't run trials: {last}") from error
        except errors.RayError as error:  # Ray's first sentence says what happened; what it advises goes below
            first, _, rest = (str(error).strip() or type(error).__name__).partition(". ")
            memory = isinstance(error, errors.OutOfMemoryError)
            return [WorkerDied(f"{first.rstrip('.')}\n{rest}".strip(), memory)]

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


def _unfinished(ray: Any, left: list[Any], deadline: float) -> list[Any]:
    """Wait until tasks have ended, discarding their reports; return those that have not."""
    while left and (seconds := deadline - time.monotonic()) > 0:
        ready, _ = ray.wait(left, timeout=seconds)
        for reports in ready:
            try:
                ray.get(next(reports))
            except (StopIteration, ray.exceptions.RayError):
                left.remove(reports)
    return left


def describe_cluster(address: str) -> str:
    """Connect to a cluster and describe its room; a FairtrialError if it can't be reached or Ray is not installed."""
    with closing(RayCluster(address, 1)) as cluster:
        cluster.check()
        nodes = sum(1 for node in cluster.ray.nodes() if node["Alive"])
        return f"the cluster at {address} has {nodes} nodes, with room for {cluster.room(1, 0)} trials of a core each"
