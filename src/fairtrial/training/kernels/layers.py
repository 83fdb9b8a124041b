"""Layers that are fast on a CPU, with the parameters, names and results of torch's own.

`accelerate` turns the layers of any model into fast ones, in place. A fast layer is a subclass of the original one. It
computes with compiled kernels (`library`) where it can, and falls back to its parent otherwise: for other devices and
dtypes, under autocast, torch.compile or hooks, for settings that the kernels don't know, or without a compiler.

Consecutive layers of an `nn.Sequential` are computed together, as a chain.
"""

import weakref
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from fairtrial.training.kernels import library
from fairtrial.training.kernels.library import Activation, Chain, ChainUnit, Conv, LayerKind, Norm, Shape
from fairtrial.training.models.mobilenet_v2.flavors import BiasedBatchNorm2d, OneSidedConv2d

_PLAIN = {Tensor, nn.Parameter}
ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.ReLU: Activation.RELU, nn.ReLU6: Activation.RELU6}

#: A dense convolution with more input channels than this is left to torch: windows would take too much memory.
MOST_WINDOW_CHANNELS = 4


class Triple(NamedTuple):
    """A convolution, the batch norm that follows and its activation; either module may be missing."""

    conv: nn.Conv2d | None = None
    norm: nn.BatchNorm2d | None = None
    activation: Activation = Activation.NONE


def accelerate(model: nn.Module) -> nn.Module:
    """Turn a model's layers into fast ones, in place.

    Convolutions, batch norms and sequences of them change their class and nothing else: parameters stay the same
    objects, the state_dict keeps its names, shapes and order, and the results are the same up to rounding. Layers of
    other classes, such as the user's subclasses, stay as they are. The model may be on any device.

    Example:
        >>> layer = accelerate(nn.Sequential(nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.ReLU6()))
        >>> layer(torch.ones(2, 8, 4, 4)).shape
        torch.Size([2, 16, 4, 4])
    """
    for module in model.modules():
        if "forward" in vars(module):  # someone has replaced this object's forward pass
            continue
        if type(module) in FAST:
            module.__class__ = FAST[type(module)]
        elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            module.__class__ = fast_sequential(type(module))  # type: ignore[arg-type]  # classes are hashable
    for dtype in {parameter.dtype for parameter in model.parameters() if parameter.device.type == "cpu"}:
        library.load(dtype)  # now, not within the first step, which someone may time
    return model


class _Fast(nn.Module):
    """A layer that computes with the kernels where it can, and as its parent otherwise."""

    def forward(self, images: Tensor) -> Tensor:
        """Compute on images of shape (batch, channels, height, width)."""
        fast = _run(_alone(self), images)
        return cast("Tensor", super().forward(images)) if fast is None else fast


class FastConv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, fast where it is pointwise, depthwise 3x3, or reads few channels."""

    def forward(self, images: Tensor) -> Tensor:
        """Convolve images of shape (batch, channels, height, width)."""
        fast = _run(_alone(self), images)
        if fast is not None:
            return fast
        # Without the kernels, torch's matrix products are still faster than its convolutions.
        if type(images) is not Tensor or images.dim() != 4 or not images.is_cpu or torch.is_autocast_enabled("cpu"):
            return super().forward(images)
        kind = kind_of(self)
        if kind is LayerKind.POINTWISE:
            rows = functional.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return rows.permute(0, 3, 1, 2)
        if kind is LayerKind.DEPTHWISE and images.shape[1:] == (self.in_channels, 1, 1) and self.padding == (1, 1):
            return images * self.weight[:, 0, 1, 1, None, None]  # the other eight weights only multiply zeros
        return super().forward(images)


class FastOneSidedConv2d(_Fast, OneSidedConv2d):
    """`OneSidedConv2d`, fast where it is depthwise or reads few channels."""


class FastBatchNorm2d(_Fast, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, fast."""


class FastBiasedBatchNorm2d(_Fast, BiasedBatchNorm2d):
    """`BiasedBatchNorm2d`, fast."""


#: The fast class of each class of layers.
FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: FastConv2d,
    OneSidedConv2d: FastOneSidedConv2d,
    nn.BatchNorm2d: FastBatchNorm2d,
    BiasedBatchNorm2d: FastBiasedBatchNorm2d,
}
_CHAINED = {*FAST.values(), *ACTIVATIONS}
_CONVS, _NORMS = (FastConv2d, FastOneSidedConv2d), (FastBatchNorm2d, FastBiasedBatchNorm2d)


