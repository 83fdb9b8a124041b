"""How the pixels are scaled that a network gets."""

import torch
from torch import nn

from fairtrial.errors import StudyError
from fairtrial.training.weights.published import ScalingName

#: Mean and standard deviation of ImageNet's pixels, as torchvision has them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Scaling(nn.Module):
    """Scale images in [0, 1]: to [-1, 1] (``"symmetric"``), or to ImageNet's mean 0 and variance 1 (``"imagenet"``).

    It has no parameters, so that a state_dict stays as it is. ``"unit"`` leaves the images as they are.

    Example:
        >>> Scaling("symmetric", channels=1)(torch.tensor([[[[0.0, 0.5, 1.0]]]]))
        tensor([[[[-1.,  0.,  1.]]]])
    """

    def __init__(self, name: ScalingName, *, channels: int) -> None:
        super().__init__()
        if name == "imagenet" and channels != len(_MEAN):
            raise StudyError(f'model.scaling = "imagenet": is for images of 3 channels; these have {channels}')
        self.kind = name

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scale images of shape (batch, channels, height, width)."""
        if self.kind == "symmetric":
            return images * 2 - 1
        if self.kind == "imagenet":
            mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
            return (images - mean) / std
        return images
