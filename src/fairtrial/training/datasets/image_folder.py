"""A folder of images by class: ``train/CLASS/...`` and ``test/CLASS/...``, or ``CLASS/...``, which is split."""

from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from pydantic import StrictBool

from fairtrial.errors import DataError
from fairtrial.files import open_regular, size_text
from fairtrial.registry import DATASETS
from fairtrial.spec.limits import LARGEST_DATA, MOST_DATA_FILES
from fairtrial.spec.messages import brief
from fairtrial.spec.numbers import Count, at_most
from fairtrial.spec.pinned import path_digest
from fairtrial.training.datasets.layout import Pixels
from fairtrial.training.datasets.raw import Part, RawData, changed

#: Formats that are read, by Pillow's names, and how files of theirs end.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
#: Pixels of one image before it is resized.
_MOST_PIXELS = 2**26
#: The folders of the test set, the first one that there is.
_TESTS = ("test", "val")


@DATASETS.register("image_folder")
class ImageFolder(RawData):
    """A folder of images by class: `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png`, which are split.

    Attributes:
        image_size: height and width in pixels; each image is scaled until its shorter side is as long, and the middle
            of it is taken. By default images are taken as they are, square and of one size.
        gray: read the images with one channel, not as red, green and blue.
    """

    needs_path: ClassVar[bool] = True

    image_size: Annotated[Count, at_most(1024)] | None = None
    gray: StrictBool = False

    def parts(self) -> tuple[Part, Part | None]:
        """See `RawData.parts`; classes are numbered in the order of the training folders' names."""
        path = Path(self.path or "").expanduser()
        if self.is_regression:
            raise DataError(f'{self.name}: its labels are classes; task = "regression" has no meaning')
        if not path.is_dir():
            raise DataError(f"{path}: not a folder")
        if self.path_sha256 and (found := _digest(path)) != self.path_sha256:
            raise changed(path, found, self.path_sha256)
        names = set(_entries(path))
        test = next((name for name in _TESTS if {"train", name} <= names), None)
        if test is None:
            return self._read(path, classes := _classes(path), classes), None
        classes = _classes(path / "train")
        return self._read(path / "train", classes, classes), self._read(path / test, _classes(path / test), classes)

    def _read(self, folder: Path, present: list[str], classes: list[str]) -> Part:
        paths, labels = list[Path](), list[int]()
        for name in present:
            if name not in classes:
                raise DataError(f"{folder / name}: there is no such class in train")
            found = [folder / name / file for file in _entries(folder / name)]
            if not found:
                raise DataError(f"{folder / name}: has no images")
            paths += found
            labels += [classes.index(name)] * len(found)
        if len(paths) > MOST_DATA_FILES:
            raise DataError(f"{folder}: has more than {MOST_DATA_FILES:,} images")
        size = self.image_size
        images = None
        for number, path in enumerate(paths):
            pixels = _pixels(path, self.image_size, gray=self.gray)
            size = size or pixels.shape[0]
            if pixels.shape[:2] != (size, size):
                here = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, not {size} x {size}"
                raise DataError(f"{path}: has {here}; set data.image_size, to which all images are scaled")
            if images is None:
                if len(paths) * pixels.nbytes > LARGEST_DATA:
                    raise DataError(
                        f"{folder}: its images take more than {size_text(LARGEST_DATA)}, the most that is read"
                    )
                images = np.empty((len(paths), *pixels.shape), np.uint8)
            images[number] = pixels
        return Part(np.empty((0, 1, 1, 1), np.uint8) if images is None else images, np.array(labels))


def _classes(folder: Path) -> list[str]:
    """The names of the folders in a folder, which has nothing else."""
    names = _entries(folder)
    for name in names:
        if not (folder / name).is_dir():
            raise DataError(f"{folder / name}: is no folder; images must be in the folder of their class")
    if len(names) < 2:
        raise DataError(f"{folder}: has {len(names)} folders of classes; there must be at least 2")
    return names


def _entries(folder: Path) -> list[str]:
    """The names in a folder, in order, but for hidden ones."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: can't be read ({error.strerror})") from error
    for name in names:
        if (folder / name).is_symlink():
            raise DataError(f"{folder / name}: is a link; put the file itself there")
    return names


def _digest(path: Path) -> str:
    try:
        return path_digest(path)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _pixels(path: Path, size: int | None, *, gray: bool) -> Pixels:
    """Decode an image: uint8 (height, width, channels)."""
    from PIL import Image, ImageOps  # noqa: PLC0415  (needed for images only)

    if path.suffix.lower() not in _ENDINGS:
        raise DataError(f"{path}: is no image; its name must end in {', '.join(_ENDINGS)}")
    try:
        with open_regular(path) as file, Image.open(file, formats=_FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise DataError(f"{path}: has {opened.width} x {opened.height} pixels, more than are read")
            if opened.mode.startswith(("I", "F")):  # which Pillow cuts off at 255
                raise DataError(f"{path}: has more than 8 bits a pixel; save it with 8")
            image: Image.Image = opened.convert("L" if gray else "RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: not a readable image ({brief(' '.join(str(error).split()), 200)})") from error
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels
