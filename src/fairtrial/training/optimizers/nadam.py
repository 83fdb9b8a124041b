"""NAdam."""

from typing import ClassVar

from pydantic import StrictBool

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("nadam")
class NAdam(TorchOptimizer):
    r"""NAdam (Dozat 2016): Adam with Nesterov's momentum.

    With the products of :math:`\mu_t = \beta_1 (1 - 0.96^{t \psi} / 2)` in place of the powers of beta1:

    .. math:: \theta \leftarrow \theta - \eta \left(\frac{1 - \mu_t}{1 - \prod_{i \le t} \mu_i} g
        + \frac{\mu_{t + 1}}{1 - \prod_{i \le t + 1} \mu_i} m_t\right) / (\sqrt{\hat v_t} + \epsilon)

    Attributes:
        betas: decay rates of the running means of the gradient and of its square.
        eps: added to the root.
        momentum_decay: psi.
        weight_decay: L2 penalty, added to the gradient or, if decoupled, subtracted from the weights as in AdamW.
        decoupled_weight_decay: which of the two.
    """

    torch_class: ClassVar = "NAdam"

    lr: Positive = 2e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    momentum_decay: NonNegative = 4e-3
    weight_decay: NonNegative = 0.0
    decoupled_weight_decay: StrictBool = False
