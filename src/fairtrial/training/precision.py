"""The precision of a training: float32, bfloat16 by torch's autocast, or TF32 on the tensor cores of a GPU.

Weights, their gradients and updates, losses, running statistics and everything that is recorded are float32 (sums of
losses float64) in all of them. Losses are not scaled up: bfloat16 has the exponents of float32, so that small gradients
don't vanish as in float16. Evaluations have the precision of the training.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairtrial.errors import StudyError

#: The first compute capability of NVIDIA's GPUs that has bfloat16 and TF32 in its tensor cores.
_AMPERE = (8, 0)


def check(precision: str, device: torch.device) -> None:
    """Refuse a precision that a device does not have.

    Raises:
        StudyError: saying what is needed, and what can be written instead.
    """
    if precision == "float32" or (precision == "bf16" and device.type == "cpu"):
        return
    if device.type == "cpu":
        has, instead = "this machine trains on its CPU", '"float32" or "bf16"'
    elif device.type != "cuda":
        has, instead = f"this machine trains on {device.type}", '"float32"'
    elif torch.cuda.get_device_capability(device) >= _AMPERE:
        return
    else:
        has, instead = f"this one is {torch.cuda.get_device_name(device)}", '"float32"'
    raise StudyError(
        f'training.precision = "{precision}": needs an NVIDIA GPU of compute capability 8.0 or higher, and {has}; '
        f"write {instead}"
    )


def notes(precisions: Iterable[str]) -> tuple[str, ...]:
    """What a user of a CPU should know of the precisions of a study: one that this processor has no instructions for.

    It is trained nevertheless, because the results are right.
    """
    if "bf16" not in precisions or torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001
        return ()
    slow = "this processor can't speed it up, so a step takes many times as long as in float32; the results are right"
    return (f'training.precision = "bf16": {slow}',)


def apply(network: nn.Module, precision: str, device: torch.device) -> nn.Module:
    """Let a network compute its outputs in bfloat16 if that is the precision; they are returned as float32.

    Each pass is an autocast of its own, because autocast keeps the rounded weights for as long as it lasts, and a step
    changes the weights.
    """
    if precision == "bf16":
        if device.type == "cpu":
            for module in network.modules():
                if _is_depthwise(module):
                    module._conv_forward = partial(_convolve, module)  # type: ignore[method-assign]  # noqa: SLF001
        forward = network.forward

        def in_bfloat16(*args: Any, **kwargs: Any) -> Any:
            with torch.autocast(device.type, dtype=torch.bfloat16):
                outputs = forward(*args, **kwargs)
            return outputs.float() if isinstance(outputs, torch.Tensor) else outputs

        network.forward = in_bfloat16
    return network


def _is_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels > 1
        and module.bias is None
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and type(module)._conv_forward is nn.Conv2d._conv_forward  # noqa: SLF001
    )


def _convolve(conv: nn.Conv2d, images: Tensor, weight: Tensor, bias: None) -> Tensor:
    """Do what `nn.Conv2d._conv_forward` does, which torch's own and derived classes call."""
    if images.dim() != 4 or weight.dtype is not torch.float32 or not torch.is_autocast_enabled("cpu"):
        plain: Tensor = nn.Conv2d._conv_forward(conv, images, weight, bias)  # noqa: SLF001
        return plain
    settings = conv.stride, conv.padding, conv.dilation, conv.groups
    outputs = _Depthwise.apply(images.bfloat16(), weight.bfloat16(), *settings)  # type: ignore[no-untyped-call]
    return cast("Tensor", outputs)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution in bfloat16 whose gradients are computed in float32, then rounded to bfloat16.

    oneDNN has no fast kernel for most of these gradients in bfloat16: on MobileNetV2 they took two thirds of a step.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, *settings: Any) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.settings = settings
        stride, padding, dilation, groups = settings
        return functional.conv2d(images, weight, None, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        found = torch.ops.aten.convolution_backward(
            gradients[0].float(),
            images.float(),
            weight.float(),
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [*ctx.needs_input_grad[:2], False],
        )
        return (*(None if one is None else one.bfloat16() for one in found[:2]), None, None, None, None)


@contextmanager
def in_force(precision: str, device: torch.device) -> Iterator[None]:
    """Set, for a while, how a GPU multiplies float32 numbers; as TF32 only if that is the precision.

    cuDNN also chooses algorithms that give the same bits each time, since a trial that resumes must give those that it
    would have given. On the CPU there is nothing to set.
    """
    if device.type != "cuda":
        yield
        return
    tf32 = precision == "tf32"
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    wanted = [
        (matmul, "allow_tf32", tf32),
        (cudnn, "allow_tf32", tf32),
        (cudnn, "deterministic", True),
        (cudnn, "benchmark", False),
    ]
    before = [getattr(owner, name) for owner, name, _ in wanted]
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        yield
    finally:
        for (owner, name, _), value in zip(wanted, before, strict=True):
            setattr(owner, name, value)
