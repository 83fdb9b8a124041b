"""Train one trial: a generator of epoch records."""

import math
from collections.abc import Iterator
from functools import lru_cache
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairtrial import spec
from fairtrial.errors import Diverged
from fairtrial.training import datasets, state
from fairtrial.training.allocator import keep_freed_memory
from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.learner import Accumulator, Learner
from fairtrial.training.state import TrainingPosition
from fairtrial.trial import TrialContext

#: Images per forward pass of an evaluation: enough to keep the cores busy, few enough to stay in their caches.
EVALUATION_BATCH = 500
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
    as many threads give the same bits, even if one was interrupted: the trial's state is saved after each epoch and
    whenever a checkpoint is due, see `TrialContext.save`.

    Args:
        trial: what to train; `prepare.prepare` has put its data in the cache.

    Yields:
        After each epoch: ``train_loss`` and ``train_acc`` over the epoch's training batches, each measured before its
        step, as in Keras; ``test_loss``, ``test_acc`` and, with a validation set, ``val_loss``, ``val_acc`` in
        evaluation mode; ``train_seconds``, the sum over an interrupted epoch's attempts, and ``eval_seconds``. Losses
        are cross entropies in nats, accuracies fractions.

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
    held_out = {"test": dataset.test} | ({"val": dataset.validation} if dataset.validation else {})
    position = state.load(trial, learner)
    while position.epoch <= trial.epochs:
        metrics = _train_epoch(trial, learner, position, dataset.train)
        trained = perf_counter()
        for name, images in held_out.items():
            metrics |= evaluate(learner.network, images, learner.device).read(name)
        yield metrics | {"train_seconds": position.seconds, "eval_seconds": perf_counter() - trained}
        position = TrainingPosition.before(position.epoch + 1, learner.device)
        if position.epoch <= trial.epochs:
            state.save(trial, learner, position)
    trial.fingerprint(final_weights=fingerprint(learner.network.state_dict()))


def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """Draw the order of the training images in an epoch (from 1): a permutation of ``range(images)``, int64."""
    sequence = np.random.SeedSequence([seed, _ORDER, epoch])
    return torch.from_numpy(np.random.Generator(np.random.PCG64(sequence)).permutation(images))


@torch.inference_mode()
def evaluate(network: nn.Module, images: datasets.ImageSet, device: torch.device) -> Accumulator:
    """Measure loss and accuracy in evaluation mode, then return the network to training mode."""
    network.eval()
    tally = Accumulator.empty(device)
    for indices in torch.split(torch.arange(len(images)), EVALUATION_BATCH):
        inputs, labels = (tensor.to(device) for tensor in images.batch(indices))
        logits = network(inputs)
        tally.add(cross_entropy(logits, labels), logits, labels)
    network.train()
    return tally


def _train_epoch(
    trial: TrialContext, learner: Learner, position: TrainingPosition, images: datasets.ImageSet
) -> dict[str, float]:
    """Train an epoch from a position to its end, and update the position; return ``train_loss`` and ``train_acc``."""
    device, tally = learner.device, position.tally
    order = torch.split(batch_order(trial.order_seed, position.epoch, len(images)), trial.settings.training.batch_size)
    reported = started = perf_counter()
    noise = np.random.SeedSequence([trial.order_seed, _NOISE, position.epoch]).generate_state(1, np.uint64)[0]
    with torch.random.fork_rng():  # dropout uses the global state, which is the user's
        torch.manual_seed(int(noise >> np.uint64(1)))
        state.set_random_state(position.random, device)
        for indices in order[position.batch :]:
            inputs, labels = (tensor.to(device) for tensor in images.batch(indices))
            tally.add(*learner.step(inputs, labels), labels)
            position.batch += 1
            is_check = position.batch % CHECK_STEPS == 0 or position.batch == len(order)
            if is_check and not math.isfinite(loss := tally.loss.item()):
                raise Diverged(f"train_loss is {loss} in epoch {position.epoch}, by batch {position.batch}")
            if perf_counter() - reported > REPORT_SECONDS:
                trial.progress(position.batch, len(order), **tally.read("train"))
                reported = perf_counter()
            if trial.checkpoint_due:
                position.random = state.random_state(device)
                tally.loss.item()  # waits for an accelerator, whose time counts
                position.seconds += perf_counter() - started
                state.save(trial, learner, position)
                started = perf_counter()  # saving does not count as training
    metrics = tally.read("train")
    position.seconds += perf_counter() - started
    return metrics


@lru_cache(maxsize=4)
def load_once(settings: spec.DataSettings) -> datasets.Dataset:
    """Load a data set once per process; `prepare.prepare` has verified it."""
    return datasets.load(settings, verify=False)
