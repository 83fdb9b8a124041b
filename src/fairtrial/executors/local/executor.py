"""Runs trials in worker processes on this machine, as many side by side as there are workers."""

import pickle
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from multiprocessing.connection import wait
from time import monotonic
from typing import ClassVar

from fairtrial import signals
from fairtrial.executors.base import Message, Workload, check_importable
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.process import WorkerProcess, end_all
from fairtrial.executors.local.worker import WorkerJob
from fairtrial.executors.session import CantContinue, QueuedSession, Report, WorkerDied
from fairtrial.executors.slots import Slots, check_counts, choose_slots
from fairtrial.registry import EXECUTORS

#: Seconds between two checks whether a worker has died unnoticed.
SECONDS_A_CHECK = 1.0

#: Seconds that a worker gets to save its state and end when the study is stopped, and more for each further trial.
SECONDS_TO_STOP, SECONDS_A_SAVE = 3.0, 1.0

#: Variables by which the numeric libraries learn, when they are loaded, how many threads they may start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@EXECUTORS.register("local")
class LocalExecutor:
    """Runs trials in worker processes on this machine.

    Args:
        workers: processes, at least 1; by default one a GPU, or as many as the cores have room for.
        threads: threads of each, at least 1; by default 1. Another number can change the last bits of the records.
        checkpoints: the folder or URL where trials save their state; by default a folder beside the store.
        time_limit: seconds that an attempt at a trial may take; one that takes longer has failed. None: no limit.
        memory_limit: bytes that each worker may ask for; a trial that asks for more, on the second attempt too, has
            failed. None: no limit.

    Raises:
        FairtrialError: a number that is not allowed.

    Attributes:
        limits: what a trial may use.

    Example:
        >>> LocalExecutor(workers=2, time_limit=3600).limits.time
        3600
    """

    def __init__(
        self,
        workers: int | None = None,
        threads: int | None = None,
        *,
        checkpoints: str | None = None,
        time_limit: float | None = None,
        memory_limit: int | None = None,
    ) -> None:
        check_counts(workers=workers, threads=threads)
        self.checkpoints = checkpoints
        self.limits = Limits(time_limit, memory_limit)
        self._workers, self._threads = workers, threads

    def open(self, workload: Workload) -> "LocalSession":
        """Open a session for a study; a StudyError refuses a training loop that workers can't import."""
        check_importable(workload.trials)
        slots = choose_slots(len(workload.trials), self._workers, self._threads, gpus=workload.gpus)
        # One thread a worker: several are a choice of the user's, by which products are divided.
        shared = (
            1 if slots.threads > 1 or self.limits.memory is not None else min(slots.cores, self._workers or slots.cores)
        )
        return LocalSession(workload, slots, self.limits, shared)


