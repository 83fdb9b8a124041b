"""Worker processes on this machine: as many trials side by side as there are workers."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from multiprocessing.connection import wait
from time import monotonic
from typing import Self

from fairtrial import signals
from fairtrial.errors import CheckpointError
from fairtrial.executors.base import Ended, Message, Progressed, Workload, check_importable
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.process import end_all
from fairtrial.executors.local.supervisor import News, Supervisor, WorkerDied
from fairtrial.executors.local.worker import CheckpointFailed, WorkerJob
from fairtrial.executors.retries import Retries
from fairtrial.executors.slots import Slots, check_counts, choose_slots
from fairtrial.registry import EXECUTORS
from fairtrial.trial import Trial

#: Seconds between two looks at whether a worker has died unheard.
SECONDS_A_LOOK = 1.0

#: Seconds that workers get to save their state and end when the study is stopped.
SECONDS_TO_STOP = 3.0

#: Variables by which the numeric libraries learn, when they are loaded, how many threads they may start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@EXECUTORS.register("local")
class LocalExecutor:
    """Runs trials in worker processes on this machine.

    Args:
        workers: processes, from 1; by default one a GPU, or as many as the cores have room for.
        threads: threads of each, from 1; by default 1. Another number can change the last bits of the records.
        checkpoints: the folder or URL where trials save their state; by default a folder beside the store.
        time_limit: seconds that an attempt at a trial may take; one that takes longer has failed. None: no limit.
        memory_limit: bytes that each worker may ask for; a trial that asks for more, on the second attempt too, has
            failed. None: no limit.

    Raises:
        FairtrialError: a number that means nothing.

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
        """Begin to run a study.

        Raises:
            StudyError: a training loop that workers can't import.
        """
        check_importable(workload.trials)
        slots = choose_slots(len(workload.trials), self._workers, self._threads, gpus=workload.gpus)
        return LocalSession(workload, slots, self.limits)


class LocalSession:
    """A study in worker processes. Keeps the promises of `executors.base`, and these.

    * Each worker is a Python of its own with one trial at a time, and stays for the next. It is started when there is a
      trial for it. It gets this process's ``sys.path``, environment and working folder, and does not import the main
      module: scripts need no ``if __name__ == "__main__"``, and what they define can't be a training loop.
    * A worker that dies is replaced, and its trial retried once. A worker that says nothing for long is killed, and
      counts as dead; what it might still say is not heard.
    * Each worker has a process group of its own, see `process_group`: Ctrl-C on a terminal reaches this process alone.
    * Leaving the context ends the workers. Those that run a trial which can save its state get three seconds for it;
      then they are killed. What a training loop has started ends with its worker, and all end with this process, even
      if that is killed.

    Attributes:
        slots: workers and threads.
    """

    def __init__(self, workload: Workload, slots: Slots, limits: Limits) -> None:
        self.slots = slots
        self._workload = workload
        self._limits = limits
        self._job = WorkerJob.of(workload, slots.threads, limits.memory)
        self._workers: dict[int, Supervisor] = {}
        self._waiting: deque[Trial] = deque()
        self._retries = Retries()
        self._looked = monotonic()
        self._stop_by: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()
        self._dismiss([*self._workers])

    def submit(self, trial: Trial) -> None:
        """Queue a trial."""
        self._waiting.append(trial)

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile. Closing this iterator ends the workers that are at work.

        Raises:
            FairtrialError: workers can't be started, or end, one after another, before they begin a trial.
            CheckpointError: a trial's state can't be saved.
        """
        try:
            self._looked = monotonic()
            self._assign()
            while self._busy():
                numbers = {worker.process.connection: number for number, worker in self._workers.items()}
                ready = wait([*numbers], 0)
                if not ready:
                    yield None
                    ready = wait([*numbers], self._patience())
                yield from self._hear([numbers[connection] for connection in ready if connection in numbers])
                self._assign()
            yield None
        except GeneratorExit:
            self._dismiss(self._busy())
            raise
        except BaseException:
            self._ask_to_stop(self._busy())  # whoever runs us writes down what came before while they do
            raise

    def _busy(self) -> list[int]:
        return [number for number, worker in self._workers.items() if worker.trial is not None]

    def _assign(self) -> None:
        """Give waiting trials to free workers, starting those that are needed."""
        for number in range(self.slots.workers):
            if not self._waiting:
                return
            if number not in self._workers:
                variables = dict.fromkeys(THREAD_VARIABLES, str(self.slots.threads))
                if self._workload.environment:
                    variables |= self._workload.environment(number)
                with signals.held():  # a worker that is started must not be lost on the way
                    self._workers[number] = Supervisor(self._job, variables, self._limits)
            if self._workers[number].trial is None:
                self._workers[number].give(self._waiting.popleft())

    def _patience(self) -> float:
        """Seconds until a worker must be looked at, whether it says something or not."""
        left = min((worker.seconds_left() for worker in self._workers.values()), default=SECONDS_A_LOOK)
        return min(SECONDS_A_LOOK, max(0.0, left))

    def _hear(self, ready: Collection[int]) -> Iterator[Message]:
        """Read a report of each worker that has one, and judge all workers."""
        now = monotonic()
        passed, self._looked = min(now - self._looked, 2 * SECONDS_A_LOOK), now
        for number, worker in [*self._workers.items()]:
            trial = worker.trial
            if number in ready and (news := worker.hear()) is not None:
                yield from self._take_in(number, trial, news)
            trial = worker.trial
            if worker.alive and (news := worker.judge(0.0 if number in ready else passed)) is not None:
                yield from self._take_in(number, trial, news)

    def _take_in(self, number: int, trial: Trial | None, news: News) -> Iterator[Message]:
        """Pass on what a worker says of its trial, and deal with the end of either."""
        worker = self._workers[number]
        if not worker.alive:
            del self._workers[number]
        if trial is None:
            return
        match news:
            case WorkerDied(cause):
                end = self._retries.lost(trial.hash, cause, begun=worker.begun)
                if end is None:
                    self._waiting.appendleft(trial)
                else:
                    yield end
            case CheckpointFailed(detail):
                raise CheckpointError(detail)
            case Progressed():
                self._workload.on_progress(news)
            case Ended():
                yield self._retries.ended(news)
            case _:
                yield news

    def _ask_to_stop(self, numbers: Iterable[int]) -> None:
        """Ask the workers whose trials can save their state to do so and end, and end the others."""
        if self._stop_by is not None:
            return
        self._stop_by = monotonic() + SECONDS_TO_STOP
        for number in numbers:
            if self._workload.checkpoints is not None and self._workers[number].begun:
                self._workers[number].process.ask_to_stop()
            else:
                self._workers.pop(number).close()

    def _dismiss(self, numbers: Collection[int]) -> None:
        """End workers, those that are at work when they have saved their state."""
        busy = self._busy()
        self._ask_to_stop([number for number in numbers if number in busy])
        leaving = [self._workers.pop(number) for number in numbers if number in self._workers]
        end_all([worker.process for worker in leaving if worker.trial is None])
        end_all([worker.process for worker in leaving if worker.trial is not None], self._stop_by or 0.0)
        self._stop_by = None
