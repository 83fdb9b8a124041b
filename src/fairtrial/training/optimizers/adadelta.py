"""Adadelta."""

from typing import ClassVar

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("adadelta")
class Adadelta(TorchOptimizer):
    r"""Adadelta (Zeiler 2012, algorithm 1).

    With E the running mean of a square and d the step before the learning rate:

    .. math:: d = \sqrt{\frac{E[d^2] + \epsilon}{E[g^2] + \epsilon}} \, g, \qquad \theta \leftarrow \theta - \eta \, d

    Attributes:
        rho: decay rate of both running means.
        eps: added under both roots.
        weight_decay: L2 penalty, added to the gradient.
    """

    torch_class: ClassVar = "Adadelta"

    lr: Positive = 1.0
    rho: BelowOne = 0.9
    eps: NonNegative = 1e-6
    weight_decay: NonNegative = 0.0
