"""Runs many trials side by side on each GPU of this machine, in one process a GPU."""

import pickle
from dataclasses import replace

from fairtrial.executors.base import Session, Workload, check_importable
from fairtrial.executors.cuda.levels import MOST
from fairtrial.executors.cuda.process import TrialsProcess
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import LocalExecutor, LocalSession
from fairtrial.executors.local.worker import WorkerJob
from fairtrial.executors.session import SharingSession
from fairtrial.executors.slots import Slots, check_counts, usable_cores
from fairtrial.registry import EXECUTORS
from fairtrial.spec import BUILT_IN

#: Trials side by side on each GPU of a cluster, where nobody measures how many pay off, unless a user says otherwise.
#: On an H200, 16 were as fast together as 32, and four reached three quarters of it (docs/gpu.md).
TRIALS_PER_GPU = 16


@EXECUTORS.register("cuda")
class CudaExecutor:
    """Runs trials of fairtrial's own loop on GPUs: one process a GPU, in which many trials take turns.

    Trials of a training loop of one's own can't take turns. A study that has any runs as with `LocalExecutor`.

    Args:
        trials_per_gpu: trials side by side on each GPU, at least 1, if its memory allows. By default as many as pay
            off, at most 32: each process measures that at its start, by turns a second.
        threads: threads of each process, at least 1; by default 1.
        checkpoints: the folder or URL where trials save their state; by default a folder beside the store.
        time_limit: seconds that an attempt at a trial may take; one that takes longer has failed. None: no limit.

    Raises:
        FairtrialError: a number that is not allowed.

    Attributes:
        limits: what a trial may use.

    Example:
        >>> CudaExecutor(trials_per_gpu=4, time_limit=3600).limits.time
        3600
    """

    def __init__(
        self,
        trials_per_gpu: int | None = None,
        threads: int | None = None,
        *,
        checkpoints: str | None = None,
        time_limit: float | None = None,
    ) -> None:
        check_counts(trials_per_gpu=trials_per_gpu, threads=threads)
        self.checkpoints = checkpoints
        self.limits = Limits(time_limit)
        self._side_by_side, self._threads = trials_per_gpu, threads

    def open(self, workload: Workload) -> Session:
        """Open a session for a study.

        Raises:
            StudyError: workers can't import a training loop.
        """
        check_importable(workload.trials)
        if not takes_turns(workload):
            local = LocalExecutor(threads=self._threads, checkpoints=self.checkpoints)
            local.limits = self.limits
            return local.open(workload)
        return CudaSession(workload, self._side_by_side, self._threads or 1, self.limits)


def takes_turns(workload: Workload) -> bool:
    """Whether all trials can take turns in one process: only fairtrial's own loop gives others a turn."""
    return all(trial.settings.training.loop == BUILT_IN for trial in workload.trials)


class CudaSession(SharingSession, LocalSession):
    """A study in one process a GPU, or in one process on a machine without. Keeps the promises of `executors.base`.

    * A process starts a trial as soon as it has it, if its GPU has memory for one more. Unless the user gave a number,
      it gets one trial at first, and more as it asks for them, so that none waits there while another GPU is idle.
    * A process that dies gives all its trials back; see `SharingSession`.
    * Where a trial exceeds its time limit its process is ended, and the others of that process are run again.
    """

    process = TrialsProcess

    def __init__(self, workload: Workload, side_by_side: int | None, threads: int, limits: Limits) -> None:
        processes = max(1, min(workload.gpus, len(workload.trials)))
        share = -(-len(workload.trials) // processes)  # so that all GPUs get about as many
        self._most = min(side_by_side or MOST, share)
        workers = min(len(workload.trials), processes * self._most)
        super().__init__(workload, Slots(workers, threads, usable_cores(), processes), limits)
        self._room = dict.fromkeys(range(processes), self._most)
        self._measures = side_by_side is None
        if self._measures:
            self._job = pickle.dumps(replace(WorkerJob.of(workload, threads, limits.memory), measures=True))

    def _room_of(self, number: int) -> int:
        if not self._measures:
            return self._room[number]
        worker = self._workers.get(number)
        asked_for = (worker and worker.room) or 1
        return min(self._room[number], asked_for)
