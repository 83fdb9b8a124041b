"""The compiled kernels as functions of tensors.

Everything here works on dense tensors in NHWC order, shape (images, height, width, channels), of one dtype on the CPU.
Nothing is checked: `chain` calls these functions with what it has checked. A call releases the interpreter's lock.

A *norm's rows* are a tensor (4, channels): mean, scale, shift and inverse standard deviation of a batch norm, which
computes ``cut((y - mean) * scale + shift)``; cutting is its activation.
"""

import ctypes
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairtrial.workload.compiler import NoKernelsError, find_compiler, library

_REALS = {torch.float32: "float", torch.float64: "double"}
_INSTRUCTIONS = {64: "AVX-512", 32: "AVX", 16: "128-bit vectors"}

_POINTER, _INDEX, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "batch_moments": (_POINTER, _INDEX, _INDEX, _POINTER, _INT),
    "norm_from_batch": (_POINTER, _INDEX, _INDEX, *(_POINTER,) * 2, *(_DOUBLE,) * 3, *(_POINTER,) * 3),
    "norm_from_running": (_INDEX, *(_POINTER,) * 2, _DOUBLE, *(_POINTER,) * 3),
    "norm_forward": (_POINTER, _POINTER, _INT, _INDEX, _INDEX, _POINTER, _INT),
    "norm_sums": (*(_POINTER,) * 3, _INT, _INDEX, _INDEX, _POINTER, _INT),
    "norm_coefficients": (_POINTER, _INDEX, _INDEX, _POINTER, _INT, *(_POINTER,) * 3),
    "norm_backward": (*(_POINTER,) * 4, _INT, _INDEX, _INDEX, _POINTER, _INT),
    "depthwise_forward": (_POINTER, _POINTER, _INT, _POINTER, _POINTER, _INT, *(_POINTER,) * 3, _INT),
    "depthwise_backward": (*(_POINTER,) * 4, _INT, _POINTER, _POINTER, _INT, *(_POINTER,) * 5, _INT),
    "windows": (_POINTER, _POINTER, _INDEX, _POINTER, _INT),
}


class Activation(IntEnum):
    """What follows a batch norm."""

    NONE = 0
    RELU = 1
    RELU6 = 2


class Shape(NamedTuple):
    """A convolution's sizes, as the kernels read them.

    Attributes:
        top: zeros above an image.
        left: zeros to its left. Below and to its right there are as many as the output's size asks for.
    """

    images: int
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    stride: int
    top: int
    left: int


class Value(NamedTuple):
    """A feature map, which may still have to go through a batch norm and its activation.

    Attributes:
        raw: what a layer wrote, (images, height, width, channels).
        rows: the norm's rows, or None for a map that is finished.
        activation: the norm's; NONE where there is no norm.
    """

    raw: Tensor
    rows: Tensor | None = None
    activation: Activation = Activation.NONE

    @property
    def pixels(self) -> int:
        """Pixels of all images."""
        return self.raw.numel() // self.raw.shape[3]


