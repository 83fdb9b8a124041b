"""Train one trial: a generator of epoch records."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from fairtrial import spec
from fairtrial.training import datasets, state
from fairtrial.training.allocator import keep_freed_memory
from fairtrial.training.augmentation import augment
from fairtrial.training.checks import CHECK_STEPS, REPORT_SECONDS, check_loss
from fairtrial.training.closures import evaluated_weights
from fairtrial.training.devices import check_memory, choose_device
from fairtrial.training.evaluation import (
    Evaluate,
    add_losses,
    evaluate,
    evaluate_all,
    evaluate_epoch,
    evaluations_within,
    held_out_sets,
    read_all,
)
from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.graphed import RecordedTraining, prepare_optimizer, why_not_recorded
from fairtrial.training.graphs import Recorder, recorder_for
from fairtrial.training.kernels.assistance import helped_seconds
from fairtrial.training.learner import Learner
from fairtrial.training.losses import Accumulator
from fairtrial.training.placement import on_device, to_device
from fairtrial.training.randomness import random_state, set_random_state
from fairtrial.training.state import TrainingPosition
from fairtrial.training.surroundings import Surroundings, surrounded
from fairtrial.training.xray import Xray
from fairtrial.trial import TrialContext, Turn

# Independent streams of random numbers. The initial weights take the seed itself.
_ORDER, _NOISE = 1, 2


def train(trial: TrialContext) -> Iterator[dict[str, float] | Turn]:
    """Train one arm at one seed with fairtrial's own loop.

    The initial weights depend only on the seed, the order of batches and dropout on the seed and the epoch, so all arms
    of a seed share them unless a study varies the two apart. The trial's fingerprints prove it: of the weights before
    the first step, of the orders of all epochs, and, as ``final_weights``, of the result. Two runs on one machine with
    as many threads give the same bits, even if one was interrupted: the trial's state is offered for saving after each
    epoch, see `TrialContext.save`, and saved within one whenever a checkpoint is due.

    On a GPU the training step and evaluations are recorded as graphs, see `graphed`, where that is possible.

    Args:
        trial: what to train; `prepare.prepare` has put its data in the cache.

    Yields:
        After each epoch: ``train_loss`` and ``train_acc`` over the epoch's training batches, each measured before its
        step, as in Keras; ``test_loss``, ``test_acc`` and, with a validation set, ``val_loss``, ``val_acc`` in
        evaluation mode; ``train_seconds``, the sum over an interrupted epoch's attempts, and ``eval_seconds``; where
        idle cores have helped, ``helped_seconds``, for how long. Losses are cross entropies in nats, accuracies
        fractions. Where a study asks for them, the same of other evaluations:
        ``recalibrated_test_acc``, ``ema_test_acc`` and, in the last epoch, ``eval1_test_acc`` and so on; see
        `evaluation`. In between, a `Turn` after each step if the trial takes turns with others; then times include
        theirs.

    Raises:
        Diverged: the training loss is no longer finite.
        Stopped: the study was asked to stop; the trial's state is saved.
    """
    keep_freed_memory()
    around = Surroundings(trial.settings.training.precision, choose_device(), in_turns=trial.in_turns)
    try:
        yield from surrounded(_train(trial), around)
    finally:
        trial.on_epoch_end = None  # the x-ray's, which holds the optimizer
        around.free_memory()


def _train(trial: TrialContext) -> Generator[dict[str, float] | Turn, None, None]:
    settings, device = trial.settings, choose_device()
    dataset = load_on(settings.data, device)
    learner = Learner.build(trial.trial, dataset)
    orders = (batch_order(trial.order_seed, epoch, len(dataset.train)) for epoch in range(1, trial.epochs + 1))
    trial.fingerprint(
        initial_weights=fingerprint(learner.network.state_dict()),
        batch_order=fingerprint((str(epoch), order) for epoch, order in enumerate(orders, start=1)),
    )
    position = state.load(trial, learner)
    recorder = prepare_recorder(learner, settings)
    xray = trial.xray(
        learner.optimizer, learner.network, steps_per_epoch=-(-len(dataset.train) // settings.training.batch_size)
    )
    recorded = None if recorder is None else RecordedTraining(trial, learner, dataset, recorder, xray)
    measure = evaluate if recorded is None else recorded.evaluate
    while position.epoch <= trial.epochs:
        helped = helped_seconds()
        order = batch_order(trial.order_seed, position.epoch, len(dataset.train))
        batches = torch.split(order, settings.training.batch_size)
        within = {
            batch: partial(_evaluate_now, learner, dataset, prefix, measure)
            for batch, prefix in evaluations_within(settings.training, position.epoch, len(batches)).items()
        }
        with _own_random_numbers(trial, position, device):
            if recorded is None:
                yield from train_epoch(trial, learner, position, dataset, order=batches, evaluations=within, xray=xray)
            else:
                yield from recorded.train(position, order, within)
        metrics = position.tally.read("train")
        trained = perf_counter()
        sums = evaluate_epoch(learner, settings.training, dataset, batches, measure)
        if recorded is not None:
            yield from recorded.until_done()
        metrics |= position.evaluations | read_all(sums)
        learner.schedule.end_epoch(metrics)
        evaluation = position.evaluation_seconds + perf_counter() - trained
        check_memory(device, learner.shortages)
        metrics |= {"train_seconds": position.seconds, "eval_seconds": evaluation}
        yield metrics | ({"helped_seconds": helped} if (helped := helped_seconds() - helped) else {})
        position = TrainingPosition.before(position.epoch + 1, learner)
        if position.epoch <= trial.epochs:
            state.save(trial, learner, position)
    with evaluated_weights(learner.optimizer, learner.network):
        trial.fingerprint(final_weights=fingerprint(learner.network.state_dict()))


def prepare_recorder(learner: Learner, settings: spec.Settings) -> Recorder | None:
    """Make what records the steps of a learner at its position; None where they run operation by operation."""
    if why_not_recorded(settings):
        return None
    recorder = recorder_for(learner.device)
    if recorder is not None or learner.device.type == "cuda":
        prepare_optimizer(learner, settings)  # whether or not graphs are on: they must not change the bits
    return recorder


def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """Draw the order of the training images in an epoch (from 1): a permutation of ``range(images)``, int64."""
    sequence = np.random.SeedSequence([seed, _ORDER, epoch])
    return torch.from_numpy(np.random.Generator(np.random.PCG64(sequence)).permutation(images))


@contextmanager
def _own_random_numbers(trial: TrialContext, position: TrainingPosition, device: torch.device) -> Iterator[None]:
    """Have dropout draw what seed and epoch say, from the position on; the global states are the user's."""
    noise = np.random.SeedSequence([trial.order_seed, _NOISE, position.epoch]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(noise >> np.uint64(1)))
        set_random_state(position.random, device)
        yield


