"""Train one trial: a generator of epoch records."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from fairtrial import spec
from fairtrial.errors import Diverged
from fairtrial.training import datasets, precision, state
from fairtrial.training.allocator import keep_freed_memory
from fairtrial.training.augmentation import augment
from fairtrial.training.closures import evaluated_weights
from fairtrial.training.evaluation import along_the_way, evaluate_all, evaluate_epoch, evaluations_within, held_out_sets
from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.kernels.assistance import helped_seconds
from fairtrial.training.learner import Learner
from fairtrial.training.losses import Accumulator
from fairtrial.training.randomness import random_state, set_random_state
from fairtrial.training.state import TrainingPosition
from fairtrial.training.xray import Xray
from fairtrial.trial import TrialContext

#: Steps between two checks that the loss is still finite. A check waits for an accelerator, but not for a CPU.
CHECK_STEPS = 50
#: Seconds between two progress reports within an epoch.
REPORT_SECONDS = 0.2

# Independent streams of random numbers. The initial weights take the seed itself.
_ORDER, _NOISE = 1, 2


def train(trial: TrialContext) -> Iterator[dict[str, float]]:
    """Train one arm at one seed with fairtrial's own loop.

    The initial weights depend only on the seed, the order of batches and dropout on the seed and the epoch, so all arms
    of a seed share them unless a study varies the two apart. The trial's fingerprints prove it: of the weights before
    the first step, of the orders of all epochs, and, as ``final_weights``, of the result. Two runs on one machine with
    as many threads give the same bits, even if one was interrupted: the trial's state is offered for saving after each
    epoch, see `TrialContext.save`, and saved within one whenever a checkpoint is due.

    Args:
        trial: what to train; `prepare.prepare` has put its data in the cache.

    Yields:
        After each epoch: ``train_loss`` and ``train_acc`` over the epoch's training batches, each measured before its
        step, as in Keras; ``test_loss``, ``test_acc`` and, with a validation set, ``val_loss``, ``val_acc`` in
        evaluation mode; ``train_seconds``, the sum over an interrupted epoch's attempts, and ``eval_seconds``; where
        idle cores have helped, ``helped_seconds``, for how long. Losses are cross entropies in nats, accuracies
        fractions. Where a study asks for them, the same of other evaluations:
        ``recalibrated_test_acc``, ``ema_test_acc`` and, in the last epoch, ``eval1_test_acc`` and so on; see
        `evaluation`.

    Raises:
        Diverged: the training loss is no longer finite.
        Stopped: the study was asked to stop; the trial's state is saved.
    """
    keep_freed_memory()
    dataset = load_once(trial.settings.data)
    learner = Learner.build(trial.trial, dataset)
    orders = (batch_order(trial.order_seed, epoch, len(dataset.train)) for epoch in range(1, trial.epochs + 1))
    trial.fingerprint(
        initial_weights=fingerprint(learner.network.state_dict()),
        batch_order=fingerprint((str(epoch), order) for epoch, order in enumerate(orders, start=1)),
    )
    position = state.load(trial, learner)
    steps = -(-len(dataset.train) // trial.settings.training.batch_size)
    xray = trial.xray(learner.optimizer, learner.network, steps_per_epoch=steps)
    while position.epoch <= trial.epochs:
        helped = helped_seconds()
        order = batch_order(trial.order_seed, position.epoch, len(dataset.train))
        batches = torch.split(order, trial.settings.training.batch_size)
        with precision.in_force(trial.settings.training.precision, learner.device):
            metrics = _train_epoch(trial, learner, position, dataset, batches, xray)
            trained = perf_counter()
            metrics |= position.evaluations | evaluate_epoch(learner, trial.settings.training, dataset, batches)
        learner.schedule.end_epoch(metrics)
        evaluation = position.evaluation_seconds + perf_counter() - trained
        metrics |= {"train_seconds": position.seconds, "eval_seconds": evaluation}
        yield metrics | ({"helped_seconds": helped} if (helped := helped_seconds() - helped) else {})
        position = TrainingPosition.before(position.epoch + 1, learner)
        if position.epoch <= trial.epochs:
            state.save(trial, learner, position)
    with evaluated_weights(learner.optimizer, learner.network):
        trial.fingerprint(final_weights=fingerprint(learner.network.state_dict()))


def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """Draw the order of the training images in an epoch (from 1): a permutation of ``range(images)``, int64."""
    sequence = np.random.SeedSequence([seed, _ORDER, epoch])
    return torch.from_numpy(np.random.Generator(np.random.PCG64(sequence)).permutation(images))


def _train_epoch(  # noqa: PLR0917
    trial: TrialContext,
    learner: Learner,
    position: TrainingPosition,
    dataset: datasets.Dataset,
    order: Sequence[Tensor],
    xray: Xray,
) -> dict[str, float]:
    """Train an epoch from a position to its end, and update the position; return ``train_loss`` and ``train_acc``."""
    device, tally, data = learner.device, position.tally, trial.settings.data
    evaluations = evaluations_within(trial.settings.training, position.epoch, len(order))
    reported = started = perf_counter()
    noise = np.random.SeedSequence([trial.order_seed, _NOISE, position.epoch]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng():  # dropout uses the global state, which is the user's
        torch.manual_seed(int(noise >> np.uint64(1)))
        set_random_state(position.random, device)
        for indices in order[position.batch :]:
            inputs, labels = (tensor.to(device) for tensor in dataset.train.batch(indices))
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
                _add_losses(xray, learner, tally, trial.settings.model, dataset)
            started += xray.spent()
            is_check = position.batch % CHECK_STEPS == 0 or position.batch == len(order)
            if is_check and not math.isfinite(loss := tally.loss.item()):
                raise Diverged(f"train_loss is {loss} in epoch {position.epoch}, by batch {position.batch}")
            if perf_counter() - reported > REPORT_SECONDS:
                trial.progress(position.batch, len(order), **tally.read("train"))
                reported = perf_counter()
            if position.batch in evaluations:
                before = perf_counter()
                with evaluated_weights(learner.optimizer, learner.network):
                    position.evaluations |= evaluate_all(learner, held_out_sets(dataset), evaluations[position.batch])
                took = perf_counter() - before
                position.evaluation_seconds, started = position.evaluation_seconds + took, started + took
            if trial.checkpoint_due:
                position.random = random_state(device)
                tally.loss.item()  # waits for an accelerator, whose time counts
                position.seconds += perf_counter() - started
                state.save(trial, learner, position)
                started = perf_counter()  # saving does not count as training
    metrics = tally.read("train")
    position.seconds += perf_counter() - started
    return metrics


def _add_losses(
    xray: Xray, learner: Learner, tally: Accumulator, model: spec.ModelSettings, dataset: datasets.Dataset
) -> None:
    """Add the losses so far to the snapshot that was just taken."""
    begun = perf_counter()
    losses = along_the_way(learner, model, dataset)
    xray.add_losses(train_loss=tally.read("train")["train_loss"], **losses)
    if not losses:
        xray.note("test loss along the way: not measured of a model of your own, which its evaluation might change")
    xray.seconds += perf_counter() - begun


def load_once(settings: spec.DataSettings) -> datasets.Dataset:
    """Load a data set once per process, however it is augmented; `prepare.prepare` has verified it."""
    return _load(datasets.unaugmented(settings))


@lru_cache(maxsize=4)
def _load(settings: spec.DataSettings) -> datasets.Dataset:
    return datasets.load(settings, verify=False)
