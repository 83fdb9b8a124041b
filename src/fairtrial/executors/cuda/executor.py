"""Runs many trials side by side on each GPU of this machine, in one process a GPU."""

import pickle
from collections.abc import Collection, Iterable, Iterator
from multiprocessing.connection import wait
from time import monotonic

from fairtrial import signals
from fairtrial.executors.base import Ended, Message, Session, Warned, Workload, check_importable
from fairtrial.executors.cuda.process import TrialsProcess, trial_of
from fairtrial.executors.limits import Limits
from fairtrial.executors.local.executor import SECONDS_A_CHECK, THREAD_VARIABLES, LocalExecutor
from fairtrial.executors.local.process import end_all
from fairtrial.executors.local.worker import WorkerJob
from fairtrial.executors.session import QueuedSession, Report, WorkerDied
from fairtrial.executors.slots import Slots, check_counts, usable_cores
from fairtrial.registry import EXECUTORS
from fairtrial.spec import BUILT_IN
from fairtrial.trial import Outcome, Trial

#: Trials side by side on a GPU unless a user says otherwise. On an H200, 16 were as fast together as 32, and four
#: reached three quarters of it (docs/gpu.md).
TRIALS_PER_GPU = 16

#: Seconds that a process gets to save the states of its trials when the study is stopped, and more for each of them.
SECONDS_TO_STOP, SECONDS_A_SAVE = 3.0, 1.0


@EXECUTORS.register("cuda")
class CudaExecutor:
    """Runs trials of fairtrial's own loop on GPUs: one process a GPU, in which many trials take turns.

    Trials of a training loop of one's own can't take turns. A study that has any runs as with `LocalExecutor`.

    Args:
        trials_per_gpu: trials side by side on each GPU, at least 1; by default 16, or as many as its memory allows.
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
        return CudaSession(workload, self._side_by_side or TRIALS_PER_GPU, self._threads or 1, self.limits)


def takes_turns(workload: Workload) -> bool:
    """Whether all trials can take turns in one process: only fairtrial's own loop gives others a turn."""
    return all(trial.settings.training.loop == BUILT_IN for trial in workload.trials)


