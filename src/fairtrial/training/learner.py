"""The training step, and what it changes."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from fairtrial.spec import ModelSettings, ScheduleSettings
from fairtrial.training import datasets
from fairtrial.training.averages import WeightAverage
from fairtrial.training.kernels.layers import accelerate
from fairtrial.training.losses import Objective
from fairtrial.trial import Trial


@dataclass(frozen=True)
class Learner:
    """A network, and what changes it in a training step."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    device: torch.device
    average: WeightAverage | None = None
    objective: Objective = field(default_factory=Objective)

    @classmethod
    def build(cls, trial: Trial, dataset: datasets.Dataset, *, fast: bool = True) -> "Learner":
        """Make the learner of a trial before its first step; without ``fast``, it uses torch's own layers."""
        settings, device = trial.settings, choose_device()
        network = build_network(settings.model, dataset, trial.weights_seed).to(device)
        if fast:
            network = accelerate(network)
        optimizer = settings.optimizer.build(network.parameters())
        steps = math.ceil(len(dataset.train) / settings.training.batch_size)
        schedule = build_schedule(settings.schedule, optimizer, steps_per_epoch=steps, epochs=trial.epochs)
        decay = settings.training.ema
        average = None if decay is None else WeightAverage(network, decay)
        return cls(network, optimizer, schedule, device, average, Objective.of(settings))

    def step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on images (batch, channels, height, width) and labels as in `Objective`.

        Returns the mean loss, shape (), and the outputs, such as logits (batch, classes), both before the step.
        """
        logits = self.network(inputs)
        loss = self.objective.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update()
        return loss.detach(), logits.detach()


def build_network(settings: ModelSettings, dataset: datasets.Dataset, seed: int) -> nn.Module:
    """Make a network for a data set."""
    return settings.build(classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, seed=seed)


def build_schedule(
    settings: ScheduleSettings, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int, epochs: int
) -> LambdaLR:
    """Make the schedule that settings describe; call its ``step`` after each optimizer step."""
    return LambdaLR(optimizer, lambda step: settings.lr_factor(step / steps_per_epoch, epochs, 1 / steps_per_epoch))


def choose_device() -> torch.device:
    """Choose the first CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
