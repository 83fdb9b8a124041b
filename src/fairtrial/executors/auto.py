"""Chooses the executor that suits this machine and the study: GPUs with many trials each, or worker processes."""

from fairtrial.errors import FairtrialError
from fairtrial.executors.base import Executor, Session, Workload
from fairtrial.executors.cuda.executor import CudaExecutor, takes_turns
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.registry import EXECUTORS


@EXECUTORS.register("auto")
class AutoExecutor:
    """Runs trials as `CudaExecutor` does where there are GPUs and fairtrial's own loop, else as `LocalExecutor` does.

    Args:
        workers: worker processes, as of `LocalExecutor`, which then runs the trials, on GPUs too.
        threads: as of both.
        trials_per_gpu: as of `CudaExecutor`.
        checkpoints: as of both.
        time_limit: as of both.
        memory_limit: as of `LocalExecutor`, which then runs the trials.

    Raises:
        FairtrialError: a number that is not allowed, or two that exclude each other.

    Example:
        >>> AutoExecutor(time_limit=3600).checkpoints is None
        True
    """

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        *,
        trials_per_gpu: int | None = None,
        checkpoints: str | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self._local = LocalExecutor(
            workers, threads, checkpoints=checkpoints, time_limit=time_limit, memory_limit=memory_limit
        )
        self._cuda = CudaExecutor(trials_per_gpu, threads, checkpoints=checkpoints, time_limit=time_limit)
        for name, value in (("workers", workers), ("memory_limit", memory_limit)):
            if value is not None and trials_per_gpu is not None:
                raise FairtrialError(f"trials_per_gpu: excludes {name}, which is of processes with one trial each")
        self._by_processes = workers is not None or memory_limit is not None
        self._trials_per_gpu = trials_per_gpu

    def choose(self, workload: Workload) -> Executor:
        """Choose the executor of a study; a FairtrialError where what was asked for needs a GPU and there is none."""
        return self._cuda if self.shares_gpus(workload.gpus, takes_turns=takes_turns(workload)) else self._local

    def shares_gpus(self, gpus: int, *, takes_turns: bool) -> bool:
        """Whether trials, which can take turns or not, would share so many GPUs; see `choose`."""
        if self._trials_per_gpu is not None and not gpus:
            raise FairtrialError("trials_per_gpu: there is no GPU to train on; leave it out")
        return gpus > 0 and not self._by_processes and takes_turns

    def open(self, workload: Workload) -> Session:
        """Open a session for a study."""
        return self.choose(workload).open(workload)
