"""The training step, and what it changes."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fairtrial.spec import ModelSettings
from fairtrial.training import datasets, precision
from fairtrial.training.averages import WeightAverage
from fairtrial.training.kernels.layers import accelerate
from fairtrial.training.losses import Objective
from fairtrial.training.rates import Schedule, build_schedule
from fairtrial.trial import Trial


@dataclass(frozen=True)
class Learner:
    """A network, and what changes it in a training step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    device: torch.device
    average: WeightAverage | None = None
    objective: Objective = field(default_factory=Objective)

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
        average = None if decay is None else WeightAverage(network, decay)
        return cls(network, optimizer, schedule, device, average, Objective.of(settings))

    def step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on images (batch, channels, height, width) and labels as in `Objective`.

        Returns the mean loss without label smoothing, shape (), and the outputs, such as logits (batch, classes), both
        before the step.
        """
        logits = self.network(inputs)
        loss = self.objective.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update()
        return self.objective.recorded(loss.detach(), logits.detach(), labels), logits.detach()


def build_network(settings: ModelSettings, dataset: datasets.Dataset, seed: int) -> nn.Module:
    """Make a network for a data set."""
    return settings.build(classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, seed=seed)


def choose_device() -> torch.device:
    """Choose the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
