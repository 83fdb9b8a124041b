"""RAdam."""

from typing import ClassVar

from pydantic import StrictBool

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("radam")
class RAdam(TorchOptimizer):
    r"""RAdam (Liu et al. 2020, algorithm 2): Adam that waits for its second moment.

    With :math:`\rho_\infty = 2 / (1 - \beta_2) - 1` and
    :math:`\rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t)`, Adam's step is scaled by

    .. math:: r_t = \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}}

    and, while :math:`\rho_t \le 5`, is :math:`\eta \hat m_t` alone.

    Attributes:
        betas: decay rates of the running means of the gradient and of its square.
        eps: added to the root.
        weight_decay: L2 penalty, added to the gradient or, if decoupled, subtracted from the weights as in AdamW.
        decoupled_weight_decay: which of the two.
    """

    torch_class: ClassVar = "RAdam"

    lr: Positive = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    decoupled_weight_decay: StrictBool = False
