"""Adam and AdamW, with epsilon as in the paper or as in Keras."""

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import StrictBool

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


@OPTIMIZERS.register("adam")
class Adam(TorchOptimizer):
    r"""Adam (Kingma & Ba 2014, algorithm 1).

    With ``eps_convention = "torch"``, it is algorithm 1 of the paper and torch.optim.Adam:

    .. math:: \theta \leftarrow \theta - \alpha \, \hat m_t / (\sqrt{\hat v_t} + \epsilon)

    With ``"keras"``, it is the form at the end of section 2 ("epsilon hat"), as in Keras and TensorFlow:

    .. math:: \theta \leftarrow \theta
        - \alpha \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} m_t / (\sqrt{v_t} + \hat\epsilon)

    The same epsilon has another effect there, most of all in the first ``1 / (1 - beta2)`` steps.

    Attributes:
        betas: decay rates of the running means of the gradient and of its square.
        eps: added to the denominator.
        eps_convention: to which denominator.
        weight_decay: L2 penalty, added to the gradient.
        amsgrad: divide by the greatest v so far in place of the last (Reddi et al. 2018).

    Example:
        >>> import torch
        >>> weights = torch.nn.Parameter(torch.ones(3))
        >>> Adam(lr=0.1).build([weights]).param_groups[0]["lr"]
        0.1
    """

    torch_class: ClassVar = "Adam"
    later_keys: ClassVar = frozenset({"amsgrad"})

    lr: Positive = 1e-3
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    eps_convention: Literal["torch", "keras"] = "torch"
    weight_decay: NonNegative = 0.0
    amsgrad: StrictBool = False

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make torch's optimizer with its fused kernels, which read and write each parameter once."""
        arguments = self.model_dump(include={"lr", "betas", "eps", "weight_decay", "amsgrad"})
        optimizer = self._make(parameters, fused=True, **arguments)
        if self.eps_convention == "keras":
            _use_epsilon_hat(optimizer)
        return optimizer


@OPTIMIZERS.register("adamw")
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    Attributes are `Adam`'s; `weight_decay` is subtracted from the weights themselves.
    """

    torch_class: ClassVar = "AdamW"

    weight_decay: NonNegative = 1e-2


def _use_epsilon_hat(optimizer: "torch.optim.Optimizer") -> None:
    """Turn torch's Adam into Keras's by setting, before each step, the epsilon that makes the two equal.

    Multiplying numerator and denominator of Keras's update by ``1 / sqrt(1 - beta2^t)`` gives torch's update with
    ``eps = eps_hat / sqrt(1 - beta2^t)``. The step count is in the parameter group, so it is part of the state dict.
    """
    for group in optimizer.param_groups:
        group["eps_hat"], group["steps"] = group["eps"], 0

    def before_step(running: "torch.optim.Optimizer", _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        for group in running.param_groups:
            group["steps"] += 1
            group["eps"] = group["eps_hat"] / math.sqrt(1 - group["betas"][1] ** group["steps"])

    optimizer.register_step_pre_hook(before_step)
