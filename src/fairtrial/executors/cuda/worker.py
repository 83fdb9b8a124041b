"""The inside of a process that runs many trials on one device, in turn.

Trials come in through its pipe at any time, and each starts as soon as there is memory for it beside those that run.
Unless the user has given a number, the process finds how many trials pay off, and its parent gives it no more.
An error of the GPU, or no memory left, ends the process: its parent runs all its trials again, fewer side by side.
"""

import gc
import sys
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator
from time import sleep
from typing import TypeAlias, cast

from fairtrial.errors import CheckpointError, FairtrialError, RecordError, Stopped
from fairtrial.executors.base import Ended, EpochFinished, Message, run_in_turns
from fairtrial.executors.cuda.levels import MOST, TURNS_TO_SETTLE, Levels
from fairtrial.executors.local import worker
from fairtrial.executors.local.memory import describe, ran_out_of_memory
from fairtrial.executors.local.worker import Inbox, Outbox, WorkerJob
from fairtrial.executors.session import CantContinue, Room, WorkerDied
from fairtrial.failpoints import failpoint
from fairtrial.trial import Trial, Turn

#: Seconds to sleep where all trials wait for the device.
SECONDS_A_WAIT = 0.0001

#: How much more memory than a settled trial has taken must be free for the next one; it evaluates larger batches.
SPARE = 2.0

#: Texts in plain RuntimeErrors of torch, cuBLAS, cuDNN and Triton that mean the same. cuDNN finds no engine, too, where
#: none has the memory that it needs.
OF_GPU = ("CUDA error", "CUDA driver error", "Triton Error [CUDA]", "cuDNN error", "unable to find an engine")

#: The messages of a trial, and where others may have their turn.
Turned: TypeAlias = Generator[Message | Turn, None, None]


class Turns:
    """The trials of this process, each of which has its turn after the other.

    Args:
        outbox: where their messages go.
        start: makes the messages of a trial.
        memory: returns the bytes of the device that are free, and that this process has taken; 0 where not known.
        levels: find how many trials pay off, which the parent is told, for it to give so many; None if it knows.
    """

    def __init__(
        self,
        outbox: Outbox,
        start: Callable[[Trial], Turned],
        memory: Callable[[], tuple[int, int]] = lambda: (0, 0),
        levels: Levels | None = None,
    ) -> None:
        self._outbox, self._start, self._memory, self._levels = outbox, start, memory, levels
        self._waiting: deque[Trial] = deque()
        self._running: dict[str, Turned] = {}
        self._turns: Counter[str] = Counter()

    def add(self, trial: Trial) -> None:
        """Queue a trial."""
        self._waiting.append(trial)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._running and not self._waiting

    def round(self) -> None:
        """Give each trial a turn, after the first that waits has started, if there is room for it."""
        starts = bool(self._waiting) and self._has_room()
        if starts:
            trial = self._waiting.popleft()
            failpoint("worker.trial")
            self._running[trial.hash] = self._start(trial)
        worked = sum([self._turn(trial_id, messages) for trial_id, messages in [*self._running.items()]])
        if not worked:
            sleep(SECONDS_A_WAIT)
        elif self._levels is not None:
            turns = {trial_id: self._turns[trial_id] for trial_id in self._running}
            room = self._levels.after_round(turns, worked, self._fit)
            if room is not None:
                self._outbox.send(Room(room))

    def stop(self) -> None:
        """Let each trial that runs save its state and stop."""
        self._waiting.clear()
        while self._running:
            self.round()

    def _turn(self, trial_id: str, messages: Turned) -> bool:
        """Run a trial to its next turn; returns whether it has done anything."""
        try:
            for message in messages:
                if isinstance(message, Turn):
                    self._turns[trial_id] += message is Turn.OVER
                    return message is Turn.OVER
                self._send(message)
        except Stopped:
            pass
        except (CheckpointError, RecordError) as error:
            self._outbox.send(CantContinue(error))
        del self._running[trial_id], self._turns[trial_id]
        return True

    def _send(self, message: Message) -> None:
        sys.stdout.flush()  # a training loop's output must not be lost when this process is ended
        result = isinstance(message, EpochFinished | Ended)
        if result:
            failpoint("worker.report")
        self._outbox.send(message)
        if result:
            failpoint("worker.reported")

    def _has_room(self) -> bool:
        """Whether one more trial has room, beside what those that have not settled may still take."""
        free, each = self._memory_left()
        if not self._running or each == 0:
            return True
        return free >= each * (1 + len(self._running) - self._settled())

    def _fit(self) -> int:
        """How many more trials have room, if all that run have settled."""
        free, each = self._memory_left()
        return MOST if each == 0 else int(free / each)

    def _memory_left(self) -> tuple[int, float]:
        """Bytes that are free, and that one more trial must find free; 0 where that is not known.

        A trial takes what those that have settled took on average, the data of all included; before one has settled,
        nobody knows what it takes, and it gets no company.
        """
        free, taken = self._memory()
        if not taken:
            return free, 0
        settled = self._settled()
        return free, SPARE * taken / settled if settled else float("inf")

    def _settled(self) -> int:
        return sum(turns >= TURNS_TO_SETTLE for turns in self._turns.values())


def main(pipe: int, crash_log: int) -> None:
    """Work until the parent asks this process to stop, closes the pipe, or dies; see `local.worker.main`."""
    worker.main(pipe, crash_log, _work)


def _work(outbox: Outbox, inbox: Inbox) -> None:
    """Run trials in turn, until the parent asks to stop."""
    job = cast("WorkerJob", inbox.get())

    def start(trial: Trial) -> Turned:
        checkpoints = job.checkpoints.open(trial, inbox.stop.is_set) if job.checkpoints else None
        machine, report = job.machine(trial), outbox.progress
        return run_in_turns(
            trial, job.loop, machine, checkpoints, job.rules, on_progress=report, pass_on=ends_process, xray=job.xray
        )

    try:
        if job.set_up is not None:
            job.set_up()
        gc.freeze()  # what is loaded by now stays; so that what a trial leaves is soon found
        memory = job.device_memory or (lambda: (0, 0))
        turns = Turns(outbox, start, memory, Levels() if job.measures else None)
        while True:
            while turns.idle or inbox.has_some:
                trial = cast("Trial | None", inbox.get())
                if trial is None:
                    turns.stop()
                    return
                turns.add(trial)
            turns.round()
    except FairtrialError as error:  # of this machine: it lacks a device, say, and all trials would meet the same
        outbox.send(CantContinue(error))
    except Exception as error:
        if not ends_process(error):
            raise
        outbox.send(_died(error))


def ends_process(error: BaseException) -> bool:
    """Whether an error is no trial's own: no memory left, or an error of CUDA, after which a process can't use it."""
    by_name = any(base.__name__ == "AcceleratorError" for base in type(error).__mro__)
    by_text = isinstance(error, RuntimeError) and any(text in str(error) for text in OF_GPU)
    return by_name or by_text or ran_out_of_memory(error)


def _died(error: BaseException) -> WorkerDied:
    if ran_out_of_memory(error):
        return WorkerDied(describe(error, None), memory=True)
    first = traceback.format_exception_only(error)[-1].partition("\n")[0]
    return WorkerDied(f"{first}\n{''.join(traceback.format_exception(error))}")
