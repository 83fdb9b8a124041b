"""Studies on a Ray cluster: what all sessions share, and the one in which each trial is a task."""

import math
import os
import pickle
import sys
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import fairtrial
from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Ended, Message, Workload
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import THREAD_VARIABLES
from fairtrial.executors.local.worker import WorkerJob
from fairtrial.executors.ray import task
from fairtrial.executors.ray.cluster import RayCluster, share_of_gpu
from fairtrial.executors.ray.task import TaskSpec
from fairtrial.executors.session import QueuedSession, WorkerDied
from fairtrial.executors.slots import DEVICE_VARIABLE

if TYPE_CHECKING:
    from fairtrial.trial import Trial

#: Seconds between two checks of the cluster: is it there, and has it grown or shrunk?
SECONDS_A_CHECK = 1.0

#: Seconds for which trials wait if no node has room for one.
SECONDS_WITHOUT_NODES = 60.0

#: Seconds that cancelled tasks get beyond what their workers get, before they are killed; and then to be seen dead.
GRACE = 2.0


class ClusterSession(QueuedSession, ABC):
    """A study on a Ray cluster. Keeps the promises of `executors.base`, and these.

    * A cluster may grow and shrink; there are never more tasks or actors at once than the nodes have room for.
    * What Ray runs gets so many cores and GPUs, and Ray itself retries nothing.
    * The cluster's loss is an error within seconds; what has been reported stays.

    Args:
        workload: of the study.
        cluster: is closed with this session.
        threads: cores of each task or actor.
        per_gpu: how many of them share a GPU; 0 if they need none.
        limits: what a trial may use.
    """

    def __init__(self, workload: Workload, cluster: RayCluster, threads: int, per_gpu: int, limits: Limits) -> None:
        super().__init__(workload)
        self._cluster, self._limits, self._threads, self._per_gpu = cluster, limits, threads, per_gpu
        self._live: dict[Any, Any] = {}  # by what Ray reports through, so that an old report is never read
        self._fit, self._checked, self._had_room = 0, -math.inf, -math.inf

    def __enter__(self) -> Self:
        """Count the room, send data that nodes need, and prepare what Ray runs."""
        ray, data = self._cluster.ray, None if self._cluster.local else self._workload.data
        device = "cuda" if self._per_gpu else os.environ.get(DEVICE_VARIABLE) or "cpu"
        try:
            self._check()
            self._spec = TaskSpec(
                session=uuid.uuid4().hex,
                version=fairtrial.__version__,
                path=tuple(str(Path(entry).absolute()) for entry in sys.path),
                folder=str(Path.cwd()),
                environment=dict.fromkeys(THREAD_VARIABLES, str(self._threads)) | {DEVICE_VARIABLE: device},
                limits=self._limits,
                saves=self._workload.checkpoints is not None,
                job=pickle.dumps(WorkerJob.of(self._workload, self._threads, self._limits.memory)),
                place=None if data is None else pickle.dumps(data.place),
            )
            self._data = [] if data is None else [ray.put(data.gather())]
            self._prepare({"num_cpus": self._threads, "num_gpus": share_of_gpu(self._per_gpu)})
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
            while self._waiting or self._alone or self._running():
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

    @abstractmethod
    def _prepare(self, resources: dict[str, float]) -> None:
        """Make what Ray runs with so many resources."""

    @abstractmethod
    def _running(self) -> int:
        """Count the trials that run, or were sent out to run."""

    @abstractmethod
    def _assign(self) -> None:
        """Send out waiting trials as long as there is room."""

    @abstractmethod
    def _take_in(self, reports: Any) -> Iterator[Message]:
        """Read and handle the next reports of a key of ``_live``."""

    @abstractmethod
    def _cancel(self) -> None:
        """Cancel what runs; kill what does not end in time."""

    def _check(self) -> None:
        """Check now and then that the cluster is there, and how much it has room for."""
        now = time.monotonic()
        if now - self._checked < SECONDS_A_CHECK:
            return
        self._cluster.check()
        self._checked, self._fit = now, self._cluster.room(self._threads, self._per_gpu)
        if self._fit:
            self._had_room = now
        elif now - self._had_room > SECONDS_WITHOUT_NODES:
            has = "has lost all nodes" if math.isfinite(self._had_room) else "has no node"
            cores = "a core" if self._threads == 1 else f"{self._threads} cores"
            needs = f"{cores} and {share_of_gpu(self._per_gpu):g} GPU" if self._per_gpu else cores
            raise FairtrialError(f"the Ray cluster {has} with {needs}")

    def _ready(self, seconds: float) -> list[Any]:
        """Find what has reports to read, waiting for the first."""
        if not self._live:
            time.sleep(seconds)
            return []
        wanted = 1 if seconds else len(self._live)
        ready, _ = self._cluster.ray.wait([*self._live], num_returns=wanted, timeout=seconds)
        return list(ready)

    def _read(self, get: Callable[[], bytes]) -> Any:
        """Read what Ray delivers, or how what should have sent it died.

        Raises:
            FairtrialError: the cluster is lost, or its node unusable.
        """
        errors = self._cluster.ray.exceptions
        try:
            return pickle.loads(get())  # noqa: S301  (from our own task or actor)
        except StopIteration:
            return WorkerDied("task ended before its trial")
        except errors.LocalRayletDiedError:
            self._cluster.declare_lost()
        except errors.TaskCancelledError:
            return WorkerDied("task was cancelled from outside")
        except errors.RayTaskError as error:
            if isinstance(error.cause, FairtrialError):
                raise error.cause from error
            last = str(error).strip().splitlines()[-1]
            raise FairtrialError(f"a node of the Ray cluster can't run trials: {last}") from error
        except errors.RayError as error:  # Ray's first sentence says what happened; what it advises goes below
            line, _, more = (str(error).strip() or type(error).__name__).partition("\n")
            first, _, rest = line.partition(". ")
            memory = isinstance(error, errors.OutOfMemoryError)
            return WorkerDied("\n".join(filter(None, [first.rstrip("."), rest, more])), memory)

    def _check_after_death(self) -> None:
        """Check that the cluster is there: where the whole of it is lost, no single trial is to blame."""
        self._cluster.check()
        self._checked = -math.inf


