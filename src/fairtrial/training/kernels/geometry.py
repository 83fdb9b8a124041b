"""The convolutions that the fast layers know, and their sizes."""

from torch import nn

from fairtrial.training.kernels.library import LayerKind, Shape
from fairtrial.training.models.mobilenet_v2.flavors import OneSidedConv2d

#: A dense convolution with more input channels than this is left to torch: windows would take too much memory.
MOST_WINDOW_CHANNELS = 4


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


def shape_of(conv: nn.Conv2d, images: int, height: int, width: int) -> Shape:
    """Compute the sizes of a convolution whose `kind_of` is not None; an output may be empty."""
    size, stride = conv.kernel_size[0], conv.stride[0]
    pad = int(conv.padding[0])
    top = bottom = left = right = pad
    if isinstance(conv, OneSidedConv2d):
        top, bottom, left, right = height % 2, 1, width % 2, 1
    out_height = (height + top + bottom - size) // stride + 1
    out_width = (width + left + right - size) // stride + 1
    return Shape(images, height, width, conv.in_channels, out_height, out_width, stride, top, left)