class LocalSession(QueuedSession):
    """A study in worker processes. Keeps the promises of `executors.base`, and these.

    * Each worker is a Python of its own that runs one trial at a time, and stays for the next. It starts when there is
      a trial for it. It gets this process's ``sys.path``, environment and working folder, and does not import the main
      module: scripts need no ``if __name__ == "__main__"``, and what they define can't be a training loop.
    * A worker that dies is replaced, and its trial is retried once. A worker that is silent for too long is killed and
      counts as dead; what it may still report is not read.
    * Once fewer trials are left than cores, each running trial may use its share of them, until another one starts.
      Cores that the user gave no worker stay free; where memory is limited there is no help, as it takes a little.
    * Each worker has a process group of its own: Ctrl-C on a terminal reaches this process alone.
    * Leaving the context ends the workers. Those that run a trial which can save its state get three seconds for it;
      then they are killed. What a training loop has started ends with its worker, and all end with this process, even
      if that is killed.
    """

    slots: Slots
    process: ClassVar[type[WorkerProcess]] = WorkerProcess

    def __init__(self, workload: Workload, slots: Slots, limits: Limits, shared: int = 1) -> None:
        super().__init__(workload)
        self.slots = slots
        self._limits = limits
        self._shared = shared  # cores for all trials together
        self._job = pickle.dumps(WorkerJob.of(workload, slots.threads, limits.memory))
        self._room = dict.fromkeys(range(slots.workers), 1)  # trials that each worker may have, by its number
        self._workers: dict[int, WorkerProcess] = {}
        self._checked = monotonic()
        self._stop_by: float | None = None

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        self._dismiss([*self._workers])

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile. Closing this iterator ends the busy workers."""
        try:
            self._checked = monotonic()
            self._assign()
            self._share_cores()
            while self._busy():
                numbers = {worker.connection: number for number, worker in self._workers.items()}
                ready = wait([*numbers], 0)
                if not ready:
                    yield None
                    left = min((worker.seconds_left() for worker in self._workers.values()), default=SECONDS_A_CHECK)
                    ready = wait([*numbers], min(SECONDS_A_CHECK, max(0.0, left)))
                yield from self._read([numbers[connection] for connection in ready if connection in numbers])
                self._assign()
                self._share_cores()
            yield None
        except GeneratorExit:
            self._dismiss(self._busy())
            raise
        except BaseException:
            self._ask_to_stop(self._busy())  # they save their state while the runner writes the earlier messages
            raise

    def _busy(self) -> list[int]:
        return [number for number, worker in self._workers.items() if worker.trials]

    def _running(self, number: int) -> int:
        return len(self._workers[number].trials) if number in self._workers else 0

    def _room_of(self, number: int) -> int:
        """Trials that a worker may have now."""
        return self._room[number]

    def _assign(self) -> None:
        """Give waiting trials to the workers that have the fewest, starting those that are needed."""
        while True:
            number = min(self._room, key=lambda one: (self._running(one) / self._room_of(one), one))
            if self._running(number) >= self._room_of(number):
                return
            trial = self._next(sum(map(self._running, self._workers)))
            if trial is None:
                return
            if trial.hash == self._lone:  # the memory of the idle workers too
                end_all([self._workers.pop(other) for other in [*self._workers]])
            if number not in self._workers:
                self._workers[number] = self._start(number)
            self._workers[number].give(trial)

    def _start(self, number: int) -> WorkerProcess:
        variables = dict.fromkeys(THREAD_VARIABLES, str(self.slots.threads))
        if self._workload.environment:
            variables |= self._workload.environment(number)
        with signals.delayed():  # a signal now would leave a worker that nobody knows
            return self.process(self._job, variables, self._limits)

    def _share_cores(self) -> None:
        """Tell the busy workers how many cores each may use now."""
        if self._workload.use_cores is None:
            return
        busy = self._busy()
        more = bool(self._waiting or self._alone)  # trials that will take a core each, or all the memory there is
        for number in busy:
            self._workers[number].use_cores(1 if more or self._lone else max(1, self._shared // len(busy)))

    def _read(self, ready: Collection[int]) -> Iterator[Message]:
        """Read a report of each worker that has one, and check all workers."""
        now = monotonic()
        passed, self._checked = min(now - self._checked, 2 * SECONDS_A_CHECK), now
        for number, worker in [*self._workers.items()]:
            if number in ready:
                yield from self._take_in(number, worker.read)
            if worker.alive:
                yield from self._take_in(number, partial(worker.check, 0.0 if number in ready else passed))

    def _take_in(self, number: int, listen: Callable[[], Report | None]) -> Iterator[Message]:
        """Handle the report of a worker, if there is one; where the worker has died, its trials run again."""
        worker = self._workers[number]
        held = dict(worker.trials)
        report = listen()
        if not worker.alive:
            del self._workers[number]
        if report is None or not held:
            return
        if isinstance(report, WorkerDied):
            yield from self._lost(number, [*held.values()], report)
        elif isinstance(report, CantContinue):
            raise report.error
        elif trial := held.pop(report.trial_id, None):
            yield from self._handle(trial, report)
            if not worker.alive:  # this one took too long, and the others are not to blame
                self._put_back([*held.values()])

    def _ask_to_stop(self, numbers: Iterable[int]) -> None:
        """Ask the workers whose trials can save their state to do so and end, and end the others."""
        if self._stop_by is not None:
            return
        numbers = [*numbers]
        most = max(map(self._running, numbers), default=1)
        self._stop_by = monotonic() + SECONDS_TO_STOP + SECONDS_A_SAVE * (most - 1)
        for number in numbers:
            worker = self._workers[number]
            if self._workload.checkpoints is not None and not self._started.isdisjoint(worker.trials):
                worker.ask_to_stop()
            else:
                self._workers.pop(number).close()

    def _dismiss(self, numbers: Collection[int]) -> None:
        """End workers; busy ones once they have saved their state."""
        busy = self._busy()
        self._ask_to_stop([number for number in numbers if number in busy])
        leaving = [self._workers.pop(number) for number in numbers if number in self._workers]
        end_all([worker for worker in leaving if not worker.trials])
        end_all([worker for worker in leaving if worker.trials], self._stop_by or 0.0)
        self._stop_by = None
