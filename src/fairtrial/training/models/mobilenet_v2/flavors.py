"""Differences between torchvision's MobileNetV2 and Keras's: padding, batch norm, initial weights, rounding."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn
from torch.nn import functional


class OneSidedConv2d(nn.Conv2d):
    """A 3x3 convolution of stride 2, padded as in Keras's MobileNetV2: at the end of an axis first.

    An axis of even length gets one zero at its end, an axis of odd length one at each end; the output length is
    ``ceil(length / 2)``. So on an even axis the windows are centered on pixels 1, 3, 5, ... instead of 0, 2, 4, ....
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convolve ``images`` of shape (batch, channels, height, width)."""
        height, width = images.shape[-2:]
        return super().forward(functional.pad(images, (width % 2, 1, height % 2, 1)))


class BiasedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose running variance averages the biased variance of each batch, as in Keras.

    Both libraries normalize by the biased variance ``sum((x - mean)^2) / n``, but torch averages the unbiased one,
    ``n / (n - 1)`` times as large: 1.6 percent with 64 images and a feature map of 1x1.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Normalize ``features`` of shape (batch, channels, height, width)."""
        count = features.numel() // self.num_features
        if not self.training or count < 2 or self.running_var is None or self.momentum is None:
            return super().forward(features)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        # The update is linear, so torch's own kernel can apply it to the variance times its correction. To a copy,
        # because autograd refuses tensors that have changed since it saved them.
        correction = count / (count - 1)
        variance = self.running_var * correction
        normalized = functional.batch_norm(
            features, self.running_mean, variance, self.weight, self.bias, True, self.momentum, self.eps
        )
        self.running_var.copy_(variance / correction)
        return normalized


@dataclass(frozen=True)
class Flavor:
    """A library's choices for MobileNetV2."""

    norm: type[nn.BatchNorm2d]
    eps: float
    momentum: float  # torch's, 1 minus Keras's
    strided_conv: type[nn.Conv2d]  # the class of convolutions of stride 2
    strided_padding: int  # zeros that they themselves add at each end of an axis
    initialize_conv: Callable[..., torch.Tensor]  # fills kernels (out, in / groups, height, width)
    initialize_linear: Callable[..., torch.Tensor]  # fills the classifier's matrix (classes, features)
    whole_widths: bool  # channels are truncated before they are rounded

    def conv(self, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
        """Make a convolution without bias whose output has length ``ceil(length / stride)`` on each axis."""
        layer, padding = nn.Conv2d, kernel // 2
        if stride > 1:
            layer, padding = self.strided_conv, self.strided_padding
        return layer(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def batch_norm(self, channels: int) -> nn.BatchNorm2d:
        """Make a batch norm."""
        return self.norm(channels, eps=self.eps, momentum=self.momentum)

    def stage_channels(self, channels: int, width: float) -> int:
        """Number of channels of a stage; for 24 channels at width 0.742, torchvision makes 24 and Keras 16."""
        wanted = channels * width
        return round_to_eights(int(wanted) if self.whole_widths else wanted)

    def initialize(self, network: nn.Module, generator: torch.Generator) -> None:
        """Fill every parameter and buffer, in the order of the network's modules, from ``generator`` only."""
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                self.initialize_conv(module.weight, generator=generator)
            elif isinstance(module, nn.Linear):
                self.initialize_linear(module.weight, generator=generator)
                nn.init.zeros_(module.bias)


def round_to_eights(channels: float) -> int:
    """Round to the nearest multiple of 8, at least 8, and one step up where that loses more than a tenth.

    The rule of both libraries and of the authors' own TensorFlow code.

    >>> [round_to_eights(channels) for channels in (2.4, 12, 17.7, 17.8, 33.6)]
    [8, 16, 16, 24, 32]
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


#: For a depthwise kernel, (3, 3, C, 1) in Keras and (C, 1, 3, 3) in torch, Keras computes fan_in = 9C and fan_out = 9,
#: torch 9 and 9C. Glorot's limit, sqrt(6 / (fan_in + fan_out)), uses their sum, so both draw from the same interval.
#: Kaiming's deviation, sqrt(2 / fan_out), uses 9C, as in torchvision.
FLAVORS: dict[Literal["torchvision", "keras"], Flavor] = {
    "torchvision": Flavor(
        norm=nn.BatchNorm2d,
        eps=1e-5,
        momentum=0.1,
        strided_conv=nn.Conv2d,
        strided_padding=1,
        initialize_conv=partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu"),
        initialize_linear=partial(nn.init.normal_, std=0.01),
        whole_widths=False,
    ),
    "keras": Flavor(
        norm=BiasedBatchNorm2d,
        eps=1e-3,
        momentum=0.001,
        strided_conv=OneSidedConv2d,
        strided_padding=0,
        initialize_conv=nn.init.xavier_uniform_,
        initialize_linear=nn.init.xavier_uniform_,
        whole_widths=True,
    ),
}


def make_network(make: Callable[[], nn.Module], flavor: Literal["torchvision", "keras"], seed: int) -> nn.Module:
    """Make a network with a library's initial weights."""
    return make_from_seed(make, FLAVORS[flavor].initialize, seed)


def make_from_seed(
    make: Callable[[], nn.Module], initialize: Callable[[nn.Module, torch.Generator], None], seed: int
) -> nn.Module:
    """Make a network on the CPU, channels last, whose initial weights depend on the seed only."""
    # Torch initializes the layers from the global generator first, for nothing. To make them on the device "meta" would
    # spare that, but give them memory by a part of torch's compiler, whose import takes far longer.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        network = make().to(torch.float32)
    initialize(network, torch.Generator(device="cpu").manual_seed(seed))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's types
    return network
