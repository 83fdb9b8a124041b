"""A chain of convolutions and batch norms as one node of autograd's graph.

Between two layers of a chain a feature map may stay unfinished (`kernels.Value`): the batch norm and the activation
behind a convolution are worked in where the next layer reads the map. Pointwise convolutions are matrix products over
(pixels, channels), which NHWC gives without a copy. Backward, the gradient of the batch norm behind a depthwise
convolution is taken while that convolution reads it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from fairtrial.workload.geometry import Kind
from fairtrial.workload.kernels import Activation, Kernels, Norm, Shape, Value


class Conv(NamedTuple):
    """A convolution's tensors and sizes.

    Attributes:
        kind: how it is computed.
        weight: (output channels, input channels / groups, height, width).
        bias: (output channels,) or None; None for a depthwise one.
        shape: the sizes.
    """

    kind: Kind
    weight: Tensor
    bias: Tensor | None
    shape: Shape


class Unit(NamedTuple):
    """A convolution and the batch norm behind it; one of the two may be missing."""

    conv: Conv | None
    norm: Norm | None

    def parameters(self) -> tuple[Tensor | None, ...]:
        """Weight and bias of the convolution, weight and bias of the norm; None for what is missing."""
        of_conv = (None, None) if self.conv is None else self.conv[1:3]
        return of_conv + ((None, None) if self.norm is None else self.norm[:2])


def run(kernels: Kernels, units: Sequence[Unit], images: Tensor) -> Tensor:
    """Put images through a chain.

    Args:
        kernels: for the dtype of the images and all parameters.
        units: the chain. Its layers fit each other and the images; where a norm takes its statistics from the batch,
            its input has two pixels or more.
        images: (batch, channels, height, width), in any memory format.

    Returns:
        (batch, channels, height, width), in channels_last memory format.
    """
    parameters = [parameter for unit in units for parameter in unit.parameters()]
    if torch.is_grad_enabled() and (images.requires_grad or any(p is not None and p.requires_grad for p in parameters)):
        output: Tensor = _Chain.apply(images, kernels, units, *parameters)  # type: ignore[no-untyped-call]
        return _nchw(output)
    value, owned = Value(_nhwc(images)), False
    for unit in units:
        _, value = _forward(kernels, unit, value, fold=True)
        owned = owned or unit.conv is not None
    return _nchw(kernels.finish(value, in_place=owned))


def _forward(kernels: Kernels, unit: Unit, value: Value, *, fold: bool = False) -> tuple[Value, Value]:
    """Put a value through one unit.

    Args:
        kernels: for its dtype.
        unit: the layers.
        value: the unit's input.
        fold: whether a depthwise convolution may put its output through a norm that is known beforehand.

    Returns:
        What the convolution read: for a depthwise one perhaps unfinished, for a dense one its windows; and what the
        next unit reads.
    """
    conv, norm = unit
    moments = rows = None
    activation = Activation.NONE if norm is None else norm.activation
    if conv is not None and conv.kind is Kind.DEPTHWISE:
        from_batch = norm is not None and norm.from_batch
        if fold and norm is not None and not from_batch:
            after = Value(value.raw, kernels.norm_rows(norm, value.raw, None), activation)
            return value, Value(kernels.depthwise_forward(value, _taps(conv.weight), conv.shape, after=after)[0])
        raw, moments = kernels.depthwise_forward(value, _taps(conv.weight), conv.shape, moments=from_batch)
    else:
        value = Value(kernels.finish(value))
        raw = value.raw
        if conv is not None:
            if conv.kind is Kind.WINDOWS:
                value = Value(kernels.windows(raw, conv.shape, conv.weight.shape[2]))
            raw = _product(value.raw, conv)
    if norm is not None:
        rows = kernels.norm_rows(norm, raw, moments)
    return value, Value(raw, rows, activation)


class _Chain(torch.autograd.Function):
    """The chain as autograd sees it: images and all parameters in, one feature map out.

    The map is NHWC and no view of another tensor: autograd lets no one change a custom function's view in place, as an
    activation behind the chain may want to.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Kernels, units: Sequence[Unit], *_: Tensor | None) -> Tensor:
        value = Value(_nhwc(images))
        read_and_made = []
        for unit in units:
            read_and_made.append(_forward(kernels, unit, value))
            value = read_and_made[-1][1]
        # Autograd looks after the tensors that others can change; the maps in between are nobody's but ours.
        ctx.save_for_backward(images, *(None if unit.conv is None else unit.conv.weight for unit in units))
        ctx.kernels, ctx.units, ctx.read_and_made = kernels, units, read_and_made
        return kernels.finish(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad
        _ = ctx.saved_tensors  # autograd's own complaint, if any of them has changed or the graph is gone
        way = _WayBack(ctx.kernels, gradient.contiguous())
        gradients: list[Tensor | None] = []
        for index in range(len(ctx.units) - 1, -1, -1):
            (conv, norm), (read, made) = ctx.units[index], ctx.read_and_made[index]
            wants = needed[3 + 4 * index], needed[4 + 4 * index], index > 0 or needed[0]
            at_norm = (None, None) if norm is None else way.through_norm(norm, conv, made)
            at_conv = (None, None) if conv is None else way.through_conv(conv, read, made, wants)
            gradients = [*at_conv, *at_norm, *gradients]
        return (_nchw(way.gradient) if needed[0] else None, None, None, *gradients)


class _WayBack:
    """The gradient on its way from a chain's output to its input.

    Attributes:
        gradient: (images, height, width, channels), at the output of what comes next.
    """

    def __init__(self, kernels: Kernels, gradient: Tensor) -> None:
        self.gradient = gradient
        self._kernels = kernels
        self._owned = False  # autograd's gradient may be read by others too
        self._sums: Tensor | None = None  # of the next norm, if taken already: the gradient is then behind its cut
        self._left: tuple[Value, Tensor] | None = None  # a norm left to the convolution before it

    def through_norm(self, norm: Norm, conv: Conv | None, made: Value) -> tuple[Tensor, Tensor]:
        """Go through a norm, or leave that to the depthwise convolution before it; return the parameters' gradients."""
        if self._sums is not None:
            made = made._replace(activation=Activation.NONE)
        if conv is not None and conv.kind is Kind.DEPTHWISE:
            weight, bias, coefficients = self._kernels.norm_coefficients(
                self.gradient, made, self._sums, from_batch=norm.from_batch
            )
            self._left = made, coefficients
        else:
            weight, bias, self.gradient = self._kernels.norm_backward(
                self.gradient, made, self._sums, from_batch=norm.from_batch, in_place=self._owned
            )
            self._owned = True
        self._sums = None
        return weight, bias

    def through_conv(
        self, conv: Conv, read: Value, made: Value, wants: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Go through a convolution.

        Args:
            conv: the convolution.
            read: what it read.
            made: what it made.
            wants: whether the gradients of its weight, its bias and its input are asked for.

        Returns:
            The gradients of its weight and its bias.
        """
        wants_weight, wants_bias, wants_input = wants
        at_weight, rows = None, self.gradient.flatten(0, 2)
        if conv.kind is Kind.DEPTHWISE:
            behind, coefficients = self._left or (Value(made.raw), None)
            self.gradient, taps, self._sums = self._kernels.depthwise_backward(
                self.gradient, read, _taps(conv.weight), conv.shape, behind=behind, coefficients=coefficients
            )
            self._owned, self._left = True, None
            return taps.view(conv.weight.shape), None
        if wants_weight:
            outputs, inputs, *size = conv.weight.shape
            product = rows.t().mm(read.raw.flatten(0, -2))
            at_weight = product.view(outputs, *size, inputs).permute(0, 3, 1, 2)
        if wants_input and conv.kind is Kind.POINTWISE:
            self.gradient = rows.mm(conv.weight.flatten(1)).view(read.raw.shape)
            self._owned = True
        elif wants_input:
            self.gradient = _dense_input_gradient(self.gradient, conv.weight, conv.shape)
            self._owned = True
        return at_weight, rows.sum(0) if wants_bias else None


def _product(rows: Tensor, conv: Conv) -> Tensor:
    """Multiply pixels, or windows, by a convolution's kernel as a matrix."""
    shape = conv.shape
    matrix = conv.weight.permute(0, 2, 3, 1).flatten(1).t()
    rows = rows.flatten(0, -2)
    output = rows.new_empty((shape.images, shape.out_height, shape.out_width, conv.weight.shape[0]))
    flat = output.view(-1, output.shape[3])
    if conv.bias is None:
        torch.mm(rows, matrix, out=flat)
    else:
        torch.addmm(conv.bias, rows, matrix, out=flat)
    return output


def _dense_input_gradient(gradient: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """The gradient at the input of a dense convolution. Seldom asked for: such convolutions read the images."""
    kernel, stride = weight.shape[2], shape.stride
    height = max((shape.out_height - 1) * stride + kernel, shape.top + shape.height)
    width = max((shape.out_width - 1) * stride + kernel, shape.left + shape.width)
    size = (shape.images, shape.channels, height, width)
    padded: Tensor = conv2d_input(size, weight, _nchw(gradient), stride)  # type: ignore[no-untyped-call]
    cropped = padded[:, :, shape.top : shape.top + shape.height, shape.left : shape.left + shape.width]
    return _nhwc(cropped)


def _taps(weight: Tensor) -> Tensor:
    """A depthwise kernel (channels, 1, 3, 3) as (channels, 9)."""
    return weight.detach().reshape(-1, 9).contiguous()


def _nhwc(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1).contiguous()


def _nchw(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)
