"""Averaged SGD."""

from typing import ClassVar

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("asgd")
class ASGD(TorchOptimizer):
    r"""Averaged SGD (Polyak & Juditsky 1992; Bottou's schedule), with L2 decay and a rate that falls.

    .. math:: \theta \leftarrow (1 - \lambda \eta_t) \theta - \eta_t g, \qquad
        \eta_t = \eta / (1 + \lambda \eta t)^\alpha

    torch keeps the average beside the weights: what is evaluated here are the weights themselves. ``training.ema``
    evaluates an average.

    Attributes:
        lambd: lambda.
        alpha: power of the rate's decay.
        t0: step after which the average begins.
        weight_decay: L2 penalty, added to the gradient.
    """

    torch_class: ClassVar = "ASGD"

    lr: Positive = 1e-2
    lambd: NonNegative = 1e-4
    alpha: NonNegative = 0.75
    t0: NonNegative = 1e6
    weight_decay: NonNegative = 0.0