class CudaSession(QueuedSession):
    """A study in one process a GPU, or in one process on a machine without. Keeps the promises of `executors.base`.

    * A process starts a trial as soon as it has it, if its GPU has memory for one more.
    * A process that dies gives all its trials back, whatever it died of: nobody knows which of them is to blame. They
      are run again, half as many side by side, which is no retry of any of them; alone, a trial is retried once.
    * Where a trial exceeds its time limit its process is ended, and the others of that process are run again.
    """

    slots: Slots

    def __init__(self, workload: Workload, side_by_side: int, threads: int, limits: Limits) -> None:
        super().__init__(workload)
        processes = max(1, min(workload.gpus, len(workload.trials)))
        most = -(-len(workload.trials) // processes)  # so that all GPUs get about as many
        self._most = min(side_by_side, most)
        self.slots = Slots(min(len(workload.trials), processes * self._most), threads, usable_cores(), processes)
        self._limits = limits
        self._job = pickle.dumps(WorkerJob.of(workload, threads, None))
        self._room = dict.fromkeys(range(processes), self._most)
        self._processes: dict[int, TrialsProcess] = {}
        self._checked = monotonic()
        self._stop_by: float | None = None

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__()
        self._dismiss([*self._processes])

    def messages(self) -> Iterator[Message | None]:
        """Run the queued trials, and those queued meanwhile. Closing this iterator ends the busy processes."""
        try:
            self._checked = monotonic()
            self._assign()
            while self._busy():
                numbers = {process.connection: number for number, process in self._processes.items()}
                ready = wait([*numbers], 0)
                if not ready:
                    yield None
                    limits = (process.seconds_left() for process in self._processes.values())
                    left = min(limits, default=SECONDS_A_CHECK)
                    ready = wait([*numbers], min(SECONDS_A_CHECK, max(0.0, left)))
                yield from self._read([numbers[connection] for connection in ready if connection in numbers])
                self._assign()
            yield None
        except GeneratorExit:
            self._dismiss(self._busy())
            raise
        except BaseException:
            self._ask_to_stop(self._busy())  # they save their state while the runner writes the earlier messages
            raise

    def _busy(self) -> list[int]:
        return [number for number, process in self._processes.items() if process.trials]

    def _running(self, number: int) -> int:
        return len(self._processes[number].trials) if number in self._processes else 0

    def _assign(self) -> None:
        """Give waiting trials to the processes that have the fewest, starting those that are needed."""
        while True:
            number = min(self._room, key=lambda one: (self._running(one) / self._room[one], one))
            if self._running(number) >= self._room[number]:
                return
            trial = self._next(sum(map(self._running, self._room)))
            if trial is None:
                return
            if number not in self._processes:
                self._processes[number] = self._start(number)
            self._processes[number].give(trial)

    def _start(self, number: int) -> TrialsProcess:
        variables = dict.fromkeys(THREAD_VARIABLES, str(self.slots.threads))
        if self._workload.environment:
            variables |= self._workload.environment(number)
        with signals.delayed():  # a signal now would leave a process that nobody knows
            return TrialsProcess(self._job, variables, self._limits)

    def _read(self, ready: Collection[int]) -> Iterator[Message]:
        """Read a report of each process that has one, and check all processes."""
        now = monotonic()
        passed, self._checked = min(now - self._checked, 2 * SECONDS_A_CHECK), now
        for number, process in [*self._processes.items()]:
            if number in ready:
                yield from self._take_in(number, process, process.read())
            if process.alive:
                yield from self._take_in(number, process, process.check(0.0 if number in ready else passed))

    def _take_in(self, number: int, process: TrialsProcess, report: Report | None) -> Iterator[Message]:
        """Handle a report; run the trials of a process that has died again."""
        trial_id = None if report is None else trial_of(report)
        trial = None if trial_id is None else process.trials.get(trial_id)
        if isinstance(report, Ended):
            process.ended_trial(report.trial_id)
        if not process.alive:
            del self._processes[number]
        if isinstance(report, WorkerDied):
            yield from self._run_again(number, [*process.trials.values()], report)
        elif report is not None and (trial is not None or trial_id is None):
            yield from self._handle(trial or next(iter(process.trials.values())), report)
            if not process.alive:  # of a trial that took too long
                self._put_back([*process.trials.values()])

    def _run_again(self, number: int, lost: list[Trial], died: WorkerDied) -> Iterator[Message]:
        """Run the trials of a process that has died again, fewer side by side if there were several."""
        if len(lost) > 1:
            if not any(trial.hash in self._started for trial in lost):
                self._may_retry(lost[0], died.cause)
            self._room[number] = len(lost) // 2
            self._put_back(lost)
            first = died.cause.partition("\n")[0]
            yield Warned(
                lost[0].hash,
                f"{first}, with {len(lost)} trials in one process; they go on {self._room[number]} at a time",
            )
        elif lost:
            for message in self._handle(lost[0], WorkerDied(died.cause)):
                if isinstance(message, Ended) and message.outcome is Outcome.FAILED:
                    self._room[number] = self._most  # the one to blame is gone
                yield message

    def _put_back(self, trials: list[Trial]) -> None:
        for trial in reversed(trials):
            self._started.discard(trial.hash)
            self._waiting.appendleft(trial)

    def _ask_to_stop(self, numbers: Iterable[int]) -> None:
        """Ask the processes whose trials can save their state to do so and end, and end the others."""
        if self._stop_by is not None:
            return
        numbers = [*numbers]
        most = max(map(self._running, numbers), default=0)
        self._stop_by = monotonic() + SECONDS_TO_STOP + SECONDS_A_SAVE * most
        for number in numbers:
            process = self._processes[number]
            if self._workload.checkpoints is not None and any(one in self._started for one in process.trials):
                process.ask_to_stop()
            else:
                self._processes.pop(number).close()

    def _dismiss(self, numbers: Collection[int]) -> None:
        """End processes; busy ones once they have saved the states of their trials."""
        busy = self._busy()
        self._ask_to_stop([number for number in numbers if number in busy])
        leaving = [self._processes.pop(number) for number in numbers if number in self._processes]
        end_all([process for process in leaving if not process.trials])
        end_all([process for process in leaving if process.trials], self._stop_by or 0.0)
        self._stop_by = None
