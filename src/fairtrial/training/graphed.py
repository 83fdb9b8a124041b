"""Train epochs by recorded steps: what `loop` does one operation at a time, done as a few graphs of a GPU.

A trial has a graph for a full batch, one for the smaller batch at an epoch's end, and one for each size of batch that
is evaluated. Python runs ahead of the device by a few steps and reads what has been measured only when it is there, so
that other trials of the same process keep the device busy meanwhile.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fairtrial.spec import BUILT_IN, Settings
from fairtrial.training import datasets, state
from fairtrial.training.augmentation import augment
from fairtrial.training.checks import CHECK_STEPS, REPORT_SECONDS, check_loss
from fairtrial.training.evaluation import add_losses, evaluation_batch, read_all
from fairtrial.training.graphs import Mark, Recorder, Repeated
from fairtrial.training.learner import Learner
from fairtrial.training.losses import Accumulator, ClassAccumulator, Objective
from fairtrial.training.placement import to_device
from fairtrial.training.randomness import random_state
from fairtrial.training.state import TrainingPosition
from fairtrial.training.xray import Xray
from fairtrial.trial import TrialContext, Turn

#: Steps between two marks in a trial's work, and marks that may be ahead of the device. Few, so that a trial which is
#: asked to save its state can do so soon; enough that the device never waits for Python.
STEPS_A_MARK, MARKS_AHEAD = 8, 2

#: Optimizers of which torch can record a step, given the argument ``capturable`` or ``fused``.
RECORDABLE = ("adadelta", "adam", "adamax", "adamw", "asgd", "nadam", "radam", "rmsprop", "rprop", "sgd")

#: Those of them that read a learning rate from the device, where a schedule changes it.
RATE_ON_DEVICE = ("adam", "adamw", "sgd")


def why_not_recorded(settings: Settings) -> str:
    """Say why the training step of a trial can't be recorded as a graph; empty if it can be."""
    optimizer, schedule = settings.optimizer, settings.schedule
    if settings.training.loop != BUILT_IN:
        return f"training.loop = {settings.training.loop} is not fairtrial's own"
    if ":" in settings.model.name:
        return f"model {settings.model.name} may decide in Python what it computes"
    if optimizer.name not in RECORDABLE:
        return f"optimizer {optimizer.name} decides in Python what it computes"
    if getattr(optimizer, "eps_convention", "torch") != "torch":
        return "Keras's epsilon is another number in each step"
    if schedule.name != "constant" and optimizer.name not in RATE_ON_DEVICE:
        return f"optimizer {optimizer.name} has its learning rate in Python, where schedule {schedule.name} changes it"
    if ":" in schedule.name:
        return f"schedule {schedule.name} sets rates in Python"
    return ""


def prepare_optimizer(learner: Learner, settings: Settings) -> None:
    """Let an optimizer, which may have been restored, keep on the device what changes from step to step.

    NAdam, Adamax and RAdam round otherwise then: so a GPU has them this way whether or not their steps are recorded.
    """
    changes = settings.schedule.name != "constant"
    for group in learner.optimizer.param_groups:
        if "capturable" in group and learner.device.type == "cuda":
            group["capturable"] = True
        if settings.optimizer.name == "sgd":
            group["fused"], group["foreach"] = True, False  # the other kinds read the rate in Python
        if changes:
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=learner.device)


@dataclass
class _Check:
    """A look at the sums of an epoch that is on its way to Python."""

    batch: int
    sums: Accumulator
    mark: Mark


