"""Worker processes on this machine: as many trials side by side as there are workers."""

import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from multiprocessing.connection import wait
from typing import Self

from fairtrial.checkpoints import Checkpoints
from fairtrial.errors import FairtrialError
from fairtrial.execute.base import Ended, Epoch, Fingerprinted, Message, Started, TrainingLoop
from fairtrial.execute.process import WorkerProcess, end_all
from fairtrial.execute.slots import check_counts
from fairtrial.execute.worker import Job, Progress, Report
from fairtrial.records import Machine, Outcome, Trial

#: Workers that may end in a row before they have begun a trial. One may be bad luck; more are a broken installation.
FALSE_STARTS = 3

#: Seconds between two looks at whether a worker has died unheard.
SECONDS_A_LOOK = 1.0

#: Variables by which the numeric libraries learn, when they are loaded, how many threads they may start.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalExecutor:
    """Runs trials in worker processes.

    Keeps the promises of `execute.base`, and these:

    * Each worker is a Python of its own with one trial at a time, and stays for the next. It is started when there is a
      trial for it. It gets this process's ``sys.path``, environment and working folder, and does not import the main
      module: scripts need no ``if __name__ == "__main__"``, and what they define can't be a training loop.
    * A worker that dies fails its trial, with what is known as the detail, and another takes its place. If it had not
      begun the trial, the next worker gets it.
    * Ctrl-C reaches this process alone. Leaving the context ends the workers, within a second or so; the death of this
      process ends them too.

    Args:
        loop: the training loop; a function that a worker can import, as all functions here must be.
        machine: describes the machine that a worker sees; called in the worker, with each trial.
        workers: how many processes, from 1.
        threads: how many threads the numeric libraries of each may start, from 1.
        set_up: called in each worker before its first trial.
        environment: variables of a worker, by its place from 0 to ``workers - 1``.
        checkpoints: where trials may keep their state, or None.

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
        checkpoints: Checkpoints | None = None,
    ) -> None:
        check_counts(workers=workers, threads=threads)
        self.checkpoints = checkpoints
        self._job = Job(loop, machine, set_up, checkpoints)
        _check_importable(self._job)
        self._places = range(workers)
        self._threads = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        self._environment = environment
        self._crew: dict[int, WorkerProcess] = {}
        self._waiting: deque[Trial] = deque()
        self._false_starts = 0

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
        """
        try:
            self._assign()
            while busy := self._busy():
                connections = [worker.connection for worker in busy.values()]
                ready = wait(connections, 0)
                if not ready:
                    yield None
                    ready = wait(connections, SECONDS_A_LOOK)
                for place, worker in busy.items():
                    if worker.connection in ready:
                        yield from self._hear(place, worker, worker.receive())
                    elif worker.dead():
                        yield from self._hear(place, worker, None)
                self._assign()
            yield None
        finally:
            self._dismiss(self._busy())

    def _busy(self) -> dict[int, WorkerProcess]:
        return {place: worker for place, worker in self._crew.items() if worker.trial is not None}

    def _assign(self) -> None:
        """Give waiting trials to free workers, starting those that are needed."""
        for place in self._places:
            if not self._waiting:
                return
            if place not in self._crew:
                own = self._environment(place) if self._environment else {}
                self._crew[place] = WorkerProcess(self._job, {**self._threads, **own})
            if self._crew[place].trial is None:
                self._crew[place].give(self._waiting.popleft())

    def _hear(self, place: int, worker: WorkerProcess, report: Report | None) -> Iterator[Message]:
        """Take in what a worker says; None is its death."""
        trial = worker.trial
        if trial is None:
            return
        match report:
            case None:
                yield from self._bury(place, worker, trial)
            case Progress(batch, batches, metrics):
                if trial.listener is not None:
                    trial.listener(trial, batch, batches, metrics)
            case Started():
                self._false_starts, worker.started = 0, True
                yield replace(report, trial=trial)
            case Ended():
                worker.trial = None
                yield replace(report, trial=trial)
            case Fingerprinted() | Epoch():
                yield replace(report, trial=trial)

    def _bury(self, place: int, worker: WorkerProcess, trial: Trial) -> Iterator[Message]:
        """Deal with the death of a worker that had a trial in hand."""
        cause = worker.autopsy()
        del self._crew[place]
        if worker.started:
            yield Ended(trial, Outcome.FAILED, cause, datetime.now(UTC))
            return
        self._waiting.appendleft(trial)
        self._false_starts += 1
        if self._false_starts == FALSE_STARTS:
            raise FairtrialError(f"workers end before they can begin a trial: {cause.splitlines()[0]}; see its output")

    def _dismiss(self, places: Iterable[int]) -> None:
        end_all([self._crew.pop(place) for place in places])


def _check_importable(job: Job) -> None:
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
