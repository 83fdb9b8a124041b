"""Batch norm and depthwise convolutions on a GPU: launches `programs` and `chains`, and gives autograd their gradients.

All tensors are float32 and of images, shape (batch, channels, height, width), with channels last in memory.
"""

import importlib.metadata
import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fairtrial.text import one_line
from fairtrial.training.devices import choose_device
from fairtrial.training.kernels import chains, programs
from fairtrial.training.kernels.compiler import SWITCH
from fairtrial.training.kernels.library import Activation, Shape
from fairtrial.training.models.mobilenet_v2.flavors import BiasedBatchNorm2d

#: Up to this many pixels in a batch, one program goes over all of them, for so many channels at a time.
LARGEST_WHOLE, WHOLE_CHANNELS, WHOLE_PIXELS = 4096, 8, 256

#: Beyond that, a program takes a chunk of pixels, at least this many, and there are at most so many programs.
SMALLEST_CHUNK, MOST_SPLITS, SPLIT_CHANNELS = 512, 64, 32

#: Numbers in a tile: eight a thread with eight warps, which leaves registers for the sums of nine taps.
TILE = 2048


#: The first compute capability for which Triton compiles the programs.
OLDEST_GPU = (7, 5)


class Tiling(NamedTuple):
    """How pixels and channels are divided among programs."""

    channels: int
    pixels: int
    splits: int
    chunk: int

    @property
    def constants(self) -> dict[str, int]:
        """What the programs are compiled for."""
        slots = 1 << (self.splits - 1).bit_length()
        return {"BP": self.pixels, "BC": self.channels, "SPLITS": self.splits, "SLOTS": slots} | {
            "num_warps": max(1, min(8, self.pixels * self.channels // 128))
        }


@cache
def tile(pixels: int, channels: int) -> Tiling:
    """Divide images of so many pixels, over the whole batch, and channels.

    Example:
        >>> tile(64, 960)
        Tiling(channels=8, pixels=64, splits=1, chunk=64)
        >>> tile(16384, 96)
        Tiling(channels=32, pixels=64, splits=32, chunk=512)
    """
    if pixels <= LARGEST_WHOLE:
        block = max(32, min(WHOLE_PIXELS, 1 << (pixels - 1).bit_length()))
        return Tiling(WHOLE_CHANNELS, block, 1, pixels)
    width = min(SPLIT_CHANNELS, 1 << (channels - 1).bit_length())
    chunk = max(SMALLEST_CHUNK, ceil(pixels / MOST_SPLITS))
    return Tiling(width, TILE // width, ceil(pixels / chunk), chunk)


@dataclass(frozen=True)
class Norm:
    """A batch norm and the activation after it."""

    module: nn.BatchNorm2d
    activation: Activation = Activation.NONE

    def statistics(self, pixels: int) -> tuple[Tensor, Tensor, float, float, float]:
        """Running averages, epsilon, momentum, and the factor that makes the averaged variance the unbiased one."""
        mean, variance = self.running
        correction = 1.0 if isinstance(self.module, BiasedBatchNorm2d) else pixels / (pixels - 1)
        assert self.module.momentum is not None
        return mean, variance, self.module.eps, self.module.momentum, correction

    @property
    def running(self) -> tuple[Tensor, Tensor]:
        """The running averages."""
        mean, variance = self.module.running_mean, self.module.running_var
        assert mean is not None
        assert variance is not None
        return mean, variance

    def count(self) -> None:
        """Count a batch, as torch does, unless someone else does so for many norms at once."""
        if self.module.num_batches_tracked is not None:
            self.module.num_batches_tracked.add_(1)


def is_available() -> bool:
    """Whether Triton's programs can run here, and ``FAIRTRIAL_KERNELS=off`` does not ask for torch's own layers."""
    if os.environ.get(SWITCH, "").lower() == "off" or find_spec("triton") is None:
        return False
    return _is_interpreter() or not obstacle()


def path() -> str:
    """Describe a GPU's layers: ``"Triton's programs (3.6.0)"``, or ``"torch's own"``, with the reason if any."""
    if is_available():
        return f"Triton's programs ({importlib.metadata.version('triton')})"
    return f"torch's own: {obstacle()}" if obstacle() else "torch's own"


def is_interpreted() -> bool:
    """Whether Triton computes on the CPU, by its interpreter (``TRITON_INTERPRET=1`` when it was imported)."""
    return is_available() and _is_interpreter()


def _is_interpreter() -> bool:
    return type(programs.norm_forward).__name__ == "InterpretedFunction"


@cache
def obstacle() -> str:
    """Find out why this process's GPU can't run the programs; empty if it can, or if there is no GPU.

    Triton needs a GPU that is not too old and, for what starts a program, a C compiler and Python's headers.
    """
    if find_spec("triton") is None or not torch.cuda.is_available():
        return ""
    device = choose_device()
    if device.type != "cuda":
        return ""
    if torch.cuda.get_device_capability(device) < OLDEST_GPU:
        return f"Triton's programs need a GPU of compute capability {OLDEST_GPU[0]}.{OLDEST_GPU[1]} or higher"
    try:
        _try_one(device)
    except (torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # noqa: BLE001  (of a compiler, or of whatever Triton calls)
        return f"Triton can't compile ({one_line(str(error) or type(error).__name__)[:120]})"
    return ""


def _try_one(device: torch.device) -> None:
    with torch.cuda.device(device):
        numbers = torch.ones(6, 8, device=device).unbind()
        programs.norm_evaluate[1, 1](*numbers, 8, 1, 1e-5, ACT=0, BP=16, BC=8, num_warps=1)


def norm(x: Tensor, after: Norm) -> Tensor:
    """Batch norm and activation; see `torch.nn.functional.batch_norm`, with the module's own mode and averages."""
    if after.module.training:
        after.count()
        result: Tensor = _Norm.apply(x, after.module.weight, after.module.bias, after)  # type: ignore[no-untyped-call]
        return result
    rows = _rows(x)
    pixels, channels = rows.numel() // rows.shape[-1], rows.shape[-1]
    result, constants = torch.empty_like(rows), _evaluation_tile(channels)
    grid = (ceil(pixels / constants["BP"]), ceil(channels / constants["BC"]))
    module = after.module
    programs.norm_evaluate[grid](
        rows, result, module.weight, module.bias, *after.running, channels, pixels, module.eps,
        ACT=int(after.activation), **constants,
    )  # fmt: skip
    return result.permute(0, 3, 1, 2)


def chain(x: Tensor, weight: Tensor, shape: Shape, before: Norm | None, after: Norm) -> Tensor:
    """Norm and activation (if any), depthwise 3x3 convolution without bias, norm and activation.

    Args:
        x: images.
        weight: of the convolution, shape (channels, 1, 3, 3), contiguous.
        shape: of its input and output.
        before: what the input passes first.
        after: what follows.
    """
    if after.module.training:
        for one in (before, after):
            if one is not None:
                one.count()
        first = (None, None) if before is None else (before.module.weight, before.module.bias)
        given = (x, weight, *first, after.module.weight, after.module.bias)
        result: Tensor = _Chain.apply(*given, shape, before, after)  # type: ignore[no-untyped-call]
        return result
    rows = _rows(x)
    result = rows.new_empty(_output(shape))
    pixels, constants = result.numel() // shape.channels, _evaluation_tile(shape.channels)
    grid = (ceil(pixels / constants["BP"]), ceil(shape.channels / constants["BC"]))
    norms: list[Any] = []
    for one in (before or after, after):
        norms += (one.module.weight, one.module.bias, *one.running)
    chains.chain_evaluate[grid](
        rows, result, weight, *norms, shape.channels, pixels, (before or after).module.eps, after.module.eps,
        **_geometry(shape, before, after), **constants,
    )  # fmt: skip
    return result.permute(0, 3, 1, 2)


def _rows(x: Tensor) -> Tensor:
    """The images as (batch, height, width, channels), contiguous."""
    return x.permute(0, 2, 3, 1).contiguous()


def _output(shape: Shape) -> tuple[int, int, int, int]:
    return shape.images, shape.out_height, shape.out_width, shape.channels


def _evaluation_tile(channels: int) -> dict[str, int]:
    width = min(SPLIT_CHANNELS, 1 << (channels - 1).bit_length())
    return {"BP": TILE // width, "BC": width, "num_warps": 8}


def _geometry(shape: Shape, before: Norm | None, after: Norm) -> dict[str, int | bool]:
    return {
        "H": shape.height,
        "W": shape.width,
        "OH": shape.out_height,
        "OW": shape.out_width,
        "STRIDE": shape.stride,
        "TOP": shape.top,
        "LEFT": shape.left,
        "BEFORE": before is not None,
        "ACT1": 0 if before is None else int(before.activation),
        "ACT2": int(after.activation),
    }


def _launch(
    program: Any, tiling: Tiling, channels: int, first: int, last: int, *arguments: Any, **constants: int | bool
) -> None:
    """Run all phases of a program, in one launch if a program sees all pixels, or in one each."""
    phases = [(0, last)] if tiling.splits == 1 else [(phase, phase) for phase in range(first, last + 1)]
    grid = (ceil(channels / tiling.channels), tiling.splits)
    for start, end in phases:
        program[grid](*arguments, **constants, **tiling.constants, FROM=start, TO=end)


class _Norm(torch.autograd.Function):
    """`norm` in training."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, after: Norm) -> Tensor:
        rows = _rows(x)
        channels = rows.shape[-1]
        pixels = rows.numel() // channels
        tiling = tile(pixels, channels)
        result, saved = torch.empty_like(rows), rows.new_empty(2, channels)
        mean, variance, *numbers = after.statistics(pixels)
        _launch(
            programs.norm_forward, tiling, channels, 0, 1,
            rows, result, scale, shift, mean, variance, saved, _partial(saved, tiling, 2), channels, pixels,
            tiling.chunk, *numbers, ACT=int(after.activation),
        )  # fmt: skip
        ctx.save_for_backward(rows, scale, shift, saved)
        ctx.activation = after.activation
        return result.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, scale, shift, saved = ctx.saved_tensors
        channels = rows.shape[-1]
        pixels = rows.numel() // channels
        tiling = tile(pixels, channels)
        dx, dscale, dshift = torch.empty_like(rows), torch.empty_like(scale), torch.empty_like(shift)
        _launch(
            programs.norm_backward, tiling, channels, 0, 1,
            _rows(gradients[0]), rows, dx, scale, shift, saved, _partial(saved, tiling, 2), dscale, dshift, channels,
            pixels, tiling.chunk, ACT=int(ctx.activation),
        )  # fmt: skip
        return dx.permute(0, 3, 1, 2), dscale, dshift, None


class _Chain(torch.autograd.Function):
    """`chain` in training."""

    @staticmethod
    def forward(  # noqa: PLR0917  (autograd passes no keywords)
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale1: Tensor | None,
        shift1: Tensor | None,
        scale2: Tensor,
        shift2: Tensor,
        shape: Shape,
        before: Norm | None,
        after: Norm,
    ) -> Tensor:
        rows = _rows(x)
        z = rows.new_empty(_output(shape))
        result, saved = torch.empty_like(z), rows.new_empty(4, shape.channels)
        pixels = shape.images * shape.height * shape.width, z.numel() // shape.channels
        tiling, chunks = _chain_tiling(pixels, shape.channels)
        first = (before or after).statistics(pixels[0])  # without a norm before, nothing reads these
        second = after.statistics(pixels[1])
        if before is None:
            scale1, shift1 = scale2, shift2
        _launch(
            chains.chain_forward, tiling, shape.channels, 1 if before is None else 0, 2,
            rows, z, result, weight, scale1, shift1, *first[:2], scale2, shift2, *second[:2], saved,
            _partial(saved, tiling, 4), shape.channels, *pixels, *chunks, *first[2:], *second[2:],
            **_geometry(shape, before, after),
        )  # fmt: skip
        ctx.save_for_backward(rows, z, weight, scale1, shift1, scale2, shift2, saved)
        ctx.plan = shape, before is not None, pixels, tiling, chunks, _geometry(shape, before, after)
        return result.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, z, weight, scale1, shift1, scale2, shift2, saved = ctx.saved_tensors
        shape, has_before, pixels, tiling, chunks, geometry = ctx.plan
        dz, dx, dweight = torch.empty_like(z), torch.empty_like(rows), torch.empty_like(weight)
        norms = saved.new_empty(4, shape.channels).unbind()
        _launch(
            chains.chain_backward, tiling, shape.channels, 0, 3,
            _rows(gradients[0]), rows, z, dz, dx, weight, dweight, scale1, shift1, *norms[:2], scale2, shift2,
            *norms[2:], saved, _partial(saved, tiling, 13), shape.channels, *pixels, *chunks, **geometry,
        )  # fmt: skip
        first = norms[:2] if has_before else (None, None)
        return dx.permute(0, 3, 1, 2), dweight, *first, *norms[2:], None, None, None


def _chain_tiling(pixels: tuple[int, int], channels: int) -> tuple[Tiling, tuple[int, int]]:
    """Divide a convolution's larger side, and the other one into as many chunks."""
    tiling = tile(max(pixels), channels)
    return tiling, (ceil(pixels[0] / tiling.splits), ceil(pixels[1] / tiling.splits))


def _partial(like: Tensor, tiling: Tiling, rows: int) -> Tensor:
    """Space for what the programs have found, if there are several for a channel."""
    return like.new_empty(rows, tiling.splits, like.shape[-1]) if tiling.splits > 1 else like
