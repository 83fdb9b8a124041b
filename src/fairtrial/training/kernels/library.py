"""The compiled kernels as functions of tensors, and a chain of layers as one node of autograd's graph.

All tensors are dense, NHWC, shape (images, height, width, channels), of one dtype and on the CPU. Nothing is checked
here: `layers` has checked the inputs. A call releases the interpreter's lock.
"""

import ctypes
import math
import os
from collections.abc import Sequence
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairtrial.training.kernels import assistance
from fairtrial.training.kernels.cache import KernelsUnavailableError, Library
from fairtrial.training.kernels.compiler import find_compiler, library

#: For each dtype, the type's name in C++ and BLAS's function that multiplies matrices of it.
_REALS = {torch.float32: ("float", "sgemm_"), torch.float64: ("double", "dgemm_")}
_INSTRUCTIONS = {64: "AVX-512", 32: "AVX", 16: "128-bit vectors"}

_POINTER, _INDEX, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double


class LayerKind(IntEnum):
    """How to compute a convolution."""

    NONE = 0  #: no convolution
    POINTWISE = 1  #: 1x1: a matrix product over pixels
    DEPTHWISE = 2  #: 3x3, one channel at a time
    WINDOWS = 3  #: any size, few input channels: a matrix product over windows


class Activation(IntEnum):
    """What follows a batch norm."""

    NONE = 0
    RELU = 1
    RELU6 = 2


class Shape(NamedTuple):
    """A convolution's sizes for the kernels; ``top`` and ``left`` count the zeros above and to the left of an image."""

    images: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    stride: int
    top: int
    left: int


class Conv(NamedTuple):
    """A convolution; its weight is (outputs, inputs / groups, height, width), its bias (outputs,) or None."""

    kind: LayerKind
    weight: Tensor
    bias: Tensor | None
    shape: Shape


