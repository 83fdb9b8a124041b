"""Measure trials that take turns on one GPU: what all of them get done in a second, and their memory."""

import gc
import itertools
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter, sleep

import torch

from fairtrial.errors import Diverged, FairtrialError
from fairtrial.scheduler import plan
from fairtrial.spec import Settings, Study
from fairtrial.training import datasets, devices, loop, prepare
from fairtrial.training.closures import evaluated_weights
from fairtrial.training.devices import choose_device
from fairtrial.training.evaluation import evaluate, evaluated_images, evaluation_batch
from fairtrial.training.graphed import RecordedTraining, why_not_recorded
from fairtrial.training.kernels import fused
from fairtrial.training.kernels.compiler import SWITCH
from fairtrial.training.learner import Learner
from fairtrial.training.state import TrainingPosition
from fairtrial.training.surroundings import Surroundings, surrounded
from fairtrial.trial import Trial, TrialContext, Turn

#: Trials side by side that a benchmark tries, and the seconds for which it counts their steps.
COUNTS, SECONDS = (1, 2, 4, 8, 16, 32), 3.0

#: Turns after which a trial has recorded its step: the first is taken by single operations.
TURNS_TO_RECORD = 3

#: Batches in an evaluation that is timed: the first is done by single operations, the second recorded.
EVALUATION_BATCHES = 4

#: Seconds to sleep where all trials wait for the device.
SECONDS_A_WAIT = 0.0001


@dataclass(frozen=True)
class SideBySide:
    """What some trials got done, all together, while they took turns in one process."""

    trials: int
    steps_per_second: float
    images_per_second: float  # evaluated ones, once they only evaluate
    waited_share: float  # of the time of the steps, that in which Python waited for the device; 0: Python is the limit
    start_seconds: float  # of one trial, until its step is recorded
    bytes_per_trial: int | None  # memory of the device that torch has reserved for it; None where there is no GPU
    peak_bytes: int | None  # the most that torch had reserved in all, data included


@dataclass(frozen=True)
class GpuBench:
    """What was measured of one GPU, by trials side by side."""

    device: str
    gpus: int  # that a study would use
    fast: tuple[SideBySide, ...]  # with fairtrial's layers; none where there are none for the study
    plain: tuple[SideBySide, ...]  # with torch's own
    path: str  # the layers that a study would use
    not_recorded: str  # why steps run operation by operation; empty where they are recorded as graphs
    precision: str
    threads: int


def bench_gpu(study: Study, *, threads: int = 1, counts: Sequence[int] = COUNTS, seconds: float = SECONDS) -> GpuBench:
    """Measure numbers of trials of a study's first arm side by side on this process's device; fetch its data first."""
    use_threads(threads)
    prepare.prepare(study)
    trial = plan(study)[0]
    settings = trial.settings
    has_layers = fused.is_available() and settings.training.precision == "float32" and ":" not in settings.model.name
    fast = tuple(measure_each(trial, counts, seconds)) if has_layers else ()
    with _torchs_layers():
        plain = tuple(measure_each(trial, counts, seconds))
    return GpuBench(
        device=devices.describe(choose_device()),
        gpus=devices.gpus(),
        fast=fast,
        plain=plain,
        path=fused.path() if has_layers else "torch's own",
        not_recorded=why_not_recorded(settings),
        precision=settings.training.precision,
        threads=threads,
    )


