"""RMSprop."""

from typing import ClassVar

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("rmsprop")
class RMSprop(TorchOptimizer):
    r"""RMSprop (Tieleman & Hinton 2012, as torch writes it).

    .. math:: v \leftarrow \alpha v + (1 - \alpha) g^2, \qquad
        \theta \leftarrow \theta - \eta \, g / (\sqrt v + \epsilon)

    Attributes:
        alpha: decay rate of the running mean of the gradient's square, v.
        eps: added to the root.
        momentum: decay rate of the velocity, a running sum of the steps that replaces them.
        centered: divide by the gradient's deviation instead: v less the square of the running mean (Graves 2013).
        weight_decay: L2 penalty, added to the gradient.
    """

    torch_class: ClassVar = "RMSprop"

    lr: Positive = 1e-2
    alpha: BelowOne = 0.99
    eps: NonNegative = 1e-8
    momentum: BelowOne = 0.0
    centered: bool = False
    weight_decay: NonNegative = 0.0
