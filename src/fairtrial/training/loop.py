"""One trial as a generator of epoch records."""

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

#: Images a forward pass of an evaluation: large enough to keep the cores busy, small enough to stay in their caches.
EVALUATION_BATCH = 500

#: Steps between two looks at whether the loss is still finite. A look waits for an accelerator; a CPU has no such wait.
STEPS_A_LOOK = 50

#: Seconds between two reports of progress within an epoch.
SECONDS_A_REPORT = 0.2

# Streams of random numbers that must not run into each other. The initial weights take the seed itself.
_ORDER, _NOISE = 1, 2


def train(trial: TrialContext) -> Iterator[dict[str, float]]:
    """Train one arm at one seed with fairtrial's own loop.

    The initial weights come from the seed alone and the order of batches from the seed and the epoch alone, so that
    all arms of a seed share both; the trial's fingerprints, of the weights before the first step and of the orders of
    all epochs, let others see that they do. A study may give weights and order seeds of their own; dropout goes with
    the order. Two runs on one machine with as many threads give the same bits, and so do two runs one of which was
    interrupted: the trial's state is saved after each epoch and whenever a checkpoint is due, see `TrialContext.save`.
    The last fingerprint, ``final_weights``, says what came out.

    Args:
        trial: what to train. Its data must be in the cache already; `prepare.prepare` sees to that.

    Yields:
        After each epoch: ``train_loss`` and ``train_acc`` over the epoch's own training batches, each measured before
        that batch's step, as Keras reports them; ``test_loss``, ``test_acc`` and, with a held-out split,
        ``val_loss``, ``val_acc`` in evaluation mode; ``train_seconds``, those of an interrupted epoch's attempts
        together, and ``eval_seconds``. Losses are cross entropies in nats, accuracies fractions.

    Raises:
        Diverged: the training loss is no longer finite.
        Stopped: the study is asked to stop, and the trial's state is saved.
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
    moment = state.load(trial, learner)
    while moment.epoch <= trial.epochs:
        metrics = _train_epoch(trial, learner, moment, dataset.train)
        trained = perf_counter()
        for name, images in held_out.items():
            metrics |= evaluate(learner.network, images, learner.device).read(name)
        yield metrics | {"train_seconds": moment.seconds, "eval_seconds": perf_counter() - trained}
        moment = TrainingPosition.before(moment.epoch + 1, learner.device)
        if moment.epoch <= trial.epochs:
            state.save(trial, learner, moment)
    trial.fingerprint(final_weights=fingerprint(learner.network.state_dict()))


def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """Draw the order in which an epoch visits the training images.

    Args:
        seed: the trial's `order_seed`.
        epoch: from 1.
        images: number of training images.

    Returns:
        A permutation of ``range(images)``, int64, which depends on the three arguments and nothing else.
    """
    sequence = np.random.SeedSequence([seed, _ORDER, epoch])
    return torch.from_numpy(np.random.Generator(np.random.PCG64(sequence)).permutation(images))


@torch.inference_mode()
def evaluate(network: nn.Module, images: datasets.ImageSet, device: torch.device) -> Accumulator:
    """Measure loss and accuracy in evaluation mode, and put the network back into training mode."""
    network.eval()
    tally = Accumulator.empty(device)
    for indices in torch.split(torch.arange(len(images)), EVALUATION_BATCH):
        inputs, labels = (tensor.to(device) for tensor in images.batch(indices))
        logits = network(inputs)
        tally.add(cross_entropy(logits, labels), logits, labels)
    network.train()
    return tally


def _train_epoch(
    trial: TrialContext, learner: Learner, moment: TrainingPosition, images: datasets.ImageSet
) -> dict[str, float]:
    """Train an epoch from a moment to its end, moving the moment along; return its ``train_loss`` and ``train_acc``."""
    device, tally = learner.device, moment.tally
    order = torch.split(batch_order(trial.order_seed, moment.epoch, len(images)), trial.settings.training.batch_size)
    reported = begun = perf_counter()
    with torch.random.fork_rng():  # dropout draws from the global state, which belongs to the user
        torch.manual_seed(_noise_seed(trial.order_seed, moment.epoch))
        state.set_random_state(moment.random, device)
        for indices in order[moment.batch :]:
            inputs, labels = (tensor.to(device) for tensor in images.batch(indices))
            tally.add(*learner.step(inputs, labels), labels)
            moment.batch += 1
            if moment.batch % STEPS_A_LOOK == 0 or moment.batch == len(order):
                _stop_if_diverged(tally, moment.epoch, moment.batch)
            if perf_counter() - reported > SECONDS_A_REPORT:
                trial.progress(moment.batch, len(order), **tally.read("train"))
                reported = perf_counter()
            if trial.checkpoint_due:
                moment.random = state.random_state(device)
                tally.loss.item()  # waits for an accelerator, whose time this is
                moment.seconds += perf_counter() - begun
                state.save(trial, learner, moment)
                begun = perf_counter()  # saving is no training
    metrics = tally.read("train")
    moment.seconds += perf_counter() - begun
    return metrics


def _stop_if_diverged(tally: Accumulator, epoch: int, batch: int) -> None:
    loss = tally.loss.item()
    if not math.isfinite(loss):
        raise Diverged(f"train_loss is {loss} in epoch {epoch}, by batch {batch}")


def _noise_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, _NOISE, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=4)
def load_once(settings: spec.DataSettings) -> datasets.Dataset:
    """Load a data set once a process; `prepare.prepare` has checked it."""
    return datasets.load(settings, verify=False)
