"""Images with labels, read in batches, and the parts of a data set that a study uses."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairtrial.spec.sections import DataSettings
from fairtrial.training.datasets import subsets
from fairtrial.training.datasets.download import DownloadProgress
from fairtrial.training.datasets.fetching import FetchedData
from fairtrial.training.datasets.layout import Arrays, Pixels, checked

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels: a whole set, or some of it."""

    pixels: "torch.Tensor"  # uint8 (N, height, width, channels): all images, mapped and shared between processes
    index: "torch.Tensor | None"  # int64 (n,), ascending positions in pixels of this set's images; None for all
    labels: "torch.Tensor"  # int64 (n,), classes of this set's images

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> "torch.Tensor":
        """This set's images, uint8 (n, height, width, channels): the shared map, or a copy for a subset."""
        return self.pixels if self.index is None else self.pixels.index_select(0, self.index)

    def batch(self, indices: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Read the images and labels at positions (b,), int64, in this set.

        Returns:
            Images, float32 (b, channels, height, width) in [0, 1] (the byte divided by 255), in channels_last memory
            format; labels, int64 (b,).

        Example:
            >>> import torch
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
    """What a study trains and tests on; ``digest`` is SHA-256 of the decoded arrays of the whole data set."""

    classes: int
    digest: str
    train: ImageSet
    test: ImageSet
    validation: ImageSet | None


def load(settings: DataSettings, *, verify: bool = True, progress: DownloadProgress | None = None) -> Dataset:
    """Load a data set and take the parts that a study asks for; fetch it first if it isn't cached.

    With ``verify``, hash the arrays and check the settings' path. Once per study is enough; workers pass False.

    Raises:
        DataError: the data are damaged, unavailable, or not what their class declares.

    Example:
        >>> from fairtrial.training.datasets.digits import Digits
        >>> load(Digits(train=100)).train.images.shape
        torch.Size([100, 32, 32, 3])
    """
    if isinstance(settings, FetchedData):
        return assemble(settings, settings.fetched(verify=verify, progress=progress), settings.layout.digest)
    return assemble(settings, *checked(settings, verify=verify))


def assemble(settings: DataSettings, arrays: Arrays, digest: str) -> Dataset:
    """Take the parts that a study asks for out of the whole data set."""
    choice = subsets.choose(settings, arrays.train_labels, arrays.test_labels)
    train = _image_set(arrays.train_images, arrays.train_labels, choice.train)
    test = _image_set(arrays.test_images, arrays.test_labels, choice.test)
    validation = None
    if choice.validation is not None:
        validation = _image_set(arrays.train_images, arrays.train_labels, choice.validation)
    return Dataset(len(settings.class_names), digest, train, test, validation)


def _image_set(images: Pixels, labels: Pixels, index: subsets.Indices | None) -> ImageSet:
    import torch  # noqa: PLC0415  (settings are read without it)

    chosen = torch.from_numpy(labels if index is None else labels[index]).long()
    return ImageSet(torch.from_numpy(images), None if index is None else torch.from_numpy(index), chosen)
