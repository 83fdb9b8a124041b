"""One trial as a generator of epoch records."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from fairtrial import spec
from fairtrial.errors import Diverged
from fairtrial.records import Trial
from fairtrial.workload import data, model
from fairtrial.workload.allocator import keep_freed_memory
from fairtrial.workload.fingerprints import fingerprint
from fairtrial.workload.layers import accelerate
from fairtrial.workload.optimizer import build_optimizer, build_schedule

#: Images a forward pass of an evaluation: large enough to keep the cores busy, small enough to stay in their caches.
EVALUATION_BATCH = 500

#: Steps between two looks at whether the loss is still finite. A look waits for an accelerator; a CPU has no such wait.
STEPS_A_LOOK = 50

#: Seconds between two reports of progress within an epoch.
SECONDS_A_REPORT = 0.2

# Streams of random numbers that must not run into each other. The initial weights take the seed itself.
_ORDER, _NOISE = 1, 2


@dataclass
class Tally:
    """Loss and accuracy over the images seen so far, summed where the images are, read seldom."""

    loss: Tensor
    correct: Tensor
    images: int = 0

    @classmethod
    def empty(cls, device: torch.device) -> "Tally":
        """Start from nothing."""
        return cls(
            torch.zeros((), dtype=torch.float64, device=device), torch.zeros((), dtype=torch.int64, device=device)
        )

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch.

        Args:
            loss: mean loss over the batch, in nats, shape ().
            logits: shape (batch, classes).
            labels: shape (batch,).
        """
        self.loss += loss.double() * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def read(self, name: str) -> dict[str, float]:
        """Read mean loss and accuracy as ``{name}_loss`` and ``{name}_acc``."""
        return {f"{name}_loss": self.loss.item() / self.images, f"{name}_acc": self.correct.item() / self.images}


@dataclass(frozen=True)
class Learner:
    """What a training step changes: the network, and what changes it."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    device: torch.device

    @classmethod
    def build(cls, trial: Trial, dataset: data.Dataset, *, fast: bool = True) -> "Learner":
        """Make the learner of a trial as it is before the first step.

        Args:
            trial: what will be trained.
            dataset: what it will be trained on.
            fast: use the fast layers; without them the same network is computed by torch's own, for comparisons.
        """
        settings, device = trial.settings, choose_device()
        network = model.build(
            settings.model, classes=dataset.classes, image_size=dataset.image_size, seed=trial.weights_seed
        )
        network = network.to(device)
        if fast:
            network = accelerate(network)
        optimizer = build_optimizer(settings.optimizer, network.parameters())
        steps = math.ceil(len(dataset.train) / settings.training.batch_size)
        schedule = build_schedule(settings.schedule, optimizer, steps_per_epoch=steps, epochs=trial.epochs)
        return cls(network, optimizer, schedule, device)

    def step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step.

        Args:
            inputs: shape (batch, channels, height, width).
            labels: shape (batch,), int64.

        Returns:
            Mean loss in nats, shape (), and logits, shape (batch, classes), both from before the step.
        """
        logits = self.network(inputs)
        loss = cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        return loss.detach(), logits.detach()


def train(trial: Trial) -> Iterator[dict[str, float]]:
    """Train one arm at one seed with fairtrial's own loop.

    The initial weights come from the seed alone and the order of batches from the seed and the epoch alone, so that
    all arms of a seed share both; the trial's fingerprints, of the weights before the first step and of the orders of
    all epochs, let others see that they do. A study may give weights and order seeds of their own; dropout goes with
    the order. Two runs on one machine with as many threads give the same bits.

    Args:
        trial: what to train. Its data must be in the cache already; `loops.prepare` sees to that.

    Yields:
        After each epoch: ``train_loss`` and ``train_acc`` over the epoch's own training batches, each measured before
        that batch's step, as Keras reports them; ``test_loss``, ``test_acc`` and, with a held-out split,
        ``val_loss``, ``val_acc`` in evaluation mode; ``train_seconds`` and ``eval_seconds``. Losses are cross
        entropies in nats, accuracies fractions.

    Raises:
        Diverged: the training loss is no longer finite.
    """
    keep_freed_memory()
    dataset = load_once(trial.settings.data)
    learner = Learner.build(trial, dataset)
    orders = (batch_order(trial.order_seed, epoch, len(dataset.train)) for epoch in range(1, trial.epochs + 1))
    trial.fingerprint(
        initial_weights=fingerprint(learner.network.state_dict()),
        batch_order=fingerprint((str(epoch), order) for epoch, order in enumerate(orders, start=1)),
    )
    held_out = {"test": dataset.test} | ({"val": dataset.validation} if dataset.validation else {})
    for epoch in range(1, trial.epochs + 1):
        start = perf_counter()
        metrics = _train_epoch(trial, epoch, learner, dataset.train)
        trained = perf_counter()
        for name, images in held_out.items():
            metrics |= evaluate(learner.network, images, learner.device).read(name)
        yield metrics | {"train_seconds": trained - start, "eval_seconds": perf_counter() - trained}


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
def evaluate(network: nn.Module, images: data.ImageSet, device: torch.device) -> Tally:
    """Measure loss and accuracy in evaluation mode, and put the network back into training mode."""
    network.eval()
    tally = Tally.empty(device)
    for indices in torch.split(torch.arange(len(images)), EVALUATION_BATCH):
        inputs, labels = (tensor.to(device) for tensor in images.batch(indices))
        logits = network(inputs)
        tally.add(cross_entropy(logits, labels), logits, labels)
    network.train()
    return tally


def choose_device() -> torch.device:
    """Choose the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _train_epoch(trial: Trial, epoch: int, learner: Learner, images: data.ImageSet) -> dict[str, float]:
    """Train one epoch and return its ``train_loss`` and ``train_acc``."""
    order = torch.split(batch_order(trial.order_seed, epoch, len(images)), trial.settings.training.batch_size)
    tally, reported = Tally.empty(learner.device), perf_counter()
    with torch.random.fork_rng():  # dropout draws from the global state, which belongs to the user
        torch.manual_seed(_noise_seed(trial.order_seed, epoch))
        for batch, indices in enumerate(order, start=1):
            inputs, labels = (tensor.to(learner.device) for tensor in images.batch(indices))
            tally.add(*learner.step(inputs, labels), labels)
            if batch % STEPS_A_LOOK == 0 or batch == len(order):
                _stop_if_diverged(tally, epoch, batch)
            if perf_counter() - reported > SECONDS_A_REPORT:
                trial.progress(batch, len(order), **tally.read("train"))
                reported = perf_counter()
    return tally.read("train")


def _stop_if_diverged(tally: Tally, epoch: int, batch: int) -> None:
    loss = tally.loss.item()
    if not math.isfinite(loss):
        raise Diverged(f"train_loss is {loss} in epoch {epoch}, by batch {batch}")


def _noise_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, _NOISE, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@lru_cache(maxsize=4)
def load_once(settings: spec.Data) -> data.Dataset:
    """Load a data set once a process; `loops.prepare` has checked it."""
    return data.load(settings, verify=False)