class Kernels:
    """The kernels for one dtype.

    Args:
        real: the dtype's name in C++.
    """

    def __init__(self, real: str) -> None:
        path = library(real)
        try:
            handle = ctypes.CDLL(str(path))
        except OSError as error:
            raise NoKernelsError(f"{path} can't be loaded ({error})") from error
        for name, arguments in _SIGNATURES.items():
            function = getattr(handle, name)
            function.argtypes, function.restype = arguments, None
        self._call = handle
        self.instructions = _INSTRUCTIONS[handle.vector_bytes()]

    def moments(self, values: Tensor) -> Tensor:
        """Compute mean and sum of squared deviations of each channel: float64 (2, channels)."""
        channels = values.shape[3]
        moments = torch.empty((2, channels), dtype=torch.float64)
        self._call.batch_moments(
            values.data_ptr(), values.numel() // channels, channels, moments.data_ptr(), torch.get_num_threads()
        )
        return moments

    def norm_from_batch(self, norm: nn.BatchNorm2d, moments: Tensor, pixels: int, correction: float) -> Tensor:
        """Compute a norm's rows from a batch, and move its running statistics.

        Args:
            norm: the layer.
            moments: of its input.
            pixels: how many each channel had, at least 2.
            correction: what the biased variance is multiplied by for the running variance.
        """
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        channels = norm.num_features
        rows = norm.weight.new_empty((4, channels))
        self._call.norm_from_batch(
            moments.data_ptr(), pixels, channels, norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps, norm.momentum,
            correction, norm.running_mean.data_ptr(), norm.running_var.data_ptr(), rows.data_ptr(),
        )  # fmt: skip
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        return rows

    def norm_from_running(self, norm: nn.BatchNorm2d) -> Tensor:
        """Compute a norm's rows from its running statistics."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        channels = norm.num_features
        rows = norm.weight.new_empty((4, channels))
        self._call.norm_from_running(
            channels, norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps, norm.running_mean.data_ptr(),
            norm.running_var.data_ptr(), rows.data_ptr(),
        )  # fmt: skip
        return rows

    def finish(self, value: Value, *, in_place: bool = False) -> Tensor:
        """Put a map through its norm and activation; a finished map is returned as it is."""
        if value.rows is None:
            return value.raw
        output = value.raw if in_place else torch.empty_like(value.raw)
        self._call.norm_forward(
            value.raw.data_ptr(), value.rows.data_ptr(), value.activation, value.pixels, value.raw.shape[3],
            output.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return output

    def norm_sums(self, gradient: Tensor, value: Value) -> Tensor:
        """Compute what a norm's backward pass needs of all pixels: float64 (2, channels).

        Args:
            gradient: at the norm's activation's output.
            value: the norm's input, with its rows.
        """
        assert value.rows is not None
        channels = value.raw.shape[3]
        sums = torch.empty((2, channels), dtype=torch.float64)
        self._call.norm_sums(
            gradient.data_ptr(), value.raw.data_ptr(), value.rows.data_ptr(), value.activation, value.pixels, channels,
            sums.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return sums

    def norm_coefficients(self, sums: Tensor, value: Value, *, from_batch: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the sums into the gradients of weight and bias, and what `norm_backward` takes as coefficients."""
        assert value.rows is not None
        channels = value.raw.shape[3]
        weight, bias = value.rows.new_empty(channels), value.rows.new_empty(channels)
        coefficients = value.rows.new_empty((2, channels))
        self._call.norm_coefficients(
            sums.data_ptr(), value.pixels, channels, value.rows.data_ptr(), from_batch, weight.data_ptr(),
            bias.data_ptr(), coefficients.data_ptr(),
        )  # fmt: skip
        return weight, bias, coefficients

    def norm_backward(self, gradient: Tensor, value: Value, coefficients: Tensor, *, in_place: bool) -> Tensor:
        """Compute the gradient at a norm's input from that at its activation's output."""
        assert value.rows is not None
        output = gradient if in_place else torch.empty_like(gradient)
        self._call.norm_backward(
            gradient.data_ptr(), value.raw.data_ptr(), value.rows.data_ptr(), coefficients.data_ptr(), value.activation,
            value.pixels, value.raw.shape[3], output.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return output

    def depthwise_forward(
        self, value: Value, weight: Tensor, shape: Shape, *, after: Value | None = None, moments: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Convolve a map, finishing it on the way.

        Args:
            value: the map.
            weight: (channels, 9).
            shape: the convolution's sizes.
            after: whose rows and activation to put the output through.
            moments: whether to compute the output's.
        """
        output = value.raw.new_empty((shape.images, shape.out_height, shape.out_width, shape.channels))
        found = torch.empty((2, shape.channels), dtype=torch.float64) if moments else None
        rows, activation = (after.rows, after.activation) if after else (None, Activation.NONE)
        self._call.depthwise_forward(
            value.raw.data_ptr(), _address(value.rows), value.activation, weight.data_ptr(), _address(rows), activation,
            (_INDEX * 9)(*shape), output.data_ptr(), _address(found), torch.get_num_threads(),
        )  # fmt: skip
        return output, found

    def depthwise_backward(
        self, gradient: Tensor, behind: Value, coefficients: Tensor | None, value: Value, weight: Tensor, shape: Shape
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute a convolution's gradients.

        Args:
            gradient: at the output of the norm behind it, or at its own if that has no rows.
            behind: the convolution's output, with that norm.
            coefficients: of that norm.
            value: the convolution's input.
            weight: (channels, 9).
            shape: the convolution's sizes.

        Returns:
            The gradient at the input's norm's output, behind the activation; the weight's, (channels, 9); and, where
            the input has a norm, the sums that its backward pass needs.
        """
        at_input, at_weight = torch.empty_like(value.raw), torch.empty_like(weight)
        sums = None if value.rows is None else torch.empty((2, shape.channels), dtype=torch.float64)
        self._call.depthwise_backward(
            gradient.data_ptr(), _address(behind.rows), _address(coefficients), behind.raw.data_ptr(),
            behind.activation, value.raw.data_ptr(), _address(value.rows), value.activation, weight.data_ptr(),
            (_INDEX * 9)(*shape), at_input.data_ptr(), at_weight.data_ptr(), _address(sums), torch.get_num_threads(),
        )  # fmt: skip
        return at_input, at_weight, sums

    def windows(self, values: Tensor, shape: Shape, size: int) -> Tensor:
        """Lay a dense convolution's windows out as a matrix (output pixels, size * size * channels)."""
        pixels = shape.images * shape.out_height * shape.out_width
        rows = values.new_empty((pixels, size * size * shape.channels))
        self._call.windows(
            values.data_ptr(), (_INDEX * 9)(*shape), size, rows.data_ptr(), torch.get_num_threads()
        )  # fmt: skip
        return rows


@cache
def load(dtype: torch.dtype) -> Kernels | None:
    """Load the kernels for a dtype, compiling them if no process has; None where there are none.

    The answer holds for the life of the process. `path` says which it is, and why.
    """
    if dtype not in _REALS:
        return None
    try:
        return Kernels(_REALS[dtype])
    except NoKernelsError:
        return None


@cache
def path() -> str:
    """Say which layers this process uses: compiled kernels, or torch's own and why."""
    try:
        kernels = Kernels(_REALS[torch.float32])
    except NoKernelsError as reason:
        return f"plain: {reason}"
    return f"compiled kernels ({find_compiler().label}, {kernels.instructions})"


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
