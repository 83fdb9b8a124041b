"""Worker processes on this machine: as many trials side by side as there are workers."""

import math
import pickle
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from time import monotonic
from typing import Self

from fairtrial import signals
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import CheckpointError, FairtrialError
from fairtrial.executors.base import (
    CheckpointFailed,
    Ended,
    Epoch,
    Fingerprinted,
    Message,
    Started,
    TrainingLoop,
    Warned,
)
from fairtrial.executors.limits import Limits, format_seconds
from fairtrial.executors.local.process import WorkerProcess, end_all
from fairtrial.executors.local.worker import Heartbeat, ProgressReport, Report, WorkerFailed, WorkerJob
from fairtrial.executors.slots import check_counts
from fairtrial.trial import Machine, Outcome, Trial

#: Workers that may end in a row before they have begun a trial. One may be bad luck; more are a broken installation.
FALSE_STARTS = 3

#: Seconds between two looks at whether a worker has died unheard.
SECONDS_A_LOOK = 1.0

#: Seconds that workers get to save their state and end when the study is stopped.
SECONDS_TO_STOP = 3.0

#: Variables by which the numeric libraries learn, when they are loaded, how many threads they may start.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalExecutor:
    """Runs trials in worker processes.

    Keeps the promises of `executors.base`, and these:

    * Each worker is a Python of its own with one trial at a time, and stays for the next. It is started when there is a
      trial for it. It gets this process's ``sys.path``, environment and working folder, and does not import the main
      module: scripts need no ``if __name__ == "__main__"``, and what they define can't be a training loop.
    * A worker that dies is replaced, and the next one gets its trial. A trial that loses a second worker has failed,
      with what is known of both as the detail. A worker that says nothing for long is killed, and counts as dead; what
      it might still say is not heard.
    * Each worker has a process group of its own, see `process_group`: Ctrl-C on a terminal reaches this process alone.
    * Leaving the context ends the workers. Those that run a trial which can save its state get three seconds for it;
      then they are killed. What a training loop has started ends with its worker, and all end with this process, even
      if that is killed.

    Args:
        loop: the training loop; a function that a worker can import, as all functions here must be.
        machine: describes the machine that a worker sees; called in the worker, with each trial.
        workers: how many processes, from 1.
        threads: how many threads the numeric libraries of each may start, from 1.
        set_up: called in each worker before its first trial.
        environment: variables of a worker, by its place from 0 to ``workers - 1``.
        checkpoints: where trials may keep their state, or None.
        limits: what a trial may use.

    Raises:
        FairtrialError: a number below 1, or a function that workers can't import.

    Example:
        >>> with LocalExecutor(loop, machine, workers=2) as executor:  # doctest: +SKIP
        ...     executor.submit(trial)
        ...     for message in executor.messages(): ...
    """

    def __init__(
        self,
        loop: TrainingLoop,
        machine: Callable[[Trial], Machine],
        *,
        workers: int,
        threads: int = 1,
        set_up: Callable[[], None] | None = None,
        environment: Callable[[int], Mapping[str, str]] | None = None,
        checkpoints: CheckpointManager | None = None,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        check_counts(workers=workers, threads=threads)
        self.checkpoints = checkpoints
        self._limits = limits
        self._job = WorkerJob(loop, machine, set_up, checkpoints, limits.memory)
        check_importable(self._job)
        self._places = range(workers)
        self._threads = dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._environment = environment
        self._crew: dict[int, WorkerProcess] = {}
        self._waiting: deque[Trial] = deque()
        self._lost: dict[str, str] = {}
        self._false_starts: Counter[str] = Counter()
        self._in_a_row = 0
        self._looked = monotonic()
        self._stop_by: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._waiting.clear()
        self._dismiss([*self._crew])

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
                places = {worker.connection: place for place, worker in self._crew.items()}
                ready = wait([*places], 0)
                if not ready:
                    yield None
                    ready = wait([*places], self._patience())
                heard = [places[connection] for connection in ready if connection in places]
                for place in heard:
                    yield from self._hear(place, self._crew[place].receive())
                for place in self._unheard(heard):
                    yield from self._judge(place, self._crew[place])
                self._assign()
            yield None
        except GeneratorExit:
            self._dismiss(self._busy())
            raise
        except BaseException:
            self._ask_to_stop(self._busy())  # whoever runs us writes down what came before while they do
            raise

    def _busy(self) -> list[int]:
        return [place for place, worker in self._crew.items() if worker.trial is not None]

    def _assign(self) -> None:
        """Give waiting trials to free workers, starting those that are needed."""
        for place in self._places:
            if not self._waiting:
                return
            if place not in self._crew:
                own = self._environment(place) if self._environment else {}
                with signals.held():  # a worker that is started must not be lost on the way
                    self._crew[place] = WorkerProcess(self._job, {**self._threads, **own})
            if self._crew[place].trial is None:
                self._crew[place].give(self._waiting.popleft())

    def _patience(self) -> float:
        """Seconds until a worker must be looked at, whether it says something or not."""
        due = [self._due(worker) for worker in self._crew.values()]
        return min(SECONDS_A_LOOK, max(0.0, min(due) - monotonic()))

    def _due(self, worker: WorkerProcess) -> float:
        """When the time of a worker's trial is up, by the monotonic clock."""
        if worker.trial is None or worker.started is None or self._limits.time is None:
            return math.inf
        return worker.started + self._limits.time

    def _hear(self, place: int, report: Report | None) -> Iterator[Message]:
        """Take in what a worker says; None is its death."""
        worker = self._crew[place]
        trial, worker.silent = worker.trial, 0.0
        match report:
            case None:
                yield from self._lose(place, worker.autopsy())
            case WorkerFailed(cause):
                yield from self._lose(place, cause)
            case Heartbeat():
                pass
            case _ if trial is None:
                pass
            case ProgressReport(batch, batches, metrics):
                if trial.listener is not None:
                    trial.listener(trial, batch, batches, metrics)
            case Started():
                self._in_a_row, worker.started = 0, monotonic()
                yield replace(report, trial=trial)
            case Ended():
                worker.trial = None
                self._lost.pop(trial.hash, None)
                yield replace(report, trial=trial)
            case Epoch():
                worker.epochs += 1
                yield replace(report, trial=trial)
            case Fingerprinted() | Warned():
                yield replace(report, trial=trial)
            case CheckpointFailed(detail=detail):
                raise CheckpointError(detail)

    def _unheard(self, heard: Iterable[int]) -> list[int]:
        """Tell which workers to judge: those not heard from in this look, and those whose trial's time is up.

        Silence is counted in looks and not by the clock alone: while this process was suspended it heard nobody.
        """
        now = monotonic()
        passed, self._looked = min(now - self._looked, 2 * SECONDS_A_LOOK), now
        silent = [place for place in self._crew if place not in heard]
        for place in silent:
            self._crew[place].silent += passed
        return silent + [place for place in heard if place in self._crew and self._due(self._crew[place]) <= now]

    def _judge(self, place: int, worker: WorkerProcess) -> Iterator[Message]:
        """See whether a worker is dead, has been silent for too long, or its trial has taken too long."""
        trial = worker.trial
        if worker.dead():
            yield from self._hear(place, None)
        elif worker.silent > self._limits.silence:
            cause = f"worker said nothing for {format_seconds(self._limits.silence)}\n{worker.where()}".rstrip()
            yield from self._lose(place, cause)
        elif trial is not None and self._due(worker) <= monotonic():
            while self._crew.get(place) is worker and worker.trial is trial and worker.connection.poll():
                yield from self._hear(place, worker.receive())  # it may have ended while nobody listened
            if self._crew.get(place) is worker and worker.trial is trial:
                limit = format_seconds(self._limits.time or 0)
                cause = f"time limit of {limit} exceeded in epoch {worker.epochs + 1}\n{worker.where()}".rstrip()
                self._discard(place)
                yield self._failed(trial, cause)

    def _lose(self, place: int, cause: str) -> Iterator[Message]:
        """Part with a worker; whatever it might still say, nobody hears it. Its trial gets one more.

        Raises:
            FairtrialError: it is no use: workers do not come as far as to begin a trial.
        """
        worker = self._discard(place)
        trial = worker.trial
        if trial is None:
            return
        if worker.started is None:
            self._in_a_row += 1
            self._false_starts[trial.hash] += 1
            if FALSE_STARTS in {self._in_a_row, self._false_starts[trial.hash]}:
                raise FairtrialError(f"workers end before they can begin a trial: {_first_line(cause)}; see its output")
        elif trial.hash in self._lost:
            yield self._failed(trial, cause)
            return
        else:
            self._lost[trial.hash] = cause
        self._waiting.appendleft(trial)

    def _failed(self, trial: Trial, cause: str) -> Ended:
        """End a trial from outside, telling of the worker that it lost before too."""
        before = self._lost.pop(trial.hash, None)
        detail = cause if before is None else f"{cause}\nthe attempt before: {before}"
        return Ended(trial, Outcome.FAILED, detail, datetime.now(UTC))

    def _discard(self, place: int) -> WorkerProcess:
        worker = self._crew.pop(place)
        worker.close()
        return worker

    def _ask_to_stop(self, places: Iterable[int]) -> None:
        """Ask the workers whose trials can save their state to do so and end, and end the others."""
        if self._stop_by is not None:
            return
        self._stop_by = monotonic() + SECONDS_TO_STOP
        for place in places:
            if self.checkpoints is not None and self._crew[place].started is not None:
                self._crew[place].ask_to_stop()
            else:
                self._discard(place)

    def _dismiss(self, places: Collection[int]) -> None:
        """End workers, those that are at work when they have saved their state."""
        busy = self._busy()
        self._ask_to_stop([place for place in places if place in busy])
        leaving = [self._crew.pop(place) for place in places if place in self._crew]
        end_all([worker for worker in leaving if worker.trial is None])
        end_all([worker for worker in leaving if worker.trial is not None], self._stop_by or 0.0)
        self._stop_by = None


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def check_importable(job: WorkerJob) -> None:
    """See to it that a job's functions mean the same to a worker, which finds them by module and name.

    Raises:
        FairtrialError: one of them does not.
    """
    for function in (job.loop, job.machine, job.set_up):
        name = getattr(function, "__qualname__", repr(function))
        if getattr(function, "__module__", None) == "__main__":
            raise FairtrialError(f"{name}: workers don't import the script that starts them; move it to a module")
        try:
            pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise FairtrialError(f"{name}: workers can't import it, only functions at the top of a module") from error
