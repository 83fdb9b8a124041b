"""Images with labels, handed out in batches, and the parts of a data set that a study uses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets import subsets
from fairtrial.training.datasets.fetching import FetchedData
from fairtrial.training.datasets.layout import Arrays, Pixels, checked
from fairtrial.training.datasets.progress import DownloadProgress

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels: a whole set, or some of it.

    Attributes:
        pixels: uint8 (N, height, width, channels), the set's images in the cache file, mapped into memory and shared
            with all processes that map them. Not only this set's images where ``index`` is given.
        index: int64 (n,), the positions in ``pixels`` that make up this set, ascending; None for all.
        labels: int64 (n,), classes of this set's images.
    """

    pixels: "torch.Tensor"
    index: "torch.Tensor | None"
    labels: "torch.Tensor"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> "torch.Tensor":
        """This set's images, uint8 (n, height, width, channels): the shared map itself, or for a subset a copy."""
        return self.pixels if self.index is None else self.pixels.index_select(0, self.index)

    def batch(self, indices: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Gather images for a network.

        Args:
            indices: int64 (b,), positions in this set, from 0 to ``len(self) - 1``.

        Returns:
            Images, float32 (b, channels, height, width) in [0, 1] (the byte divided by 255), in channels_last memory
            format; labels, int64 (b,).

        Example:
            >>> from fairtrial.training.datasets import load
            >>> from fairtrial.training.datasets.digits import Digits
            >>> images, labels = load(Digits()).train.batch(torch.arange(64))
            >>> images.shape, images.max() <= 1
            (torch.Size([64, 3, 32, 32]), tensor(True))
        """
        rows = indices if self.index is None else self.index.index_select(0, indices)
        # NHWC bytes seen as NCHW are channels_last already, and float() keeps the strides.
        images = self.pixels.index_select(0, rows).permute(0, 3, 1, 2).float().div_(255)
        return images, self.labels.index_select(0, indices)


@dataclass(frozen=True, eq=False)
class Dataset:
    """What a study trains and tests on.

    Attributes:
        name: the data set, as the study names it.
        class_names: what the labels stand for.
        digest: SHA-256 of the decoded arrays of the whole data set.
        train: the training images.
        test: the test images.
        validation: images held out of the training set, or None.
    """

    name: str
    class_names: tuple[str, ...]
    digest: str
    train: ImageSet
    test: ImageSet
    validation: ImageSet | None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height and width in pixels."""
        return self.train.pixels.shape[1]

    @property
    def channels(self) -> int:
        """3 for color images, 1 for gray ones."""
        return self.train.pixels.shape[3]


def load(settings: DataSettings, *, verify: bool = True, progress: DownloadProgress | None = None) -> Dataset:
    """Load a data set and take the parts that a study asks for; fetch it first where it isn't cached.

    Args:
        settings: the study's data section. With ``verify``, its path is read and checked even where the data are
            cached.
        verify: hash the arrays. Once a study is enough: its workers can pass False, and map them only.
        progress: told about a download.

    Raises:
        DataError: the data are damaged, can't be had, or are not what they are said to be.

    Example:
        >>> from fairtrial.training.datasets.digits import Digits
        >>> load(Digits(train=100)).train.images.shape
        torch.Size([100, 32, 32, 3])
    """
    if isinstance(settings, FetchedData):
        arrays = settings.fetched(verify=verify, progress=progress)
        return assemble(settings, arrays, settings.recipe().layout.digest)
    return assemble(settings, *checked(settings, verify=verify))


def assemble(settings: DataSettings, arrays: Arrays, digest: str) -> Dataset:
    """Take the parts that a study asks for out of the whole data set.

    Args:
        settings: the study's data section.
        arrays: the whole data set, as it must be.
        digest: their SHA-256.
    """
    choice = subsets.choose(settings, arrays.train_labels, arrays.test_labels)
    validation = None
    if choice.validation is not None:
        validation = _image_set(arrays.train_images, arrays.train_labels, choice.validation)
    return Dataset(
        name=settings.name,
        class_names=settings.class_names,
        digest=digest,
        train=_image_set(arrays.train_images, arrays.train_labels, choice.train),
        test=_image_set(arrays.test_images, arrays.test_labels, choice.test),
        validation=validation,
    )


def _image_set(images: Pixels, labels: Pixels, index: subsets.Indices | None) -> ImageSet:
    import torch  # noqa: PLC0415  (settings are read without it)

    chosen = labels if index is None else labels[index]
    return ImageSet(
        pixels=torch.from_numpy(images),
        index=None if index is None else torch.from_numpy(index),
        labels=torch.from_numpy(chosen).long(),
    )
