"""The training step, and what it changes."""

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from fairtrial.spec import ModelSettings
from fairtrial.training import datasets, devices, precision
from fairtrial.training.averages import WeightAverage
from fairtrial.training.closures import has_modes, step_with_closure
from fairtrial.training.devices import choose_device
from fairtrial.training.kernels.gains import accelerate_if_it_suits, gains
from fairtrial.training.kernels.gpu import accelerate_on_gpu
from fairtrial.training.kernels.layers import accelerate
from fairtrial.training.losses import Objective
from fairtrial.training.matrices import MuonAndAdamW
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
    uses_closure: bool = False
    parts: int = 1  # of a batch, one after the other
    clip_norm: float | None = None
    shortages: int = 0  # of the device's memory, before its first step

    @classmethod
    def build(cls, trial: Trial, dataset: datasets.Dataset, *, fast: bool = True) -> "Learner":
        """Make the learner of a trial before its first step; without ``fast``, it uses torch's own layers."""
        settings, device = trial.settings, choose_device()
        precision.check(settings.training.precision, device)
        network = build_network(settings.model, dataset, trial.weights_seed).to(device)
        if settings.optimizer.uses_closure:  # many of these flatten weights and gradients, which other layouts forbid
            network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        if fast and settings.training.precision == "float32" and gains(network):  # the fast layers have no other
            own = ":" in settings.model.name
            if device.type == "cpu":
                network = _suited(network, dataset, device) if own else accelerate(network)
            elif device.type == "cuda" and not own:
                network = accelerate_on_gpu(network)
        network = precision.apply(network, settings.training.precision, device)
        optimizer = settings.optimizer.build(network.parameters())
        if has_modes(optimizer):
            optimizer.train()  # type: ignore[attr-defined]
        steps = math.ceil(len(dataset.train) / settings.training.batch_size)
        schedule = build_schedule(settings.schedule, optimizer, steps_per_epoch=steps, epochs=trial.epochs)
        decay = settings.training.ema
        return cls(
            network,
            optimizer,
            schedule,
            device,
            average=None if decay is None else WeightAverage(network, decay),
            objective=Objective.of(settings),
            uses_closure=settings.optimizer.uses_closure,
            parts=settings.training.accumulate,
            clip_norm=settings.training.clip_norm,
            shortages=devices.shortages(device),
        )

    def step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step on images (batch, channels, height, width) and labels as in `Objective`.

        Returns the mean loss without label smoothing, shape (), and the outputs, such as logits (batch, classes), both
        before the step.
        """
        loss, outputs = self.update(inputs, labels)
        self.after_update()
        return loss, outputs

    def update(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take the part of a step that a device does: all but the schedule and the average. Returns as `step`."""
        gradient = partial(self._gradient, inputs, labels)
        if self.uses_closure:
            loss, outputs = step_with_closure(self.optimizer, gradient, self.network, self.device)
        else:
            loss, outputs = gradient()
            self.optimizer.step()
        return self.objective.recorded(loss, outputs, labels), outputs

    def after_update(self) -> None:
        """Take the part of a step that follows: set the rate of the next one, and average the weights."""
        self.schedule.step()
        if self.average is not None:
            self.average.update()

    def _gradient(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Put the gradient of the mean loss into the parameters; return the loss and the outputs."""
        if self.parts == 1:
            outputs = self.network(inputs)
            loss = self.objective.loss(outputs, labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            loss, outputs = self._accumulate(inputs, labels)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(_trained(self.optimizer, self.network), self.clip_norm)
        return loss.detach(), outputs.detach()

    def _accumulate(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Add up the gradients of a batch's parts, each weighted by its images."""
        parts = min(self.parts, len(labels))
        self.optimizer.zero_grad()
        losses: list[Tensor] = []
        outputs: list[Tensor] = []
        for some_inputs, some_labels in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
            outputs.append(self.network(some_inputs))
            loss = self.objective.loss(outputs[-1], some_labels) * (len(some_labels) / len(labels))
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            outputs[-1] = outputs[-1].detach()
        return torch.stack(losses).sum(), torch.cat(outputs)


def _trained(optimizer: torch.optim.Optimizer, network: nn.Module) -> list[nn.Parameter]:
    """List the weights that an optimizer changes: a function that makes one may leave some of the network's out."""
    if isinstance(optimizer, MuonAndAdamW):
        return optimizer.parameters
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    weights = list(network.parameters())
    return [one for one in weights if id(one) in held] or weights  # it may hold copies


def _suited(network: nn.Module, dataset: datasets.Dataset, device: torch.device) -> nn.Module:
    images, _ = dataset.train.batch(torch.arange(min(2, len(dataset.train))))
    return accelerate_if_it_suits(network, images.to(device))


def build_network(settings: ModelSettings, dataset: datasets.Dataset, seed: int) -> nn.Module:
    """Make a network for a data set."""
    return settings.build(classes=dataset.classes, image_size=dataset.image_size, channels=dataset.channels, seed=seed)
