"""Augment training images: whole batches at once, with random numbers that all arms of a seed share.

The numbers depend on the seed of the batch order, the epoch and the batch alone, and each augmentation has its own:
arms that differ in one share the others, and a trial that was interrupted within an epoch goes on with the same ones.

crop    moves an image by up to `crop_padding` pixels each way, and fills with zeros (He et al. 2016, sect. 4.2)
flip    mirrors an image left to right with probability 1/2
cutout  blanks a square whose center is anywhere in the image (DeVries & Taylor 2017)
mixup   mixes each image, and its label, with another of the batch: one share for a batch (Zhang et al. 2018, eq. 1)
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from fairtrial.errors import StudyError
from fairtrial.spec import DataSettings
from fairtrial.spec.sections import AUGMENTATIONS
from fairtrial.training.datasets import Dataset
from fairtrial.training.placement import to_device

# The stream of random numbers, apart from those of the order of batches and of dropout.
_STREAM = 3


def augment(
    inputs: Tensor, labels: Tensor, settings: DataSettings, *, classes: int, seed: int, epoch: int, batch: int
) -> tuple[Tensor, Tensor]:
    """Augment a batch as its data settings say.

    Args:
        inputs: images, float32 (batch, channels, height, width); for ``"mixup"`` any floats (batch, ...).
        labels: class numbers, int64 (batch,), or numbers, float32 (batch, targets).
        settings: say what is done.
        classes: how many classes there are.
        seed: seed of the batch order.
        epoch: from 1.
        batch: from 0, within the epoch.

    Returns:
        Inputs of the same shape, images in channels_last memory format; the labels or, after ``"mixup"``, the shares of
        the classes, float32 (batch, classes).
    """
    for name in settings.augment:
        sequence = np.random.SeedSequence([seed, _STREAM, AUGMENTATIONS.index(name), epoch, batch])
        random = np.random.Generator(np.random.PCG64(sequence))
        if name == "crop":
            inputs = crop(inputs, random, settings.crop_padding)
        elif name == "flip":
            inputs = flip(inputs, random)
        elif name == "cutout":
            inputs = cutout(inputs, random, settings.cutout_size)
        else:
            inputs, labels = mixup(inputs, labels, random, settings.mixup_alpha, classes)
    return inputs, labels


def check(settings: DataSettings, dataset: Dataset) -> None:
    """Raise a `StudyError` if a data set can't be augmented as its settings say."""
    for name in settings.augment:
        if name != "mixup" and not dataset.has_images:
            raise StudyError(f'data.augment: "{name}" is for images; {settings.name} has none')
        if name == "mixup" and not (dataset.has_images or dataset.train.pixels.is_floating_point()):
            raise StudyError(f'data.augment: "mixup" is for images and numbers; {settings.name} has integers')
    for name, key in (("crop", "crop_padding"), ("cutout", "cutout_size")):
        pixels = getattr(settings, key)
        if name in settings.augment and pixels > dataset.image_size:
            raise StudyError(f"data.{key} = {pixels}: the images have {dataset.image_size} pixels a side")


def crop(images: Tensor, random: np.random.Generator, padding: int) -> Tensor:
    """Move each image of a batch by up to ``padding`` pixels in each direction."""
    number, _, height, width = images.shape
    offsets = _tensor(random.integers(0, 2 * padding + 1, (2, number)), images)
    padded = pad(images.permute(0, 2, 3, 1), (0, 0, padding, padding, padding, padding))
    rows = offsets[0, :, None] + torch.arange(height, device=images.device)
    columns = offsets[1, :, None] + torch.arange(width, device=images.device)
    which = torch.arange(number, device=images.device)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Tensor, random: np.random.Generator) -> Tensor:
    """Mirror about half of the images of a batch."""
    mirrored = _tensor(random.integers(0, 2, len(images)), images).bool()
    flipped = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return flipped.contiguous(memory_format=torch.channels_last)


def cutout(images: Tensor, random: np.random.Generator, size: int) -> Tensor:
    """Set a square of ``size`` pixels to zero in each image of a batch, as far as it is within the image."""
    number, _, height, width = images.shape
    keep = []
    for axis, pixels in ((0, height), (1, width)):
        first = _tensor(random.integers(0, pixels, number), images)[:, None] - size // 2
        position = torch.arange(pixels, device=images.device)
        outside = (position < first) | (position >= first + size)
        keep.append(outside[:, None, :, None] if axis == 0 else outside[:, None, None, :])
    return images * (keep[0] | keep[1])


def mixup(
    inputs: Tensor, labels: Tensor, random: np.random.Generator, alpha: float, classes: int
) -> tuple[Tensor, Tensor]:
    """Mix each input of a batch with another one, and their labels by the same share."""
    share = float(random.beta(alpha, alpha))
    partners = _tensor(random.permutation(len(inputs)), inputs)
    values = labels if labels.is_floating_point() else one_hot(labels, classes).float()
    return share * inputs + (1 - share) * inputs[partners], share * values + (1 - share) * values[partners]


def _tensor(values: "np.typing.NDArray[np.int64]", like: Tensor) -> Tensor:
    return to_device(torch.from_numpy(values), like.device)
