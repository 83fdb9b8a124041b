"""A small convolutional network, for studies that take minutes."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from fairtrial.registry import MODELS
from fairtrial.spec.numbers import BelowOne, Count, at_most
from fairtrial.spec.sections import ModelSettings

if TYPE_CHECKING:
    import torch


@MODELS.register("small_cnn")
class SmallCNN(ModelSettings):
    """Three 3x3 convolutions with batch norm and ReLU, a mean over the image, and a linear classifier.

    The first two are each followed by max pooling; each has twice the channels of the one before.

    Attributes:
        width: channels of the first convolution.
        dropout: rate before the classifier.
    """

    needs_images: ClassVar[bool] = True

    width: Annotated[Count, at_most(4096)] = 32
    dropout: BelowOne = 0.0

    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":  # noqa: ARG002
        """See `ModelSettings.build`; the initial weights are drawn as torchvision draws MobileNetV2's.

        Example:
            >>> network = SmallCNN().build(classes=10, image_size=32, channels=3, seed=0)
            >>> sum(parameter.numel() for parameter in network.parameters())
            94762
        """
        from torch import nn  # noqa: PLC0415  (settings are read without torch)

        from fairtrial.training.models.mobilenet_v2.flavors import make_network  # noqa: PLC0415

        def make() -> nn.Module:
            layers: list[nn.Module] = []
            inputs = channels
            for outputs in (self.width, 2 * self.width, 4 * self.width):
                layers += [nn.MaxPool2d(2)] if layers else []
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(inputs, classes))
            return nn.Sequential(*layers, *head)

        return make_network(make, "torchvision", seed)
