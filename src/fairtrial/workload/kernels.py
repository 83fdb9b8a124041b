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
from torch import Tensor

from fairtrial.workload.compiler import NoKernelsError, find_compiler, library

_REALS = {torch.float32: "float", torch.float64: "double"}
_INSTRUCTIONS = {64: "AVX-512", 32: "AVX", 16: "128-bit vectors"}

_POINTER, _INDEX, _INT, _DOUBLE = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int, ctypes.c_double
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "norm_from_batch": (*(_POINTER,) * 2, *(_INDEX,) * 2, *(_POINTER,) * 2, *(_DOUBLE,) * 3, *(_POINTER,) * 4, _INT),
    "norm_from_running": (_INDEX, *(_POINTER,) * 2, _DOUBLE, *(_POINTER,) * 3),
    "norm_forward": (_POINTER, _POINTER, _INT, _INDEX, _INDEX, _POINTER, _INT),
    "norm_backward": (*(_POINTER,) * 3, _INT, _POINTER, _INT, *(_INDEX,) * 2, *(_POINTER,) * 4, _INT),
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


class Norm(NamedTuple):
    """A batch norm's tensors and settings.

    Attributes:
        weight: (channels,).
        bias: (channels,).
        running_mean: (channels,).
        running_var: (channels,).
        tracked: the number of batches that the running statistics have seen, or None.
        eps: added to the variance.
        momentum: the newest batch's weight in the running statistics.
        correction: what the biased variance is multiplied by for the running one.
        from_batch: whether the statistics come from the batch, and the running ones move.
        activation: what follows.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    tracked: Tensor | None
    eps: float
    momentum: float
    correction: float
    from_batch: bool
    activation: Activation


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

    def norm_rows(self, norm: Norm, values: Tensor, moments: Tensor | None) -> Tensor:
        """Compute a norm's rows, from its input or from its running statistics, which move in the first case.

        Args:
            norm: the layer.
            values: its input.
            moments: the input's, where they are known. Used up.
        """
        channels = values.shape[3]
        rows = values.new_empty((4, channels))
        weight, bias, mean, variance = (tensor.data_ptr() for tensor in norm[:4])
        if not norm.from_batch:
            self._call.norm_from_running(channels, weight, bias, norm.eps, mean, variance, rows.data_ptr())
            return rows
        self._call.norm_from_batch(
            values.data_ptr(), _address(moments), values.numel() // channels, channels, weight, bias, norm.eps,
            norm.momentum, norm.correction, mean, variance, _address(norm.tracked), rows.data_ptr(),
            torch.get_num_threads(),
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

    def norm_backward(
        self, gradient: Tensor, value: Value, sums: Tensor | None, *, from_batch: bool, in_place: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go back through a norm.

        Args:
            gradient: at its activation's output; with sums, behind the activation.
            value: its input, with its rows.
            sums: what `depthwise_backward` has found.
            from_batch: whether its statistics came from the batch.
            in_place: whether the gradient may be overwritten.

        Returns:
            The gradients at its weight, its bias and its input.
        """
        output = gradient if in_place else torch.empty_like(gradient)
        weight, bias = self._norm_backward(gradient, value, sums, from_batch=from_batch, output=output)
        return weight, bias, output

    def norm_coefficients(
        self, gradient: Tensor, value: Value, sums: Tensor | None, *, from_batch: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Begin as `norm_backward` does, and leave the rest to `depthwise_backward`.

        Returns:
            The gradients at its weight and its bias, and the coefficients.
        """
        coefficients = gradient.new_empty((2, gradient.shape[3]))
        weight, bias = self._norm_backward(gradient, value, sums, from_batch=from_batch, coefficients=coefficients)
        return weight, bias, coefficients

    def _norm_backward(
        self, gradient: Tensor, value: Value, sums: Tensor | None, *, from_batch: bool,
        coefficients: Tensor | None = None, output: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        channels = gradient.shape[3]
        weight, bias = gradient.new_empty(channels), gradient.new_empty(channels)
        self._call.norm_backward(
            gradient.data_ptr(), value.raw.data_ptr(), _address(value.rows), value.activation, _address(sums),
            from_batch, value.pixels, channels, weight.data_ptr(), bias.data_ptr(), _address(coefficients),
            _address(output), torch.get_num_threads(),
        )  # fmt: skip
        return weight, bias

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
        self, gradient: Tensor, value: Value, weight: Tensor, shape: Shape, *,
        behind: Value, coefficients: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
        """Compute a convolution's gradients.

        Args:
            gradient: at the output of the norm behind it, or at its own if that has no rows.
            value: the convolution's input.
            weight: (channels, 9).
            shape: the convolution's sizes.
            behind: the convolution's output, with the norm behind it.
            coefficients: of that norm.

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
