"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), with the parameter names of torchvision's."""

import torch
from torch import nn

from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.models.mobilenet_v2.flavors import FLAVORS, Flavor, round_to_eights
from fairtrial.training.weights.scaling import Scaling

#: (expansion t, channels c, blocks n, stride of the first block s) of each stage: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
FIRST_CHANNELS = 32
LAST_CHANNELS = 1280


class ConvNormActivation(nn.Sequential):
    """Convolution, batch norm, ReLU6."""

    def __init__(
        self, flavor: Flavor, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            flavor.conv(inputs, outputs, kernel=kernel, stride=stride, groups=groups),
            flavor.batch_norm(outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter depthwise with the stride, project by a linear 1x1 convolution (section 3.3).

    The input is added to the output if both have the same shape. ``expansion`` 1 omits the first convolution.
    """

    def __init__(self, flavor: Flavor, inputs: int, outputs: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [ConvNormActivation(flavor, inputs, hidden, kernel=1)] if expansion > 1 else []
        self.adds_input = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *expand,
            ConvNormActivation(flavor, hidden, hidden, kernel=3, stride=stride, groups=hidden),
            flavor.conv(hidden, outputs, kernel=1),
            flavor.batch_norm(outputs),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, ceil(h / stride), ceil(w / stride))."""
        projected: torch.Tensor = self.conv(features)
        return features + projected if self.adds_input else projected


class Network(nn.Module):
    """MobileNetV2 for images of any size.

    The classifier comes last, so that the other weights don't depend on the number of classes. The settings' width
    multiplies all channels; the last 1280 only if it exceeds 1, as in both libraries.
    """

    def __init__(self, settings: MobileNetV2, *, classes: int, channels: int) -> None:
        super().__init__()
        flavor, width = FLAVORS[settings.flavor], settings.width
        small_images = settings.stem == "cifar"
        inputs = round_to_eights(FIRST_CHANNELS * width)
        last = round_to_eights(LAST_CHANNELS * max(1.0, width))
        stride = 1 if small_images else 2
        features: list[nn.Module] = [ConvNormActivation(flavor, channels, inputs, kernel=3, stride=stride)]
        for stage, (expansion, base, blocks, first_stride) in enumerate(STAGES, start=1):
            outputs = flavor.stage_channels(base, width)
            stride = 1 if small_images and stage == 2 else first_stride
            for _ in range(blocks):
                features.append(InvertedResidual(flavor, inputs, outputs, stride=stride, expansion=expansion))
                inputs, stride = outputs, 1
        features.append(ConvNormActivation(flavor, inputs, last, kernel=1))
        self.scaling = Scaling(settings.pixels, channels=channels)
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(settings.dropout), nn.Linear(last, classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        pooled = self.features(self.scaling(images)).mean(dim=(2, 3))
        logits: torch.Tensor = self.classifier(pooled)
        return logits
