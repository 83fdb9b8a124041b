"""The training step, what it changes and what it counts."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fairtrial.spec import ModelSettings
from fairtrial.training import datasets, precision
from fairtrial.training.averages import WeightAverage
from fairtrial.training.kernels.layers import accelerate
from fairtrial.training.rates import Schedule, build_schedule
from fairtrial.trial import Trial


@dataclass
class Accumulator:
    """Loss and accuracy over the images so far, summed on their device and read rarely."""

    loss: Tensor
    correct: Tensor
    images: int = 0

    @classmethod
    def empty(cls, device: torch.device) -> "Accumulator":
        """Start from nothing."""
        loss, correct = (torch.zeros((), dtype=dtype, device=device) for dtype in (torch.float64, torch.int64))
        return cls(loss, correct)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count one batch: mean loss in nats, shape (); logits, (batch, classes); labels, (batch,)."""
        self.loss += loss.double() * len(labels)
        self.correct += (logits.argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def read(self, name: str) -> dict[str, float]:
        """Read mean loss and accuracy as ``{name}_loss`` and ``{name}_acc``."""
        return {f"{name}_loss": self.loss.item() / self.images, f"{name}_acc": self.correct.item() / self.images}


@dataclass(frozen=True)
class Learner:
    """A network, and what changes it in a training step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    device: torch.device
    average: WeightAverage | None = None

    @classmethod
    def build(cls, trial: Trial, dataset: datasets.Dataset, *, fast: bool = True) -> "Learner":
        """Make the learner of a trial before its first step; without ``fast``, it uses torch's own layers."""
        settings, device = trial.settings, choose_device()
        precision.check(settings.training.precision, device)
        network = build_network(settings.model, dataset, trial.weights_seed).to(device)
        if fast and settings.training.precision == "float32":  # the fast layers have no other
            network = accelerate(network)
        network = precision.apply(network, settings.training.precision, device)
        optimizer = settings.optimizer.build(network.parameters())
        steps = math.ceil(len(dataset.train) / settings.training.batch_size)
        schedule = build_schedule(settings.schedule, optimizer, steps_per_epoch=steps, epochs=trial.epochs)
        decay = settings.training.ema
        return cls(network, optimizer, schedule, device, None if decay is None else WeightAverage(network, decay))

    def step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on images (batch, channels, height, width) and labels (batch,).

        Returns mean loss in nats, shape (), and logits, shape (batch, classes), both before the step.
        """
        logits = self.network(inputs)
        loss = cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update()
        return loss.detach(), logits.detach()


def build_network(settings: ModelSettings, dataset: datasets.Dataset, seed: int) -> nn.Module:
    """Make a network for a data set."""
    _, image_size, _, channels = dataset.train.pixels.shape
    return settings.build(classes=dataset.classes, image_size=image_size, channels=channels, seed=seed)


def choose_device() -> torch.device:
    """Choose the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