class RecordedTraining:
    """The training of one trial by recorded steps.

    Args:
        trial: the trial.
        learner: what it trains, at its position.
        dataset: with all its tensors on the learner's device.
        recorder: records the trial's work.
        xray: of the trial; the steps that it looks at are taken by single operations.
    """

    def __init__(
        self, trial: TrialContext, learner: Learner, dataset: datasets.Dataset, recorder: Recorder, xray: Xray
    ) -> None:
        self._trial, self._learner, self._dataset, self._recorder = trial, learner, dataset, recorder
        self._data, self._xray = trial.settings.data, xray
        self._norms = [
            one
            for one in learner.network.modules()
            if isinstance(one, _BatchNorm) and one.momentum is not None and one.num_batches_tracked is not None
        ]
        if learner.average is not None:
            learner.average.hold()
        self._sums = learner.objective.accumulator(learner.device)
        self._in_graph = isinstance(self._sums, ClassAccumulator)
        self._rows: dict[int, Tensor] = {}
        self._batches: dict[int, tuple[Tensor, Tensor]] = {}  # augmented ones, by size
        self._steps: dict[int, Repeated[tuple[Tensor, Tensor, Tensor]]] = {}
        self._evaluations: dict[tuple[int, int], _Evaluation] = {}
        self._marks: deque[Mark] = deque()
        self._checks: deque[_Check] = deque()
        self._reported = perf_counter()

    def train(
        self,
        position: TrainingPosition,
        order: Tensor,
        evaluations: Mapping[int, Callable[[], dict[str, Accumulator]]],
    ) -> Generator[Turn, None, None]:
        """Train an epoch from a position to its end, and update the position, whose sums are then complete.

        Args:
            position: where to begin.
            order: of the epoch's images, int64, on the CPU.
            evaluations: functions to call after some batches; each returns unread sums by the names of their metrics.
        """
        trial, learner = self._trial, self._learner
        batches = [len(one) for one in torch.split(order, trial.settings.training.batch_size)]
        starts = [batches[0] * index for index in range(len(batches))]
        on_device = to_device(order, learner.device)
        if self._in_graph:
            self._sums.assign(position.tally)
            position.tally = self._sums
        started = perf_counter()
        for index in range(position.batch, len(batches)):
            self._step(position, on_device[starts[index] : starts[index] + batches[index]])
            if self._xray.fresh:
                add_losses(self._xray, learner, position.tally, trial.settings.model, self._dataset)
            started += self._xray.spent()
            if position.batch % CHECK_STEPS == 0 or position.batch == len(batches):
                self._checks.append(_Check(position.batch, position.tally.on_host(), self._recorder.mark()))
            self._read_checks(position, len(batches))
            if position.batch in evaluations:
                yield from self.until_done()
                before = perf_counter()
                sums = evaluations[position.batch]()
                yield from self.until_done()
                position.evaluations |= read_all(sums)
                took = perf_counter() - before
                position.evaluation_seconds, started = position.evaluation_seconds + took, started + took
            if trial.checkpoint_due:
                yield from self.until_done()
                self._read_checks(position, len(batches))
                position.random = random_state(learner.device)
                position.seconds += perf_counter() - started
                state.save(trial, learner, position)
                started = perf_counter()  # saving does not count as training
            yield from self._pause(position.batch)
        yield from self.until_done()
        self._read_checks(position, len(batches))
        position.seconds += perf_counter() - started

    def until_done(self) -> Generator[Turn, None, None]:
        """Let others go on until the device has done all that was started."""
        self._marks.clear()
        yield from self._until(self._recorder.mark())

    def evaluate(
        self,
        network: nn.Module,
        images: datasets.ImageSet,
        device: torch.device,
        indices: Tensor | None = None,
        objective: Objective = Objective(),  # noqa: B008  (immutable)
    ) -> Accumulator:
        """Start what `evaluation.evaluate` does; the sums may be read once the device has done it."""
        rows = torch.arange(len(images), device=device) if indices is None else to_device(indices, device)
        network.eval()
        total: Accumulator | None = None
        for some in torch.split(rows, evaluation_batch(device)):
            key = (id(images), len(some))
            if key not in self._evaluations:
                self._evaluations[key] = _Evaluation(network, images, some, objective, self._recorder)
            total = self._evaluations[key].add(some, total)
        network.train()
        assert total is not None  # no set of images is empty
        return total.on_host()

    def _step(self, position: TrainingPosition, rows: Tensor) -> None:
        """Take the next training step on the images at some positions."""
        size = len(rows)
        if size not in self._steps:
            self._rows[size] = rows.clone()
            self._steps[size] = Repeated(self._recorder, partial(self._action, size))
        else:
            self._rows[size].copy_(rows)
        if self._data.augment:
            self._augment(position, rows)
        images = position.tally.images + size
        step = self._steps[size]
        by_calls = self._xray.due or not step.was_done
        loss, outputs, labels = step.plainly() if by_calls else self._xray.unseen(step)
        if not self._in_graph:
            position.tally.add(loss, outputs, labels)
        position.tally.images = images  # a graph doesn't count
        self._learner.after_update()
        position.batch += 1

    def _action(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """What a step does on the device."""
        if self._data.augment:
            inputs, labels = self._batches[size]
        else:
            inputs, labels = self._dataset.train.batch(self._rows[size])
        parts = min(self._learner.parts, size)
        with _counting_at_once(self._norms, parts):
            loss, outputs = self._learner.update(inputs, labels)
        if self._in_graph:
            self._sums.add(loss, outputs, labels)
        return loss, outputs, labels

    def _augment(self, position: TrainingPosition, rows: Tensor) -> None:
        """Put a batch's augmented images and labels where the step takes them."""
        batch = augment(
            *self._dataset.train.batch(rows),
            self._data,
            classes=self._dataset.classes,
            seed=self._trial.order_seed,
            epoch=position.epoch,
            batch=position.batch,
        )
        if len(rows) not in self._batches:
            self._batches[len(rows)] = (batch[0].clone(), batch[1].clone())
        for place, values in zip(self._batches[len(rows)], batch, strict=True):
            place.copy_(values)

    def _pause(self, batch: int) -> Generator[Turn, None, None]:
        """Let other trials go on, and don't run too far ahead of the device."""
        if batch % STEPS_A_MARK == 0:
            self._marks.append(self._recorder.mark())
            if len(self._marks) > MARKS_AHEAD:
                yield from self._until(self._marks.popleft())
        if self._trial.in_turns:
            yield Turn.OVER

    def _until(self, mark: Mark) -> Generator[Turn, None, None]:
        if self._trial.in_turns:
            while not mark.done():
                yield Turn.WAITS
        mark.wait()

    def _read_checks(self, position: TrainingPosition, batches: int) -> None:
        """Read the sums that have come: a loss that is no number ends the trial, wherever the device is by now."""
        while self._checks and self._checks[0].mark.done():
            check = self._checks.popleft()
            check_loss(check.sums, position.epoch, check.batch)
            if perf_counter() - self._reported > REPORT_SECONDS:
                self._trial.progress(check.batch, batches, **check.sums.read("train"))
                self._reported = perf_counter()


class _Evaluation:
    """Evaluates batches of one size of some images: with whatever weights and statistics the network has then."""

    def __init__(
        self,
        network: nn.Module,
        images: datasets.ImageSet,
        rows: Tensor,
        objective: Objective,
        recorder: Recorder,
    ) -> None:
        self._network, self._images, self._objective = network, images, objective.plain
        self._rows = rows.clone()
        self._outputs = Repeated(recorder, self._action)

    def add(self, rows: Tensor, total: Accumulator | None) -> Accumulator:
        """Add the metrics of the images at some positions to what was measured before."""
        self._rows.copy_(rows)
        total = self._objective.accumulator(rows.device) if total is None else total
        total.add(*self._outputs())
        return total

    @torch.no_grad()
    def _action(self) -> tuple[Tensor, Tensor, Tensor]:
        inputs, labels = self._images.batch(self._rows)
        outputs = self._network(inputs)
        return self._objective.loss(outputs, labels), outputs, labels


@contextmanager
def _counting_at_once(norms: Sequence[_BatchNorm], passes: int) -> Iterator[None]:
    """Let batch norms count their batches by one operation for all of them, instead of one each."""
    counters = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
    for norm in norms:
        norm.num_batches_tracked = None
    try:
        yield
    finally:
        for norm, counter in zip(norms, counters, strict=True):
            norm.num_batches_tracked = counter
    if counters:
        torch._foreach_add_(counters, passes)
