"""Muon for matrices, AdamW for all other weights."""

from typing import TYPE_CHECKING, Literal

from pydantic import StrictBool

from fairtrial.registry import OPTIMIZERS
from fairtrial.spec.numbers import BelowOne, Count, NonNegative, Positive
from fairtrial.spec.sections import OptimizerSettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


@OPTIMIZERS.register("muon")
class Muon(OptimizerSettings):
    r"""Muon (Jordan et al. 2024) for weights of two or more dimensions, AdamW for the others.

    With B the running sum of gradients, as a matrix, and NS the Newton-Schulz iteration that makes its singular values
    about 1:

    .. math:: B \leftarrow \mu B + (1 - \mu) g, \qquad \theta \leftarrow (1 - \eta \lambda) \theta - \eta \, c \, NS(B)

    A kernel of a convolution is a matrix with a row for each output. torch's Muon takes matrices alone, so biases and
    the weights of batch norm get torch's AdamW, with the same rate and decay: c makes the two's steps alike.

    Attributes:
        momentum: mu.
        nesterov: look ahead along B.
        ns_steps: iterations of NS.
        adjust_lr_fn: c: ``"match_rms_adamw"`` is 0.2 times the root of the longer side (Liu et al. 2025);
            ``"original"``, the root of rows by columns and at least 1, needs another rate than AdamW.
        weight_decay: lambda, for all weights.
        betas: AdamW's.
        eps: AdamW's.
    """

    lr: Positive = 1e-3
    momentum: BelowOne = 0.95
    nesterov: StrictBool = True
    ns_steps: Count = 5
    adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    weight_decay: NonNegative = 0.1
    betas: tuple[BelowOne, BelowOne] = (0.9, 0.999)
    eps: NonNegative = 1e-8

    def build(self, parameters: "Iterable[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Make both of torch's optimizers, as one."""
        from fairtrial.training.matrices import MuonAndAdamW  # noqa: PLC0415  (settings are read without torch)

        shared = {"lr", "weight_decay"}
        muon = self.model_dump(include=shared | {"momentum", "nesterov", "ns_steps", "adjust_lr_fn"})
        return MuonAndAdamW(parameters, muon, self.model_dump(include=shared | {"betas", "eps"}))
