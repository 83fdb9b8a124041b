"""Layers that are fast on a GPU, with the parameters, names and results of torch's own.

A small network's training step on a GPU is hundreds of small programs, and starting them takes longer than their work.
`accelerate_on_gpu` lets sequences of layers compute with fewer: batch norm with its activation, or a whole norm,
depthwise convolution and norm, in one program of Triton; pointwise convolutions as products of matrices. Everything
else, and every other device, dtype or setting, is left to the layers themselves.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairtrial.training.kernels import fused
from fairtrial.training.kernels.fused import Norm
from fairtrial.training.kernels.layers import ACTIVATIONS, FAST, FastSequential, fast_sequential, is_hooked, kind_of
from fairtrial.training.kernels.library import Activation, LayerKind, Shape
from fairtrial.training.models.mobilenet_v2.flavors import OneSidedConv2d

_PLAIN = {Tensor, nn.Parameter}
_KNOWN = {*FAST, *FAST.values()}


class Parts(NamedTuple):
    """Which layers `accelerate_on_gpu` computes in its own way."""

    pointwise: bool = True
    norms: bool = True
    depthwise: bool = True


def accelerate_on_gpu(model: nn.Module, parts: Parts = Parts()) -> nn.Module:  # noqa: B008  (immutable)
    """Let a model's sequences of layers compute with few programs on a GPU, in place.

    Sequences change their class and nothing else: parameters stay the same objects, the state_dict keeps its names,
    shapes and order, and the results are the same up to rounding. Without Triton nothing changes.

    Args:
        model: on any device; it may have been accelerated for the CPU, and stays so.
        parts: which layers to accelerate.

    Example:
        >>> layer = accelerate_on_gpu(nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6()))
        >>> layer(torch.ones(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """
    if not fused.is_available():
        return model
    for module in model.modules():
        if not isinstance(module, nn.Sequential) or isinstance(module, GpuSequential) or "forward" in vars(module):
            continue
        if type(module).forward in {nn.Sequential.forward, FastSequential.forward}:
            module.__class__ = _sequential_on_gpu(type(module))  # type: ignore[arg-type]  # classes are hashable
            cast("GpuSequential", module).parts_on_gpu = parts
    return model


class GpuSequential(nn.Sequential):
    """`torch.nn.Sequential`, computing consecutive layers together on a GPU."""

    parts_on_gpu: Parts
    _parent: ClassVar[type[nn.Sequential]] = nn.Sequential

    def forward(self, features: Any) -> Any:
        """Apply all layers, in order."""
        if not _may_be_fast(features):
            return self._parent.forward(self, features)  # type: ignore[no-untyped-call]
        layers = [*_leaves(self)]
        with torch.cuda.device_of(features):  # type: ignore[no-untyped-call]  # Triton starts programs on the current one
            while layers:
                count, features = _run(layers, features, self.parts_on_gpu)
                layers = layers[count:]
        return features

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy by the original class, because this one is made at run time."""
        if issubclass(self._parent, FastSequential):
            return _new_sequential, (self._parent._original_class, True), self.__dict__  # noqa: SLF001
        return _new_sequential, (self._parent, False), self.__dict__


@cache
def _sequential_on_gpu(kind: type[nn.Sequential]) -> type[GpuSequential]:
    names = {"__module__": __name__, "_parent": kind}
    return type(f"Gpu{kind.__name__}", (GpuSequential, kind), names)


def _new_sequential(kind: type[nn.Sequential], was_fast: bool) -> nn.Sequential:
    if was_fast:
        kind = fast_sequential(kind)  # type: ignore[arg-type]  # classes are hashable
    made = _sequential_on_gpu(kind)  # type: ignore[arg-type]
    return made.__new__(made)


def _may_be_fast(images: Any) -> bool:
    """Whether the programs can compute on a tensor at all."""
    if type(images) is not Tensor or images.dim() != 4 or images.dtype != torch.float32:
        return False
    if not images.is_cuda and not (images.is_cpu and fused.is_interpreted()):
        return False
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(images.device.type) or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:  # noqa: SLF001  # torch.func replaces tensors
        return False
    return 0 < images.numel() < 2**31


def _leaves(sequence: nn.Sequential) -> Iterator[nn.Module]:
    """The layers of a sequence and of sequences within it."""
    for layer in sequence:
        if isinstance(layer, GpuSequential) and not is_hooked(layer):
            yield from _leaves(layer)
        else:
            yield layer


def _run(layers: Sequence[nn.Module], images: Any, parts: Parts) -> tuple[int, Any]:
    """Apply the first of some layers, and those that can be computed with it; return how many these were."""
    if _may_be_fast(images):
        before, used = _norm_at(layers, 0, images.shape, images.device)
        if parts.depthwise:
            conv = layers[used] if used < len(layers) else None
            shape = _depthwise(conv, images) if used == 0 or before else None
            if shape is not None:
                outputs = torch.Size((shape.images, shape.channels, shape.out_height, shape.out_width))
                after, more = _norm_at(layers, used + 1, outputs, images.device)
                same_mode = after is not None and (before is None or before.module.training == after.module.training)
                if after is not None and same_mode:
                    weight = cast("nn.Conv2d", conv).weight
                    return used + 1 + more, fused.chain(images, weight, shape, before, after)
        if before is not None and parts.norms:
            return used, fused.norm(images, before)
        if parts.pointwise and _is_pointwise(layers[0], images):
            return 1, _multiply(cast("nn.Conv2d", layers[0]), images)
    return 1, layers[0](images)


def _norm_at(layers: Sequence[nn.Module], at: int, shape: torch.Size, device: torch.device) -> tuple[Norm | None, int]:
    """The batch norm and activation at an index, and how many layers they are, if the programs can compute them."""
    if at >= len(layers) or not isinstance(module := layers[at], nn.BatchNorm2d) or not _is_own(module):
        return None, 0
    for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
        if tensor is None or not _is_plain(tensor, device) or tensor.shape != shape[1:2] or not tensor.is_contiguous():
            return None, 0
    pixels = shape.numel() // shape[1]
    if module.eps <= 0 or shape.numel() >= 2**31:
        return None, 0
    if module.training and (module.momentum is None or pixels < 2 or not module.track_running_stats):
        return None, 0
    if not module.training and torch.is_grad_enabled():
        return None, 0
    if at + 1 < len(layers) and type(layers[at + 1]) in ACTIVATIONS and not is_hooked(layers[at + 1]):
        return Norm(module, ACTIVATIONS[type(layers[at + 1])]), 2
    return Norm(module, Activation.NONE), 1


def _depthwise(conv: nn.Module | None, images: Tensor) -> Shape | None:
    """Sizes of a depthwise convolution of these images; None if the programs can't compute it."""
    if not isinstance(conv, nn.Conv2d) or not _is_own(conv) or kind_of(conv) is not LayerKind.DEPTHWISE:
        return None
    batch, channels, height, width = images.shape
    if (
        conv.weight.shape != (channels, 1, 3, 3)
        or not conv.weight.is_contiguous()
        or not _is_plain(conv.weight, images.device)
    ):
        return None
    top = bottom = left = right = int(conv.padding[0])
    if isinstance(conv, OneSidedConv2d):
        top, bottom, left, right = height % 2, 1, width % 2, 1
    stride = conv.stride[0]
    out_height, out_width = (height + top + bottom - 3) // stride + 1, (width + left + right - 3) // stride + 1
    if out_height < 1 or out_width < 1:
        return None
    return Shape(batch, height, width, channels, out_height, out_width, stride, top, left)


def _is_pointwise(layer: nn.Module, images: Tensor) -> bool:
    if not isinstance(layer, nn.Conv2d) or not _is_own(layer) or kind_of(layer) is not LayerKind.POINTWISE:
        return False
    return layer.weight.shape[1] == images.shape[1]


def _multiply(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Convolve by a product of matrices."""
    rows = images.permute(0, 2, 3, 1)
    products = functional.linear(rows.reshape(-1, rows.shape[-1]), conv.weight.flatten(1), conv.bias)
    return products.view(*rows.shape[:3], -1).permute(0, 3, 1, 2)


def _is_own(module: nn.Module) -> bool:
    """Whether a layer computes what its class says, and nobody listens."""
    return type(module) in _KNOWN and not is_hooked(module)


def _is_plain(tensor: Any, device: torch.device) -> bool:
    return type(tensor) in _PLAIN and tensor.dtype == torch.float32 and tensor.device == device
