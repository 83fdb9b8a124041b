"""Adafactor."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Strict

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import Interval, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


@OPTIMIZERS.register("adafactor")
class Adafactor(TorchOptimizer):
    r"""Adafactor (Shazeer & Stern 2018, algorithms 4 and 5, as torch writes it).

    The second moment of a matrix is kept as means of its rows and columns, with decay rate
    :math:`\hat\beta_{2t} = 1 - t^{-0.8}` (the power is ``beta2_decay``). The step is relative to the size of the
    weights, and at most :math:`\eta` or :math:`1 / \sqrt t`, whichever is less.

    Attributes:
        beta2_decay: power of t in the second moment's decay rate.
        eps: least size of weights that a step is relative to.
        d: greatest root mean square of an update, beyond which it is scaled down.
        weight_decay: decoupled, as in AdamW.
    """

    torch_class: ClassVar = "Adafactor"

    lr: Positive = 1e-2
    beta2_decay: Annotated[float, Strict(), AfterValidator(Interval("(-inf, 0]"))] = -0.8
    eps: Positive = 1e-3
    d: Annotated[float, Strict(), AfterValidator(Interval("[1, inf)"))] = 1.0
    weight_decay: NonNegative = 0.0

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make torch's Adafactor; its first epsilon is that of the weights' type, as by default."""
        return self._make(parameters, **self.model_dump(exclude={"name", "eps"}), eps=(None, self.eps))
