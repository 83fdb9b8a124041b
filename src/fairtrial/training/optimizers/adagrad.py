"""Adagrad."""

from typing import ClassVar

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("adagrad")
class Adagrad(TorchOptimizer):
    r"""Adagrad (Duchi et al. 2011, the diagonal form, as torch writes it).

    .. math:: G \leftarrow G + g^2, \qquad
        \theta \leftarrow \theta - \frac{\eta}{1 + (t - 1) \lambda} \, g / (\sqrt G + \epsilon)

    Attributes:
        lr_decay: lambda, by which the learning rate falls a step.
        initial_accumulator_value: G before the first step.
        eps: added to the root.
        weight_decay: L2 penalty, added to the gradient.
    """

    torch_class: ClassVar = "Adagrad"

    lr: Positive = 1e-2
    lr_decay: NonNegative = 0.0
    initial_accumulator_value: NonNegative = 0.0
    eps: NonNegative = 1e-10
    weight_decay: NonNegative = 0.0
