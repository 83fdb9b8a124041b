"""Rprop."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Strict

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import Decay, Interval, Positive
from fairtrial.training.optimizers.base import TorchOptimizer


@OPTIMIZERS.register("rprop")
class Rprop(TorchOptimizer):
    r"""Rprop (Riedmiller & Braun 1993; torch's is the variant without backtracking of weights).

    Each weight has a step of its own, at first the learning rate, which grows while the gradient keeps its sign and
    shrinks, with no step taken, where the sign has changed. It is made for whole data sets: on batches signs are noise.

    Attributes:
        etas: by what a step shrinks, and by what it grows.
        step_sizes: its least and greatest size.
    """

    torch_class: ClassVar = "Rprop"

    lr: Positive = 1e-2
    etas: tuple[Decay, Annotated[float, Strict(), AfterValidator(Interval("(1, inf)"))]] = (0.5, 1.2)
    step_sizes: tuple[Positive, Positive] = (1e-6, 50.0)