class RaySession(ClusterSession):
    """A study whose trials are tasks, each with a worker process beside it. Keeps the promises of `executors.base`.

    * Ray decides where a task runs. Trials start in the order of submission.
    * A trial whose worker or node has died is retried once, from its last checkpoint if all nodes see the checkpoints.
      A second death fails it.
    * Reports come through Ray's streaming generators, whose owner is this process: they come in order, need no mailbox
      actor that could die by itself, and end in the error that ended the task.
    * Leaving the context cancels all tasks, and kills those that have not ended seconds later. Ray is shut down if this
      session has connected to it.
    """

    def __init__(
        self,
        workload: Workload,
        cluster: RayCluster,
        threads: int,
        per_gpu: int,
        limits: Limits,
        *,
        workers: int | None = None,
    ) -> None:
        super().__init__(workload, cluster, threads, per_gpu, limits)
        self._workers = workers
        self._live: dict[Any, Trial] = {}  # by the generator of an attempt's reports

    def _prepare(self, resources: dict[str, float]) -> None:
        remote = self._cluster.ray.remote
        self._task = remote(num_returns="streaming", max_retries=0, **resources)(task.run_task)

    def _running(self) -> int:
        return len(self._live)

    def _assign(self) -> None:
        room = min(self._fit, self._workers or self._fit)
        while len(self._live) < room and (trial := self._next(len(self._live))):
            self._live[self._task.remote(self._spec, pickle.dumps(trial), self._data)] = trial

    def _take_in(self, reports: Any) -> Iterator[Message]:
        trial = self._live[reports]
        found = self._read(lambda: self._cluster.ray.get(next(reports)))
        for report in [found] if isinstance(found, WorkerDied) else found:
            if isinstance(report, WorkerDied):
                self._check_after_death()
            if isinstance(report, Ended | WorkerDied):
                self._live.pop(reports, None)
            yield from self._handle(trial, report)

    def _cancel(self) -> None:
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
