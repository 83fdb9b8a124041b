"""Residual networks (He et al. 2016, arXiv:1512.03385), with the parameter names of torchvision's."""

import torch
from torch import nn
from torch.nn import functional

from fairtrial.training.models.resnet import ResNet


def _conv(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input, each followed by ReLU (figure 2)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, projects: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = _conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.stride, self.more_channels = stride, outputs - inputs
        changes = stride > 1 or inputs != outputs
        self.downsample = (
            nn.Sequential(_conv(inputs, outputs, kernel=1, stride=stride), nn.BatchNorm2d(outputs))
            if changes and projects
            else None
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map (batch, inputs, h, w) to (batch, outputs, ceil(h / stride), ceil(w / stride))."""
        inner = self.relu(self.bn1(self.conv1(features)))
        residual: torch.Tensor = self.bn2(self.conv2(inner))
        return self.relu(residual + self._shortcut(features))  # type: ignore[no-any-return]

    def _shortcut(self, features: torch.Tensor) -> torch.Tensor:
        if self.downsample is not None:
            return self.downsample(features)  # type: ignore[no-any-return]
        kept = features[:, :, :: self.stride, :: self.stride] if self.stride > 1 else features
        before = self.more_channels // 2
        return functional.pad(kept, (0, 0, 0, 0, before, self.more_channels - before)) if self.more_channels else kept


class Network(nn.Module):
    """A residual network for images of any size."""

    def __init__(self, settings: ResNet, *, classes: int, channels: int) -> None:
        super().__init__()
        inputs = settings.width
        self.conv1, self.bn1 = _conv(channels, inputs), nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU(inplace=True)
        self.stages = len(settings.blocks)
        for stage, blocks in enumerate(settings.blocks):
            outputs, layers = settings.width * 2**stage, list[nn.Module]()
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(Block(inputs, outputs, stride=stride, projects=settings.projects))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (batch, channels, height, width) to logits (batch, classes)."""
        features = self.relu(self.bn1(self.conv1(images)))
        for stage in range(self.stages):
            features = self.get_submodule(f"layer{stage + 1}")(features)
        logits: torch.Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits
