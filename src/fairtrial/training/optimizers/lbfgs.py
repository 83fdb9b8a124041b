"""LBFGS."""

from typing import ClassVar, Literal

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import Count, NonNegative, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("lbfgs")
class LBFGS(TorchOptimizer):
    """L-BFGS (Nocedal & Wright 2006, algorithm 7.5), on one batch at a time.

    A step takes up to ``max_iter`` iterations on its batch, each with a loss and a gradient of its own. These see the
    same dropout, and batch norm keeps the statistics of the first.

    Attributes:
        max_iter: most iterations of a step.
        max_eval: most evaluations of the loss in a step; 1.25 times the iterations by default.
        tolerance_grad: a step ends where no entry of the gradient is larger,
        tolerance_change: or no weight, nor the loss, changes by more.
        history_size: how many past changes estimate the curvature.
        line_search_fn: ``"strong_wolfe"``, or none: then the rate alone scales an iteration.
    """

    torch_class: ClassVar = "LBFGS"

    uses_closure: ClassVar = True

    lr: Positive = 1.0
    max_iter: Count = 20
    max_eval: Count | None = None
    tolerance_grad: NonNegative = 1e-7
    tolerance_change: NonNegative = 1e-9
    history_size: Count = 100
    line_search_fn: Literal["strong_wolfe"] | None = None
