"""Images with labels, read in batches, and the parts of a data set that a study uses."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError
from fairtrial.spec.sections import DataSettings, DataSize
from fairtrial.training.datasets import cache, subsets
from fairtrial.training.datasets.checking import checked, class_count
from fairtrial.training.datasets.download import DownloadProgress
from fairtrial.training.datasets.fetching import FetchedData
from fairtrial.training.datasets.layout import Arrays

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels: a whole set, or some of it; or other inputs, such as the rows of a table."""

    #: uint8 (N, height, width, channels): all images, mapped and shared between processes; other inputs (N, ...).
    pixels: "torch.Tensor"
    index: "torch.Tensor | None"  # int64 (n,), ascending positions in pixels of this set's images; None for all
    labels: "torch.Tensor"  # int64 (n,), classes of this set's images; or numbers, float32 (n, targets)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> "torch.Tensor":
        """This set's images, such as uint8 (n, height, width, channels): the shared map, or a copy for a subset."""
        return self.pixels if self.index is None else self.pixels.index_select(0, self.index)

    def batch(self, indices: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Read the images and labels at positions (b,), int64, in this set.

        Returns:
            Images, float32 (b, channels, height, width) in [0, 1] (the byte divided by 255), in channels_last memory
            format, or other inputs as they are; labels, int64 (b,), or numbers, float32 (b, targets).

        Example:
            >>> import torch
            >>> from fairtrial.training.datasets.digits import Digits
            >>> images, labels = load(Digits()).train.batch(torch.arange(64))
            >>> images.shape, images.max() <= 1
            (torch.Size([64, 3, 32, 32]), tensor(True))
        """
        indices = indices.to(self.labels.device)
        rows = indices if self.index is None else self.index.index_select(0, indices)
        images, labels = self.pixels.index_select(0, rows), self.labels.index_select(0, indices)
        if images.dtype.itemsize > 1:
            return images, labels
        # NHWC bytes seen as NCHW are channels_last already, and float() keeps the strides.
        return images.permute(0, 3, 1, 2).float().div_(255), labels


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a study trains and tests on; ``digest`` is SHA-256 of the decoded arrays of the whole data set."""

    classes: int  # outputs of a network: classes, or numbers to predict
    digest: str
    train: ImageSet
    test: ImageSet
    validation: ImageSet | None

    @property
    def has_images(self) -> bool:
        """Whether the inputs are images: bytes, or floats (rows, channels, size, size)."""
        return self.train.pixels.dtype.itemsize == 1 or (
            self.train.pixels.ndim == 4 and self.train.pixels.is_floating_point()
        )

    @property
    def image_size(self) -> int:
        """Height and width of the images; 1 if the inputs are none."""
        return self.train.pixels.shape[2] if self.has_images else 1

    @property
    def channels(self) -> int:
        """Channels of the images; the numbers of an input if the inputs are none."""
        shape = self.train.pixels.shape
        if not self.has_images:
            return math.prod(shape[1:])
        return shape[3] if self.train.pixels.dtype.itemsize == 1 else shape[1]


def load(settings: DataSettings, *, verify: bool = True, progress: DownloadProgress | None = None) -> Dataset:
    """Load a data set and take the parts that a study asks for; fetch it first if it isn't cached.

    With ``verify``, hash the arrays and check the settings' path. Once per study is enough; workers pass False. A
    user's own data are then read twice: each process reads them anew, and all trials must get the same.

    Raises:
        DataError: the data are damaged, unavailable, or not what their class declares.

    Example:
        >>> from fairtrial.training.datasets.digits import Digits
        >>> load(Digits(train=100)).train.images.shape
        torch.Size([100, 32, 32, 3])
    """
    if isinstance(settings, FetchedData):
        arrays = settings.fetched(verify=verify, progress=progress)
        return assemble(settings, arrays, cache.digests(settings.layout)[0])
    arrays, digest = checked(settings, verify=verify)
    if verify and ":" in settings.name and checked(settings, verify=True)[1] != digest:
        raise DataError(f"{settings.name}: gives other data each time; seed the random numbers that it draws")
    return assemble(settings, arrays, digest)


def unaugmented(settings: DataSettings) -> DataSettings:
    """The settings of the same images before they are augmented."""
    if not settings.augment:
        return settings
    return type(settings).model_validate(settings.model_dump(exclude=set(DataSettings.later_keys)))


def assemble(settings: DataSettings, arrays: Arrays, digest: str) -> Dataset:
    """Take the parts that a study asks for out of the whole data set."""
    if problem := settings.too_many(DataSize(len(arrays.train_labels), len(arrays.test_labels))):
        raise DataError(f"data.{problem}")
    if settings.is_regression:
        classes, balance = arrays.train_labels.shape[1], [np.zeros(len(one), np.int64) for one in arrays[1::2]]
    else:
        classes, balance = class_count(settings, arrays.train_labels), [*arrays[1::2]]
    choice = subsets.choose(settings, *balance)
    train = _image_set(arrays.train_images, arrays.train_labels, choice.train)
    test = _image_set(arrays.test_images, arrays.test_labels, choice.test)
    validation = None
    if choice.validation is not None:
        validation = _image_set(arrays.train_images, arrays.train_labels, choice.validation)
    return Dataset(classes, digest, train, test, validation)


def _image_set(images: NDArray[Any], labels: NDArray[Any], index: subsets.Indices | None) -> ImageSet:
    import torch  # noqa: PLC0415  (settings are read without it)

    chosen = torch.from_numpy(labels if index is None else labels[index])
    chosen = chosen if chosen.is_floating_point() else chosen.long()
    return ImageSet(torch.from_numpy(images), None if index is None else torch.from_numpy(index), chosen)
