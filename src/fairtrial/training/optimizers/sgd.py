"""Stochastic gradient descent."""

from typing import ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("sgd")
class SGD(TorchOptimizer):
    """Stochastic gradient descent with optional momentum (Sutskever et al. 2013, as torch writes it).

    Attributes:
        momentum: decay rate of the velocity.
        nesterov: look ahead along the velocity; requires momentum.
        weight_decay: L2 penalty, added to the gradient.
    """

    torch_class: ClassVar = "SGD"

    lr: Positive = 1e-2
    momentum: BelowOne = 0.0
    nesterov: bool = False
    weight_decay: NonNegative = 0.0

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise PydanticCustomError("nesterov", "nesterov = true needs a momentum above 0")
        return self
