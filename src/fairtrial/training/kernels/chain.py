"""A chain of convolutions and batch norms as one node of autograd's graph."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairtrial.training.kernels.library import Chain, Kernels, Tape


def run(kernels: Kernels, chain: Chain, images: Tensor) -> Tensor:
    """Compute a chain.

    Args:
        kernels: for the dtype of the images and all parameters.
        chain: the layers. If a norm takes its statistics from the batch, its input has at least two pixels.
        images: (batch, channels, height, width), in any memory format, of the chain's size.

    Returns:
        (batch, channels, height, width), in channels_last memory format.
    """
    if torch.is_grad_enabled():
        parameters = chain.parameters
        if images.requires_grad or any(p is not None and p.requires_grad for p in parameters):
            output: Tensor = _Chain.apply(images, kernels, chain, *parameters)  # type: ignore[no-untyped-call]
            return output
    return kernels.forward(chain, _nhwc(images))[0]


class _Chain(torch.autograd.Function):
    """The chain for autograd: images and all parameters in, one feature map out.

    The feature map is no view, because an activation after the chain may change it in place, which on a view makes
    autograd copy whole gradients.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Kernels, chain: Chain, *_: Tensor | None) -> Tensor:
        output, tape = kernels.forward(chain, _nhwc(images))
        # Autograd detects changes of the tensors that belong to others, and releases all after the backward pass.
        inputs = images, *(None if unit.conv is None else unit.conv.weight for unit in chain.units)
        ctx.save_for_backward(*inputs, *tape.tensors)
        ctx.kernels, ctx.chain, ctx.units, ctx.inputs = kernels, chain, tape.units, len(inputs)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        tape = Tape(ctx.units, ctx.saved_tensors[ctx.inputs :])
        at_images, gradients = ctx.kernels.backward(ctx.chain, tape, _nhwc(gradient), needed[3:], wants_input=needed[0])
        return (None if at_images is None else _nchw(at_images), None, None, *gradients)


def _nhwc(tensor: Tensor) -> Tensor:
    return tensor.detach().permute(0, 2, 3, 1).contiguous()


def _nchw(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)
