"""Adamax."""

from typing import ClassVar

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("adamax")
class Adamax(TorchOptimizer):
    r"""Adamax (Kingma & Ba 2014, algorithm 2): Adam with the infinity norm.

    .. math:: u \leftarrow \max(\beta_2 u, |g| + \epsilon), \qquad
        \theta \leftarrow \theta - \frac{\eta}{1 - \beta_1^t} \, m / u

    Attributes:
        betas: decay rates of the running mean of the gradient, m, and of the greatest gradient, u.
        eps: added to the gradient's size.
        weight_decay: L2 penalty, added to the gradient.
    """

    torch_class: ClassVar = "Adamax"

    lr: Positive = 2e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
