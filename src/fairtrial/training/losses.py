"""Losses and metrics of a task: cross entropy and accuracy for classes, squared error and R2 for numbers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from fairtrial.errors import StudyError
from fairtrial.spec import Settings


@dataclass
class Accumulator(ABC):
    """Sums over the images (or rows) so far, on their device and read rarely; subclasses add what else is measured."""

    loss: Tensor
    images: int

    @classmethod
    def empty(cls, device: torch.device) -> Self:
        """Start from nothing."""
        sums = [one.name for one in fields(cls) if one.name != "images"]
        dtype = torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPUs lack
        return cls(images=0, **{name: torch.zeros((), dtype=dtype, device=device) for name in sums})

    @abstractmethod
    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Count one batch: its mean loss, shape (); outputs of the network; labels as in `Objective`."""

    @abstractmethod
    def read(self, name: str) -> dict[str, float]:
        """Read means, such as ``{name}_loss``."""

    def assign(self, other: "Accumulator") -> None:
        """Take the values of other sums of the same shapes, in place: recorded work goes on adding to these."""
        for name, value in vars(other).items():
            if isinstance(value, Tensor):
                getattr(self, name).copy_(value)
            else:
                setattr(self, name, value)

    def on_host(self) -> Self:
        """Copy the sums to the CPU, without waiting for their device; read them once that has done its work so far."""
        copies: dict[str, Any] = {name: _on_host(one) for name, one in vars(self).items() if isinstance(one, Tensor)}
        return replace(self, **copies)

    def state_dict(self) -> dict[str, Any]:
        """Write the sums, to save them."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Read what `state_dict` has written, onto the device of the sums."""
        for name, value in state.items():
            setattr(self, name, value.to(self.loss.device) if isinstance(value, Tensor) else value)


def _on_host(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cuda":
        return tensor.detach().cpu().clone()
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return pinned.copy_(tensor.detach(), non_blocking=True)


@dataclass
class ClassAccumulator(Accumulator):
    """Loss and accuracy."""

    correct: Tensor

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Count one batch: mean loss in nats, shape (); logits, (batch, classes); labels.

        Of an image that was mixed from two, the share of the predicted class counts.
        """
        self.loss += loss.to(self.loss.dtype) * len(labels)
        predicted = outputs.argmax(dim=1)
        is_mixed = labels.is_floating_point()
        self.correct += labels.gather(1, predicted[:, None]).sum() if is_mixed else (predicted == labels).sum()
        self.images += len(labels)

    def read(self, name: str) -> dict[str, float]:
        """Read mean loss and accuracy as ``{name}_loss`` and ``{name}_acc``."""
        return {f"{name}_loss": self.loss.item() / self.images, f"{name}_acc": self.correct.item() / self.images}


@dataclass
class RegressionAccumulator(Accumulator):
    """Loss, absolute error and R2."""

    absolute: Tensor  # sums over the rows, shape (targets,): of the absolute errors,
    squared: Tensor  # the squared errors,
    first: Tensor  # not a sum but the first row's targets, from which deviations are exact where the mean is large
    total: Tensor  # the targets less the first's
    squares: Tensor  # and the squares of these

    def add(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> None:
        """Count one batch: mean loss, shape (); outputs and labels, (batch, targets)."""
        values = labels.to(self.loss.dtype)
        errors = outputs.reshape(labels.shape).to(self.loss.dtype) - values
        self.loss = self.loss + loss.to(self.loss.dtype) * len(labels)
        self.absolute = self.absolute + errors.abs().sum(0)
        self.squared = self.squared + errors.square().sum(0)
        self.first = self.first if self.images else values[0]
        self.total = self.total + (values - self.first).sum(0)
        self.squares = self.squares + (values - self.first).square().sum(0)
        self.images += len(labels)

    def read(self, name: str) -> dict[str, float]:
        """Read the mean loss, the mean absolute error and R2, as ``{name}_loss`` and so on.

        R2 is one minus the sum of squared errors over that of squared deviations from the mean of these rows (Draper &
        Smith 1998, eq. 1.3.4), averaged over the targets; of a target that does not vary, 0.
        """
        spread = self.squares - self.total.square() / self.images
        r2 = torch.where(spread > 0, 1 - self.squared / spread.clamp(min=torch.finfo(spread.dtype).tiny), 0.0)
        mae = self.absolute.mean() / self.images
        return {
            f"{name}_loss": self.loss.item() / self.images,
            f"{name}_mae": mae.item(),
            f"{name}_r2": r2.mean().item(),
        }


@dataclass(frozen=True)
class Objective:
    """What a network is trained for: to tell classes or, in regression, to predict numbers.

    Labels are class numbers, int64 (batch,); shares of the classes, float32 (batch, classes), where images were mixed;
    or numbers, float32 (batch, targets).
    """

    regression: bool = False
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "Objective":
        """The objective that a trial's settings describe."""
        return cls(settings.data.is_regression, settings.training.label_smoothing)

    @property
    def plain(self) -> "Objective":
        """The same without label smoothing: held-out images are evaluated by it, whatever the training was."""
        return replace(self, label_smoothing=0.0)

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean loss over a batch, shape (): cross entropy in nats, or the squared error.

        With label smoothing, a share of each label is spread evenly over all classes (Szegedy et al. 2016, sect. 7).

        Example:
            >>> import torch
            >>> Objective(regression=True).loss(torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [1.0]]))
            tensor(2.)
        """
        if not self.regression:
            return cross_entropy(outputs, labels, label_smoothing=self.label_smoothing)
        if outputs.numel() != labels.numel():  # broadcasting would compare every output with every label
            raise StudyError(
                f"model: its outputs have shape {tuple(outputs.shape)}; they must be {tuple(labels.shape)}"
            )
        return mse_loss(outputs.reshape(labels.shape), labels)

    def recorded(self, loss: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss that is recorded of a training step: without label smoothing, so arms are comparable."""
        return self.plain.loss(outputs, labels) if self.label_smoothing else loss

    def accumulator(self, device: torch.device) -> Accumulator:
        """Make an empty accumulator of this objective's metrics."""
        return (RegressionAccumulator if self.regression else ClassAccumulator).empty(device)