def work_of_trial(settings: Settings, dataset: datasets.Dataset) -> tuple[int, int]:
    """Count the training steps of a trial, and the images that it evaluates."""
    steps = -(-len(dataset.train) // settings.training.batch_size)
    return settings.training.epochs * steps, evaluated_images(settings.training, dataset)


def use_threads(threads: int) -> None:
    """Let this process compute with so many threads, as a trial's would."""
    torch.set_num_threads(threads)


@contextmanager
def _torchs_layers() -> Iterator[None]:
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "off"
    try:
        yield
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before


def measure_each(trial: Trial, counts: Sequence[int], seconds: float) -> Iterator[SideBySide]:
    """Measure rising numbers of trials like one, which differ in their seeds, until memory is too small for more.

    Raises:
        FairtrialError: not even the first number has memory.
    """
    each = 0
    for number in counts:
        free = devices.memory()[0]
        if each * number > free:
            return
        trials = [Trial(trial.arm, seed, trial.settings) for seed in range(number)]
        try:
            measured = measure(trials, seconds)
        except torch.OutOfMemoryError as error:
            if each:
                return
            some = f"{number} trials have" if number > 1 else "one trial has"
            raise FairtrialError(f"{some} not enough memory on the GPU: {str(error).partition('. ')[0]}") from error
        each = measured.bytes_per_trial or 0
        yield measured


def measure(trials: Sequence[Trial], seconds: float) -> SideBySide:
    """Let trials take turns for some seconds, once all have recorded their steps, and evaluate for half as long.

    Nothing of what they learn is kept; a trial that comes to its end begins anew. Their data must be available.
    """
    device = choose_device()
    loop.load_on(trials[0].settings.data, device)
    before = _start_memory(device)
    begun = perf_counter()
    works = [_Work(trial) for trial in trials]
    running = [work.in_turns() for work in works]
    try:
        for one in running:
            recorded = (turn for turn in one if turn is Turn.OVER)
            for _ in range(TURNS_TO_RECORD):
                next(recorded)
        _wait(device)
        start = (perf_counter() - begun) / len(trials)
        _take_turns(running, seconds / 4, device)
        steps, waited, took = _take_turns(running, seconds, device)
        for work in works:
            work.evaluates = True
        _take_turns(running, seconds / 8, device)
        images = sum(work.images for work in works)
        took_to_evaluate = _take_turns(running, seconds / 2, device)[2]
        images = sum(work.images for work in works) - images
        memory = _memory(device, before, len(trials))
    finally:
        for one in running:
            one.close()
        running.clear()
        _free(device)
    return SideBySide(len(trials), steps / took, images / took_to_evaluate, waited / took, start, *memory)


class _Work:
    """A trial's training steps, or its evaluations, without end."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.evaluates = False  # from now on, instead of training
        self.images = 0  # that were evaluated

    def in_turns(self) -> Generator[Turn, None, None]:
        """Do the work, turn by turn, in the surroundings that the trial would have."""
        around = Surroundings(self._trial.settings.training.precision, choose_device(), in_turns=True)
        return surrounded(self._work(), around)

    def _work(self) -> Generator[Turn, None, None]:
        settings, device = self._trial.settings, choose_device()
        dataset = loop.load_on(settings.data, device)
        while True:
            context = TrialContext(self._trial, in_turns=True, xray=False)
            learner = Learner.build(self._trial, dataset)
            recorder = loop.prepare_recorder(learner, settings)
            steps = -(-len(dataset.train) // settings.training.batch_size)
            xray = context.xray(learner.optimizer, learner.network, steps_per_epoch=steps)
            recorded = None if recorder is None else RecordedTraining(context, learner, dataset, recorder, xray)
            measure = evaluate if recorded is None else recorded.evaluate
            images = min(len(dataset.test), EVALUATION_BATCHES * evaluation_batch(device))
            rows = torch.arange(images)
            for epoch in range(1, context.epochs + 1):
                order = loop.batch_order(context.order_seed, epoch, len(dataset.train))
                position = TrainingPosition.before(epoch, learner)
                if recorded is None:
                    batches = torch.split(order, settings.training.batch_size)
                    training = loop.train_epoch(
                        context, learner, position, dataset, order=batches, evaluations={}, xray=xray
                    )
                else:
                    training = recorded.train(position, order, {})
                with suppress(Diverged):  # its steps take as long as others
                    yield from itertools.takewhile(lambda _turn: not self.evaluates, training)
                while self.evaluates:
                    with evaluated_weights(learner.optimizer, learner.network):
                        measure(learner.network, dataset.test, device, rows, learner.objective)
                    if recorded is not None:
                        yield from recorded.until_done()
                    self.images += images
                    yield Turn.OVER


def _take_turns(
    running: Sequence[Generator[Turn, None, None]], seconds: float, device: torch.device
) -> tuple[int, float, float]:
    """Give each its turn for some seconds; return the turns, the seconds in which all waited, and those of it all."""
    begun = perf_counter()
    turns, waited = 0, 0.0
    while perf_counter() - begun < seconds:
        done = sum(next(one) is Turn.OVER for one in running)
        turns += done
        if not done:
            before = perf_counter()
            sleep(SECONDS_A_WAIT)
            waited += perf_counter() - before
    _wait(device)
    return turns, waited, perf_counter() - begun


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _start_memory(device: torch.device) -> int:
    """Begin to watch memory; return the bytes that torch has reserved, for data."""
    if device.type != "cuda":
        return 0
    _free(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_reserved(device)


def _memory(device: torch.device, before: int, trials: int) -> tuple[int | None, int | None]:
    """Bytes that torch has reserved for each trial, and that it had reserved at most."""
    if device.type != "cuda":
        return None, None
    return (torch.cuda.memory_reserved(device) - before) // trials, torch.cuda.max_memory_reserved(device)


def _free(device: torch.device) -> None:
    """Give back what ended trials had; their graphs and events may be in cycles of references."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