def _evaluate_now(
    learner: Learner, dataset: datasets.Dataset, prefix: str, measure: Evaluate
) -> dict[str, Accumulator]:
    """Evaluate within an epoch."""
    with evaluated_weights(learner.optimizer, learner.network):
        return evaluate_all(learner, held_out_sets(dataset), prefix, measure)


def train_epoch(
    trial: TrialContext,
    learner: Learner,
    position: TrainingPosition,
    dataset: datasets.Dataset,
    *,
    order: Sequence[Tensor],
    evaluations: Mapping[int, Callable[[], dict[str, Accumulator]]],
    xray: Xray,
) -> Generator[Turn, None, None]:
    """Train an epoch from a position to its end, operation by operation, and update the position."""
    device, tally, data = learner.device, position.tally, trial.settings.data
    reported = started = perf_counter()
    for indices in order[position.batch :]:
        inputs, labels = (tensor.to(device) for tensor in dataset.train.batch(to_device(indices, device)))
        if data.augment:
            inputs, labels = augment(
                inputs,
                labels,
                data,
                classes=dataset.classes,
                seed=trial.order_seed,
                epoch=position.epoch,
                batch=position.batch,
            )
        tally.add(*learner.step(inputs, labels), labels)
        position.batch += 1
        if xray.fresh:
            add_losses(xray, learner, tally, trial.settings.model, dataset)
        started += xray.spent()
        if position.batch % CHECK_STEPS == 0 or position.batch == len(order):
            check_loss(tally, position.epoch, position.batch)
        if perf_counter() - reported > REPORT_SECONDS:
            trial.progress(position.batch, len(order), **tally.read("train"))
            reported = perf_counter()
        if position.batch in evaluations:
            before = perf_counter()
            position.evaluations |= read_all(evaluations[position.batch]())
            took = perf_counter() - before
            position.evaluation_seconds, started = position.evaluation_seconds + took, started + took
        if trial.checkpoint_due:
            position.random = random_state(device)
            tally.loss.item()  # waits for an accelerator, whose time counts
            position.seconds += perf_counter() - started
            state.save(trial, learner, position)
            started = perf_counter()  # saving does not count as training
        if trial.in_turns:
            yield Turn.OVER
    tally.loss.item()
    position.seconds += perf_counter() - started


def load_once(settings: spec.DataSettings) -> datasets.Dataset:
    """Load a data set once per process, however it is augmented; `prepare.prepare` has verified it."""
    return _load(datasets.unaugmented(settings))


@lru_cache(maxsize=4)
def _load_on(settings: spec.DataSettings, device: torch.device) -> datasets.Dataset:
    return on_device(_load(settings), device)


def load_on(settings: spec.DataSettings, device: torch.device) -> datasets.Dataset:
    """Load a data set once per process onto a device, for all trials that train there."""
    return load_once(settings) if device.type == "cpu" else _load_on(datasets.unaugmented(settings), device)


@lru_cache(maxsize=4)
def _load(settings: spec.DataSettings) -> datasets.Dataset:
    return datasets.load(settings, verify=False)
