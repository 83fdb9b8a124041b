"""A chain of convolutions and batch norms as one node of autograd's graph.

Between two layers of a chain a feature map may stay unfinished (`kernels.Value`): the batch norm and the activation
behind a convolution are worked in where the next layer reads the map. Pointwise convolutions are matrix products over
(pixels, channels), which NHWC gives without a copy. Backward, the gradient of the batch norm behind a depthwise
convolution is taken while that convolution reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from fairtrial.workload.flavours import BiasedBatchNorm2d
from fairtrial.workload.geometry import Kind, kind_of, shape_of
from fairtrial.workload.kernels import Activation, Kernels, Shape, Value


@dataclass(frozen=True, slots=True)
class Unit:
    """A convolution, the batch norm behind it, the activation behind that; either of the first two may be missing."""

    conv: nn.Conv2d | None
    norm: nn.BatchNorm2d | None
    activation: Activation = Activation.NONE

    def parameters(self) -> tuple[Tensor | None, ...]:
        """Weight and bias of the convolution, weight and bias of the norm; None for what is missing."""
        conv, norm = self.conv, self.norm
        of_conv = (None, None) if conv is None else (conv.weight, conv.bias)
        return of_conv + ((None, None) if norm is None else (norm.weight, norm.bias))


def run(kernels: Kernels, units: Sequence[Unit], images: Tensor) -> Tensor:
    """Put images through a chain.

    Args:
        kernels: for the dtype of the images and all parameters.
        units: the chain. Its layers fit each other and the images; with a norm in training mode, its input has two
            pixels or more.
        images: (batch, channels, height, width), in any memory format.

    Returns:
        (batch, channels, height, width), in channels_last memory format.
    """
    parameters = [parameter for unit in units for parameter in unit.parameters()]
    if torch.is_grad_enabled() and (images.requires_grad or any(p is not None and p.requires_grad for p in parameters)):
        output: Tensor = _Chain.apply(images, kernels, units, *parameters)  # type: ignore[no-untyped-call]
        return output
    value, owned = Value(_nhwc(images)), False
    for unit in units:
        value = _forward(kernels, unit, value, fold=True).output
        owned = owned or unit.conv is not None
    return _nchw(kernels.finish(value, in_place=owned))


@dataclass(frozen=True, slots=True)
class _Done:
    """One unit after its forward pass.

    Attributes:
        output: what the next unit reads.
        source: what the convolution read: for a depthwise one perhaps unfinished, for a dense one its windows.
        kind: how the convolution was computed; None where there is none.
        shape: its sizes.
        from_batch: whether the norm took its statistics from the batch.
    """

    output: Value
    source: Value
    kind: Kind | None
    shape: Shape | None
    from_batch: bool


def _forward(kernels: Kernels, unit: Unit, value: Value, *, fold: bool = False) -> _Done:
    """Put a value through one unit.

    Args:
        kernels: for its dtype.
        unit: whose layers.
        value: the unit's input.
        fold: whether a depthwise convolution may put its output through a norm that is known beforehand.
    """
    conv, norm = unit.conv, unit.norm
    from_batch = norm is not None and norm.training
    rows = None if norm is None or from_batch else kernels.norm_from_running(norm)
    moments = kind = shape = None
    if conv is not None:
        kind, shape = kind_of(conv), shape_of(conv, *value.raw.shape[:3])
    if conv is not None and shape is not None and kind is Kind.DEPTHWISE:
        after = Value(value.raw, rows, unit.activation) if fold and rows is not None else None
        raw, moments = kernels.depthwise_forward(value, _taps(conv.weight), shape, after=after, moments=from_batch)
        if after is not None:
            return _Done(Value(raw), value, kind, shape, from_batch)
    else:
        value = Value(kernels.finish(value))
        raw = value.raw
        if conv is not None and shape is not None:
            if kind is Kind.WINDOWS:
                value = Value(kernels.windows(value.raw, shape, conv.kernel_size[0]))
            raw = _product(value.raw, conv).view(shape.images, shape.out_height, shape.out_width, conv.out_channels)
    if norm is not None and from_batch:
        rows = _rows_from_batch(kernels, norm, raw, moments)
    return _Done(Value(raw, rows, unit.activation), value, kind, shape, from_batch)


def _rows_from_batch(kernels: Kernels, norm: nn.BatchNorm2d, raw: Tensor, moments: Tensor | None) -> Tensor:
    pixels = raw.numel() // raw.shape[3]
    correction = 1.0 if isinstance(norm, BiasedBatchNorm2d) else pixels / (pixels - 1)
    if moments is None:
        moments = kernels.moments(raw)
    return kernels.norm_from_batch(norm, moments, pixels, correction)


class _Chain(torch.autograd.Function):
    """The chain as autograd sees it: images and all parameters in, one feature map out."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernels: Kernels, units: Sequence[Unit], *_: Tensor | None) -> Tensor:
        value = Value(_nhwc(images))
        done = []
        for unit in units:
            done.append(_forward(kernels, unit, value))
            value = done[-1].output
        # Autograd looks after what others can change; the maps in between are nobody's but ours.
        ctx.save_for_backward(*(None if unit.conv is None else unit.conv.weight for unit in units))
        ctx.kernels, ctx.done = kernels, done
        ctx.images_shape = images.shape
        return _nchw(kernels.finish(value))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weights, needed = ctx.saved_tensors, ctx.needs_input_grad
        way = _WayBack(ctx.kernels, _nhwc(gradient))
        gradients: list[Tensor | None] = []
        for index in range(len(weights) - 1, -1, -1):
            wants = needed[3 + 4 * index], needed[4 + 4 * index], index > 0 or needed[0]
            gradients = [*way.through(ctx.done[index], weights[index], wants), *gradients]
        return (_nchw(way.gradient) if needed[0] else None, None, None, *gradients)