class Norm(NamedTuple):
    """A batch norm and the activation that follows; its tensors are (channels,)."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    tracked: Tensor | None  # counts the batches in the running statistics
    eps: float
    momentum: float  # the newest batch's weight in them
    correction: float  # factor from the biased variance to the running one
    from_batch: bool  # the statistics come from the batch, and the running ones are updated
    activation: Activation


class ChainUnit(NamedTuple):
    """A convolution and the batch norm that follows; one may be missing."""

    conv: Conv | None
    norm: Norm | None
    shape: Shape  # the convolution's; for a norm alone its input's, with the same output

    @property
    def outputs(self) -> int:
        """Channels of the output."""
        return self.shape.channels if self.conv is None else self.conv.weight.shape[0]


class _Unit(ctypes.Structure):
    """A `ChainUnit` for the kernels: `fairtrial::Unit` in native/chain.h, field by field."""

    _fields_ = [
        ("kind", _INDEX), ("shape", _INDEX * 9), ("outputs", _INDEX), ("size", _INDEX),
        ("from_batch", _INDEX), ("activation", _INDEX),
        ("eps", _DOUBLE), ("momentum", _DOUBLE), ("correction", _DOUBLE),
        ("weight", _POINTER), ("bias", _POINTER), ("norm_weight", _POINTER), ("norm_bias", _POINTER),
        ("running_mean", _POINTER), ("running_var", _POINTER), ("tracked", _POINTER),
        ("raw", _POINTER), ("rows", _POINTER),
        ("weight_gradient", _POINTER), ("bias_gradient", _POINTER),
        ("norm_weight_gradient", _POINTER), ("norm_bias_gradient", _POINTER),
    ]  # fmt: skip


_GRADIENTS = ("weight_gradient", "bias_gradient", "norm_weight_gradient", "norm_bias_gradient")


class Tape(NamedTuple):
    """What a forward pass saves for the backward pass."""

    units: "ctypes.Array[_Unit]"  # they point into the tensors
    tensors: Sequence[Tensor]  # input; feature maps and norms' rows in one block; weights as the kernels read them


class Chain:
    """A chain of layers prepared for the kernels: made once, used for every batch of one size.

    The tensors of its units must not move in memory. ``parameters`` are four of each unit: weight and bias of the
    convolution and of the norm, None for what is missing. ``largest`` is the size of the largest feature map.
    """

    def __init__(self, units: Sequence[ChainUnit]) -> None:
        self.units = tuple(units)
        self.parameters: list[Tensor | None] = []
        shapes = [(unit.shape.images, unit.shape.out_height, unit.shape.out_width, unit.outputs) for unit in units]
        self._sizes = [math.prod(shape) for shape in shapes]
        first = units[0].shape
        self.largest = max(*self._sizes, first.images * first.height * first.width * first.channels)
        images, height, width, outputs = shapes[-1]
        self.output_shape = (images, outputs, height, width)
        self._rows = [4 * unit.outputs if unit.norm else 0 for unit in units]
        self._room = sum(_aligned(size) for size in (*self._sizes, *self._rows))
        self._copied: list[int] = []
        self._form = (_Unit * len(units))()
        for index, (native, unit) in enumerate(zip(self._form, units, strict=True)):
            conv, norm, native.shape[:] = unit
            native.outputs = unit.outputs
            self.parameters += (None, None) if conv is None else conv[1:3]
            self.parameters += (None, None) if norm is None else norm[:2]
            if norm is not None:
                native.norm_weight, native.norm_bias, native.running_mean, native.running_var = map(_address, norm[:4])
                native.tracked, native.eps, native.momentum = _address(norm.tracked), norm.eps, norm.momentum
                native.correction, native.from_batch, native.activation = norm[7:]
            if conv is not None:
                native.kind, native.bias = conv.kind, _address(conv.bias)
                native.size = conv.weight.shape[2] if conv.kind is LayerKind.WINDOWS else 1
                if _as_read(conv).data_ptr() == conv.weight.data_ptr():
                    native.weight = conv.weight.data_ptr()
                else:
                    self._copied.append(index)

    def lay_out(self, images: Tensor, output: Tensor) -> Tape:
        """Tell the kernels all addresses, and allocate what they save."""
        saved = images.new_empty(self._room)
        address, step = saved.data_ptr(), saved.element_size()
        natives = type(self._form).from_buffer_copy(self._form)
        for native, size, row in zip(natives, self._sizes, self._rows, strict=True):
            native.raw = address
            address += _aligned(size) * step
            native.rows = address
            address += _aligned(row) * step
        if self.units[0].conv is None:
            natives[0].raw = images.data_ptr()  # a norm reads the input itself
        if self.units[-1].norm is None:
            natives[len(natives) - 1].raw = output.data_ptr()
        weights = {index: _as_read(unit.conv) for index, unit in enumerate(self.units) if unit.conv is not None}
        for index in self._copied:
            natives[index].weight = weights[index].data_ptr()
        return Tape(natives, [images, saved, *weights.values()])

    def gradients(self, tape: Tape, wanted: Sequence[bool]) -> list[Tensor | None]:
        """Allocate the wanted gradients, and tell the kernels their addresses."""
        gradients: list[Tensor | None] = []
        for index, (parameter, is_wanted) in enumerate(zip(self.parameters, wanted, strict=True)):
            gradient = shown = None
            if parameter is not None and is_wanted:
                conv = self.units[index // 4].conv
                if index % 4 == 0 and conv is not None and conv.kind is LayerKind.WINDOWS:
                    outputs, inputs, height, width = parameter.shape
                    gradient = parameter.new_empty((outputs, height, width, inputs))
                    shown = gradient.permute(0, 3, 1, 2)
                else:
                    gradient = shown = torch.empty_like(parameter, memory_format=torch.contiguous_format)
            setattr(tape.units[index // 4], _GRADIENTS[index % 4], _address(gradient))
            gradients.append(shown)
        return gradients


class Kernels:
    """The kernels for one dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        real, product = _REALS[dtype]
        handle = _load(library(real))
        self._forward = handle.chain_forward
        self._forward.argtypes = (_POINTER, _INDEX, _POINTER, _POINTER, _POINTER, _INT, _INT)
        self._backward = handle.chain_backward
        self._backward.argtypes = (_POINTER, _INDEX, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _INT, _INT)
        handle.use_openmp.argtypes = (_POINTER,)
        self._forward.restype = self._backward.restype = handle.use_openmp.restype = None
        self._product = _of_torch(product)
        openmp = _of_torch("omp_set_num_threads")
        handle.use_openmp(openmp)
        # Else BLAS may compute a product otherwise in another thread, with other rounding.
        self._may_share = openmp is not None or self._product is None or os.environ.get("OMP_NUM_THREADS") == "1"
        self.instructions = _INSTRUCTIONS[handle.vector_bytes()]

    def forward(self, chain: Chain, images: Tensor) -> tuple[Tensor, Tape]:
        """Compute a chain's output, (batch, channels, height, width) in channels_last format, from NHWC images."""
        output = torch.empty(
            chain.output_shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last
        )
        tape = chain.lay_out(images, output)
        self._forward(
            tape.units, len(chain.units), images.data_ptr(), output.data_ptr(), self._product, *self._threads()
        )
        return output, tape

    def backward(
        self, chain: Chain, tape: Tape, gradient: Tensor, wanted: Sequence[bool], *, wants_input: bool
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Compute the wanted gradients, at the images and of each parameter, from the one at the output, NHWC."""
        images, gradients = tape.tensors[0], chain.gradients(tape, wanted)
        at_images = torch.empty_like(images) if wants_input else None
        buffers = gradient.new_empty((2, chain.largest))
        start, step = buffers.data_ptr(), chain.largest * buffers.element_size()
        self._backward(
            tape.units, len(chain.units), images.data_ptr(), gradient.data_ptr(),
            (_POINTER * 2)(start, start + step), _address(at_images), self._product, *self._threads(),
        )  # fmt: skip
        return at_images, gradients

    def _threads(self) -> tuple[bool, int]:
        """Whether BLAS has threads of its own, and how many threads everything else may use."""
        threads = torch.get_num_threads()
        if threads > 1:
            return True, threads
        return False, assistance.cores() if self._may_share else 1


def compute(kernels: Kernels, chain: Chain, images: Tensor) -> Tensor:
    """Compute a chain on images (batch, channels, height, width) of its size, in any memory format.

    The output is channels_last. If a norm takes its statistics from the batch, its input must have two pixels or more.
    """
    tensors = (images, *chain.parameters)
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors):
        output: Tensor = _Chain.apply(images, kernels, chain, *chain.parameters)  # type: ignore[no-untyped-call]
        return output
    return kernels.forward(chain, _nhwc(images))[0]


class _Chain(torch.autograd.Function):
    """The chain for autograd: images and all parameters in, one feature map out."""

    # It is no view, because an activation after the chain may change it in place, which on a view makes autograd copy
    # whole gradients.

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
        return (None if at_images is None else at_images.permute(0, 3, 1, 2), None, None, *gradients)


def _nhwc(tensor: Tensor) -> Tensor:
    return tensor.detach().permute(0, 2, 3, 1).contiguous()


def _as_read(conv: Conv) -> Tensor:
    """A convolution's weight in the memory order that the kernels read; a copy if it has another."""
    weight = conv.weight.detach()
    if conv.kind is LayerKind.WINDOWS:
        weight = weight.permute(0, 2, 3, 1)
    return weight.contiguous()


def _aligned(numbers: int) -> int:
    """Round up, so that every feature map starts at a cache line."""
    return (numbers + 15) // 16 * 16


def _of_torch(name: str) -> int | None:
    """Find a function of torch's own BLAS or OpenMP; None if torch does not export it."""
    folder = Path(torch.__file__).parent / "lib"
    for file in sorted(folder.glob("*torch_cpu.*")):
        try:
            function: Any = getattr(ctypes.CDLL(str(file)), name, None)
        except OSError:  # a library for linking only
            continue
        if function is not None:
            return ctypes.cast(function, _POINTER).value
    return None


def _load(found: Library) -> ctypes.CDLL:
    try:
        # The descriptor stays open: the loader knows libraries by their paths, and would take another's for this one.
        handle = ctypes.CDLL(found.loadable)
    except OSError as error:
        raise KernelsUnavailableError(f"{found.path} can't be loaded ({error})") from error
    if handle.unit_bytes() != ctypes.sizeof(_Unit):
        raise KernelsUnavailableError(f"{found.path} has another layout of units (ABI mismatch)")
    return handle


@cache
def _kernels(dtype: torch.dtype) -> Kernels | KernelsUnavailableError:
    try:
        return Kernels(dtype)
    except KernelsUnavailableError as reason:
        return reason


def load(dtype: torch.dtype) -> Kernels | None:
    """Load the kernels for a dtype, and compile them if necessary; None if there are none, and `path` says why."""
    kernels = _kernels(dtype) if dtype in _REALS else None
    return kernels if isinstance(kernels, Kernels) else None


def path() -> str:
    """Describe this process's layers: ``"compiled kernels (g++ 12.2.0, AVX-512)"``, or ``"plain: "`` and the reason."""
    kernels = _kernels(torch.float32)
    if isinstance(kernels, KernelsUnavailableError):
        return f"plain: {kernels}"
    return f"compiled kernels ({find_compiler().label}, {kernels.instructions})"


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
