"""Residual networks for small images (He et al. 2016): their settings. The network is in `network`."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from fairtrial.registry import MODELS
from fairtrial.spec.numbers import Count, at_most
from fairtrial.spec.sections import ModelSettings

if TYPE_CHECKING:
    import torch


class ResNet(ModelSettings):
    """Base of residual networks of basic blocks: two 3x3 convolutions each, stride 2 where a stage begins.

    The first convolution is 3x3 with stride 1 and no pooling follows, so that a 32x32 image keeps its size there.

    Attributes:
        width: channels of the first stage; each later one has twice as many.
    """

    needs_images: ClassVar[bool] = True

    #: Blocks of each stage.
    blocks: ClassVar[tuple[int, ...]]
    #: Whether a shortcut that changes the shape is a 1x1 convolution (option B of section 3.3), or skips pixels and
    #: adds channels of zeros (option A).
    projects: ClassVar[bool]

    width: Annotated[Count, at_most(4096)] = 64

    def build(self, *, classes: int, image_size: int, channels: int, seed: int) -> "torch.nn.Module":  # noqa: ARG002
        """See `ModelSettings.build`; the initial weights are drawn as those of ``small_cnn``.

        Example:
            >>> network = ResNet20().build(classes=10, image_size=32, channels=3, seed=0)
            >>> sum(parameter.numel() for parameter in network.parameters())
            269722
        """
        from fairtrial.training.models.mobilenet_v2.flavors import make_network  # noqa: PLC0415  (no torch before)
        from fairtrial.training.models.resnet.network import Network  # noqa: PLC0415

        return make_network(lambda: Network(self, classes=classes, channels=channels), "torchvision", seed)


@MODELS.register("resnet18")
class ResNet18(ResNet):
    """ResNet-18 (He et al. 2016) with a 3x3 stem for small images: four stages of 64 to 512 channels."""

    blocks = (2, 2, 2, 2)
    projects = True


@MODELS.register("resnet20")
class ResNet20(ResNet):
    """ResNet-20 (He et al. 2016, section 4.2), made for CIFAR-10: three stages of 16 to 64 channels."""

    blocks = (3, 3, 3)
    projects = False

    width: Annotated[Count, at_most(4096)] = 16
