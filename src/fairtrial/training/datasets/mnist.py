"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): gray images, 28x28, in four gzipped IDX files each.

The digests are those of the published files, which are checked wherever they come from.
"""

import gzip
import hashlib
import io
import math
import struct
import zlib
from abc import ABC
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.spec.sections import DataSize
from fairtrial.training.datasets import files
from fairtrial.training.datasets.download import WebArchive, WebFiles
from fairtrial.training.datasets.fetching import FetchedData
from fairtrial.training.datasets.layout import Arrays, Layout, Pixels

#: Where the files may be in the folder or archive: at its root, or where torchvision puts them.
FOLDERS = ("", "raw/", "MNIST/raw/", "FashionMNIST/raw/")
#: The files of the four arrays, in the order of `Arrays`.
NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


class Published(NamedTuple):
    """Digest and size of a published file."""

    sha256: str
    bytes: int


def at(address: str, published: tuple[Published, ...]) -> WebFiles:
    """The four files at a web address."""
    return WebFiles(
        tuple(WebArchive(f"{address}/{name}", *about) for name, about in zip(NAMES, published, strict=True))
    )


class IdxData(FetchedData, ABC):
    """Base of data sets in the form of MNIST."""

    published: ClassVar[tuple[Published, ...]]

    @classmethod
    def decode(cls, source: Path) -> Arrays:
        """See `FetchedData.decode`; the files are in one of `FOLDERS`."""
        sizes = dict(zip(NAMES, cls.published, strict=True))
        contents = files.read(source, {folder + name: sizes[name].bytes for folder in FOLDERS for name in NAMES})
        folder = _choose(source, set(contents), cls.layout.name)
        arrays = cls.layout.empty()
        for name, array in zip(NAMES, arrays, strict=True):
            content, where = contents.pop(folder + name), f"{source}: {folder}{name}"
            if (found := hashlib.sha256(content).hexdigest()) != sizes[name].sha256:
                wanted = f"that of {cls.layout.name} has {sizes[name].sha256}"
                raise DataError(f"{where}: is another file: its SHA-256 is {found}; {wanted}")
            array[:] = _read_idx(content, array.shape[:3] if array.ndim > 1 else array.shape, where).reshape(
                array.shape
            )
        return arrays

    @classmethod
    def check(cls, source: Path) -> None:
        """See `FetchedData.check`."""
        if source.is_dir():
            wanted = [folder + name for folder in FOLDERS for name in NAMES]
            _choose(source, files.listed(source, wanted), cls.layout.name)
        else:
            with files.open_archive(source):
                pass


def _choose(source: Path, present: set[str], name: str) -> str:
    """The folder that has all files; if none has, the error lists what the fullest one lacks."""
    lacking = {folder: [file for file in NAMES if folder + file not in present] for folder in FOLDERS}
    folder = min(lacking, key=lambda one: len(lacking[one]))
    if lacking[folder]:
        raise DataError(f"{source / folder}: lacks {', '.join(lacking[folder])} of {name}")
    return folder


def _read_idx(content: bytes, shape: tuple[int, ...], where: str) -> Pixels:
    """Unpack an IDX file of bytes: two zeros, the type, the number of dimensions, each as 32 bits, and the data."""
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
            data = unpacked.read(len(header) + math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{where}: not a readable gzip file ({error})") from error
    if data[: len(header)] != header or len(data) != len(header) + math.prod(shape):
        raise DataError(f"{where}: not an IDX file of bytes {shape}")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)


@DATASETS.register("mnist")
class Mnist(IdxData):
    """MNIST (LeCun et al. 1998): handwritten digits, 28x28 gray."""

    size = DataSize(60_000, 10_000)
    class_names = tuple("0123456789")
    layout = Layout("mnist", image_size=28, train=size.train, test=size.test, channels=1)
    published = (
        Published("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422),
        Published("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881),
        Published("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877),
        Published("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542),
    )
    sources = (
        at("https://ossci-datasets.s3.amazonaws.com/mnist", published),
        at("https://storage.googleapis.com/cvdf-datasets/mnist", published),
    )


@DATASETS.register("fashion_mnist")
class FashionMnist(IdxData):
    """Fashion-MNIST (Xiao et al. 2017): clothes of ten kinds, 28x28 gray."""

    size = DataSize(60_000, 10_000)
    class_names = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
    layout = Layout("fashion_mnist", image_size=28, train=size.train, test=size.test, channels=1)
    published = (
        Published("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),
        Published("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),
        Published("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),
        Published("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),
    )
    sources = (
        at("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion", published),
        at("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com", published),
    )