class FastSequential(nn.Sequential):
    """`torch.nn.Sequential`, computing consecutive layers together."""

    _original_class: ClassVar[type[nn.Sequential]] = nn.Sequential

    def forward(self, features: Any) -> Any:
        """Apply all layers, in order."""
        for part in _parts_of(self):
            if (fast := _run(part, features)) is not None:
                features = fast
            else:
                for layer in part.layers:
                    features = layer(features)
        return features

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickle and copy by the original class, because the fast one is made at run time."""
        return _new_sequential, (self._original_class,), self.__dict__


@cache
def fast_sequential(kind: type[nn.Sequential]) -> type[FastSequential]:
    """The fast subclass of a class of sequences, with its other methods."""
    if kind is nn.Sequential:
        return FastSequential
    return type(f"Fast{kind.__name__}", (FastSequential, kind), {"__module__": __name__, "_original_class": kind})


def _new_sequential(kind: type[nn.Sequential]) -> FastSequential:
    fast = fast_sequential(kind)  # type: ignore[arg-type]
    return fast.__new__(fast)


class _Part:
    """Some consecutive layers of a sequence, and the same as triples; no triples if the kernels can't compute them."""

    def __init__(self) -> None:
        self.layers: list[nn.Module] = []
        self.triples: list[Triple] = []
        # What the chain was made of; the objects themselves, so that no new one gets the id of a deleted one; and the
        # chain. Replaced all at once, as other threads may use the same layers.
        self._known: tuple[list[Any], list[Any], Chain | None] = [], [], None

    def chain(self, images: Tensor) -> Chain | None:
        """The chain for images of this size, cached until something changes; None if the kernels can't compute it."""
        # To describe every layer again for every batch would cost up to a tenth of the computation itself.
        stamp: list[Any] = [images.shape, images.dtype]
        objects: list[Any] = []
        for layer in self.layers:
            objects += vars(layer).values()
            objects.append(layer.__class__)  # a parametrization changes it
            # A layer's tensors may have been exchanged, or their memory.
            for tensor in (*layer._parameters.values(), *layer._buffers.values()):  # noqa: SLF001
                if tensor is not None:
                    objects.append(tensor)
                    stamp += (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        stamp += map(id, objects)
        known = self._known
        if stamp != known[0]:
            known_classes = all(layer.__class__ in _CHAINED for layer in self.layers)
            units = _units(self.triples, images) if known_classes else None
            known = self._known = stamp, objects, None if units is None else Chain(units)
        return known[2]

    def take(self, layer: nn.Module) -> bool:
        """Append a layer to the chain if possible."""
        if is_hooked(layer):
            return False
        last = self.triples[-1] if self.triples else Triple()
        activation = ACTIVATIONS.get(type(layer))
        if isinstance(layer, _CONVS) and kind_of(layer) is not None:
            self.triples.append(Triple(layer))
        elif isinstance(layer, _NORMS):
            if last.conv is not None and last.norm is None:
                self.triples[-1] = Triple(last.conv, layer)
            else:
                self.triples.append(Triple(None, layer))
        elif activation is not None and last.norm is not None and not last.activation:
            self.triples[-1] = Triple(last.conv, last.norm, activation)
        else:
            return False
        self.layers.append(layer)
        return True


#: The parts of sequences and of single layers, with the layers that they were made of.
_PARTS: weakref.WeakKeyDictionary[nn.Module, tuple[list[Any], list[_Part]]] = weakref.WeakKeyDictionary()


def _parts_of(sequence: nn.Sequential) -> list[_Part]:
    """Divide a sequence into parts; cached until its layers change."""
    leaves = [*_leaves(sequence)]
    made_of = [*leaves, *map(type, leaves), *map(is_hooked, leaves)]
    known = _PARTS.get(sequence)
    if known is None or known[0] != made_of:
        known = _PARTS[sequence] = made_of, _divide(leaves)
    return known[1]


def _alone(layer: nn.Module) -> _Part:
    """A single layer as a part. Its hooks don't matter: the caller of its forward pass has run them."""
    if layer not in _PARTS:
        part, itself = _Part(), cast("Any", weakref.proxy(layer))  # a weak dictionary's value must not refer to its key
        part.layers.append(itself)
        if isinstance(layer, nn.BatchNorm2d):
            part.triples.append(Triple(None, itself))
        elif kind_of(cast("nn.Conv2d", layer)) is not None:
            part.triples.append(Triple(itself))
        _PARTS[layer] = [], [part]
    return _PARTS[layer][1][0]


def _divide(layers: Iterable[nn.Module]) -> list[_Part]:
    """Divide layers into the longest possible chains, and single layers between them."""
    parts = [_Part()]
    for layer in layers:
        if parts[-1].take(layer):
            continue
        parts.append(_Part())
        if not parts[-1].take(layer):
            parts[-1].layers.append(layer)
            parts.append(_Part())
    return [part for part in parts if part.layers]


def _leaves(sequence: nn.Sequential) -> Iterator[nn.Module]:
    """The layers of a sequence and of sequences within it."""
    for layer in sequence:
        if isinstance(layer, FastSequential) and not is_hooked(layer):
            yield from _leaves(layer)
        else:
            yield layer


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks, or another forward pass of its own."""
    # torch has no public name for these; its own Module.__call__ checks the same.
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)  # noqa: SLF001
    return any(hooks) or any(_HOOKS_OF_ALL) or "forward" in vars(module)


_HOOKS_OF_ALL = [
    getattr(nn.modules.module, f"_global_{kind}_hooks")
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
]


def _run(part: _Part, images: Tensor) -> Tensor | None:
    """Compute a part with the compiled kernels; None if they can't be used."""
    if not part.triples or type(images) is not Tensor or images.dim() != 4 or not images.is_cpu:
        return None
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return None
    if torch._C._functorch.peek_interpreter_stack() is not None:  # noqa: SLF001  # torch.func replaces tensors
        return None
    kernels = library.load(images.dtype)
    layers = part.chain(images) if kernels else None
    return library.compute(kernels, layers, images) if kernels and layers else None


def _units(triples: Sequence[Triple], images: Tensor) -> list[ChainUnit] | None:
    """Describe modules for the kernels; None if they can't compute them, and the plain layers run or raise instead."""
    batch, channels, height, width = images.shape
    units = []
    for triple in triples:
        conv = norm = None
        if triple.conv is not None:
            conv = _conv(triple.conv, batch, channels, height, width)
            if conv is None or not _are_plain(conv[1:3], images.dtype):
                return None
            channels, height, width = conv.weight.shape[0], conv.shape.out_height, conv.shape.out_width
        pixels = batch * height * width
        if pixels == 0:
            return None
        if triple.norm is not None:
            norm = _norm(triple.norm, triple.activation, pixels)
            if norm is None or norm.weight.shape[0] != channels or not _are_plain(norm[:4], images.dtype):
                return None
        shape = Shape(batch, height, width, channels, height, width, 1, 0, 0) if conv is None else conv.shape
        units.append(ChainUnit(conv, norm, shape))
    return units


def _conv(module: nn.Conv2d, batch: int, channels: int, height: int, width: int) -> Conv | None:
    kind, weight, bias = kind_of(module), module.weight, module.bias
    if kind is None or module.in_channels != channels:
        return None
    if weight.shape != (module.out_channels, channels // module.groups, *module.kernel_size):
        return None
    if bias is not None and (bias.shape != (module.out_channels,) or not bias.is_contiguous()):
        return None
    size, stride = module.kernel_size[0], module.stride[0]
    top = bottom = left = right = int(module.padding[0])
    if isinstance(module, OneSidedConv2d):
        top, bottom, left, right = height % 2, 1, width % 2, 1
    out_height = (height + top + bottom - size) // stride + 1
    out_width = (width + left + right - size) // stride + 1
    shape = Shape(batch, height, width, channels, out_height, out_width, stride, top, left)
    return Conv(kind, weight, bias, shape) if out_height > 0 < out_width else None


def _norm(module: nn.BatchNorm2d, activation: Activation, pixels: int) -> Norm | None:
    training, momentum, biased = module.training, module.momentum, isinstance(module, BiasedBatchNorm2d)
    weight, bias, mean, variance = module.weight, module.bias, module.running_mean, module.running_var
    for tensor in (weight, bias, mean, variance):
        if tensor is None or not tensor.is_contiguous() or tensor.shape != (module.num_features,):
            return None
    if module.eps <= 0 or mean is None or variance is None:
        return None
    if training and (momentum is None or pixels < 2 or not (module.track_running_stats or biased)):
        return None
    tracked = module.num_batches_tracked
    if tracked is not None and not (tracked.dtype == torch.int64 and tracked.is_cpu and tracked.numel() == 1):
        return None
    correction = pixels / (pixels - 1) if training and not biased else 1.0
    settings = (module.eps, momentum or 0.0, correction, training, activation)
    return Norm(weight, bias, mean, variance, tracked, *settings)


def _are_plain(tensors: Sequence[Tensor | None], dtype: torch.dtype) -> bool:
    """Whether all tensors are ordinary ones in the CPU's memory, of one dtype."""
    return all(of is None or (type(of) in _PLAIN and of.dtype == dtype and of.is_cpu) for of in tensors)


def kind_of(conv: nn.Conv2d) -> LayerKind | None:
    """How to compute a convolution; None if the fast layers don't know it."""
    padding = conv.padding
    if isinstance(padding, str) or conv.padding_mode != "zeros" or conv.dilation != (1, 1):
        return None
    one_sided = isinstance(conv, OneSidedConv2d)
    if conv.stride[0] != conv.stride[1] or padding[0] != padding[1] or (one_sided and padding != (0, 0)):
        return None
    if conv.groups == 1:
        if conv.kernel_size == (1, 1) and conv.stride == (1, 1) and padding == (0, 0) and not one_sided:
            return LayerKind.POINTWISE
        square = conv.kernel_size[0] == conv.kernel_size[1] > 1
        return LayerKind.WINDOWS if square and conv.in_channels <= MOST_WINDOW_CHANNELS else None
    depthwise = conv.groups == conv.in_channels == conv.out_channels and conv.bias is None
    return LayerKind.DEPTHWISE if depthwise and conv.kernel_size == (3, 3) and padding[0] < 3 else None
