"""CIFAR-100 (Krizhevsky 2009), from its python version: the pickles train and test, whose digests are published."""

import hashlib
from pathlib import Path
from typing import ClassVar

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.spec.sections import DataSize
from fairtrial.training.datasets import files, pickled
from fairtrial.training.datasets.download import WebArchive
from fairtrial.training.datasets.fetching import FetchedData
from fairtrial.training.datasets.layout import Arrays, Layout

#: Where the files may be in the folder or archive.
FOLDERS = ("", "cifar-100-python/")


@DATASETS.register("cifar100")
class Cifar100(FetchedData):
    """CIFAR-100 (Krizhevsky 2009): photographs of a hundred classes, 32x32 RGB."""

    size = DataSize(50_000, 10_000)
    class_names = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
        "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair",
        "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
        "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp",
        "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
        "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
        "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
        "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel",
        "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
        "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    )  # fmt: skip
    layout = Layout("cifar100", image_size=32, train=size.train, test=size.test)
    #: MD5 of the two files, as their readers have published it; that of the archive is a SHA-256.
    published: ClassVar[dict[str, str]] = {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    }
    sources = (
        WebArchive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            169_001_437,
        ),
    )

    @classmethod
    def decode(cls, source: Path) -> Arrays:
        """See `FetchedData.decode`; the files are at the root of the folder or archive, or in one of `FOLDERS`."""
        arrays = cls.layout.empty()
        limit = 2 * cls.layout.image_bytes * cls.layout.train + 2**20
        contents = files.read(source, dict.fromkeys(_wanted(cls.published), limit))
        folder = _choose(source, set(contents))
        parts = ((arrays.train_images, arrays.train_labels), (arrays.test_images, arrays.test_labels))
        for (name, md5), (images, labels) in zip(cls.published.items(), parts, strict=True):
            content, where = contents.pop(folder + name), f"{source}: {folder}{name}"
            if (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
                raise DataError(f"{where}: is another file: its MD5 is {found}; that of CIFAR-100 has {md5}")
            planes, labels[:] = pickled.read_batch(content, len(images), images[0].size, where, b"fine_labels")
            images.transpose(0, 3, 1, 2)[:] = planes.reshape(len(images), 3, *images.shape[1:3])
        return arrays

    @classmethod
    def check(cls, source: Path) -> None:
        """See `FetchedData.check`."""
        if source.is_dir():
            _choose(source, files.listed(source, _wanted(cls.published)))
        else:
            with files.open_archive(source):
                pass


def _wanted(names: dict[str, str]) -> set[str]:
    return {folder + name for folder in FOLDERS for name in names}


def _choose(source: Path, present: set[str]) -> str:
    for folder in FOLDERS:
        if {folder + name for name in Cifar100.published} <= present:
            return folder
    raise DataError(f"{source}: lacks the files train and test of CIFAR-100's python version")