class _WayBack:
    """The gradient on its way from a chain's output to its input.

    Attributes:
        gradient: (images, height, width, channels), at the output of the unit that comes next.
    """

    def __init__(self, kernels: Kernels, gradient: Tensor) -> None:
        self.gradient = gradient
        self._kernels = kernels
        self._owned = False  # autograd's gradient may be read by others too
        self._sums: Tensor | None = None  # of the next norm, if taken already: the gradient is then behind its cut

    def through(self, done: _Done, weight: Tensor | None, wants: tuple[bool, bool, bool]) -> tuple[Tensor | None, ...]:
        """Go through one unit.

        Args:
            done: the unit.
            weight: of its convolution.
            wants: whether the gradients of the convolution's weight, its bias and its input are asked for.

        Returns:
            The gradients of the parameters, in the order of `Unit.parameters`.
        """
        behind, coefficients = done.output, None
        at_norm: tuple[Tensor | None, Tensor | None] = (None, None)
        if behind.rows is not None:
            if self._sums is None:
                self._sums = self._kernels.norm_sums(self.gradient, behind)
            else:
                behind = behind._replace(activation=Activation.NONE)
            *at_norm_, coefficients = self._kernels.norm_coefficients(self._sums, behind, from_batch=done.from_batch)
            at_norm, self._sums = (at_norm_[0], at_norm_[1]), None
        if done.kind is Kind.DEPTHWISE and weight is not None and done.shape is not None:
            self.gradient, at_weight, self._sums = self._kernels.depthwise_backward(
                self.gradient, behind, coefficients, done.source, _taps(weight), done.shape
            )
            self._owned = True
            return at_weight.view(weight.shape), None, *at_norm
        if coefficients is not None:
            self.gradient = self._kernels.norm_backward(self.gradient, behind, coefficients, in_place=self._owned)
            self._owned = True
        if weight is None or done.shape is None:
            return None, None, *at_norm
        return *self._through_product(done, weight, done.shape, wants), *at_norm

    def _through_product(
        self, done: _Done, weight: Tensor, shape: Shape, wants: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Go through a convolution that was a matrix product; return the gradients of its weight and bias."""
        wants_weight, wants_bias, wants_input = wants
        rows = self.gradient.flatten(0, 2)
        at_bias = rows.sum(0) if wants_bias else None
        at_weight = None
        if wants_weight:
            size = weight.shape[2:]
            product = rows.t().mm(done.source.raw.flatten(0, -2))
            at_weight = product.view(len(weight), *size, weight.shape[1]).permute(0, 3, 1, 2)
        if wants_input:
            if done.kind is Kind.POINTWISE:
                self.gradient = rows.mm(weight.flatten(1)).view(*done.source.raw.shape)
            else:
                self.gradient = _dense_input_gradient(self.gradient, weight, shape)
            self._owned = True
        return at_weight, at_bias


def _product(rows: Tensor, conv: nn.Conv2d) -> Tensor:
    """Multiply pixels, or windows, by a convolution's kernel as a matrix."""
    matrix = conv.weight.permute(0, 2, 3, 1).flatten(1).t()
    rows = rows.flatten(0, -2)
    return rows.mm(matrix) if conv.bias is None else torch.addmm(conv.bias, rows, matrix)


def _dense_input_gradient(gradient: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """The gradient at the input of a dense convolution. Seldom asked for: such convolutions read the images."""
    size, stride = weight.shape[2], shape.stride
    height = max((shape.out_height - 1) * stride + size, shape.top + shape.height)
    width = max((shape.out_width - 1) * stride + size, shape.left + shape.width)
    padded = conv2d_input((shape.images, shape.channels, height, width), weight, _nchw(gradient), stride)
    cropped = padded[:, :, shape.top : shape.top + shape.height, shape.left : shape.left + shape.width]
    return _nhwc(cropped)


def _taps(weight: Tensor) -> Tensor:
    """A depthwise kernel (channels, 1, 3, 3) as (channels, 9)."""
    return weight.detach().reshape(-1, 9).contiguous()


def _nhwc(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1).contiguous()


def _nchw(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)
