"""What a decoded data set must be: its arrays' names, shapes and digests."""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError
from fairtrial.spec.sections import DataSettings

Pixels = NDArray[np.uint8]


class Arrays(NamedTuple):
    """A data set in its canonical form, whatever file format it came in.

    Images are uint8, (images, size, size, channels), rows from the top, red before green before blue. Labels are class
    numbers from 0, (images,), uint8, or int64 for more than 256 classes.
    """

    train_images: Pixels
    train_labels: Pixels
    test_images: Pixels
    test_labels: Pixels


@dataclass(frozen=True)
class Layout:
    """The only shape and content that a data set in the cache may have; images are RGB, ``image_size`` pixels square.

    ``digest`` is SHA-256 over the bytes of the four arrays in order; ``array_digests``, of each, show which is damaged.
    """

    name: str
    image_size: int
    train: int
    test: int
    digest: str
    array_digests: tuple[str, str, str, str]

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.image_size * self.image_size * 3

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array, by its name in `Arrays`."""
        image = (self.image_size, self.image_size, 3)
        shapes = ((self.train, *image), (self.train,), (self.test, *image), (self.test,))
        return dict(zip(Arrays._fields, shapes, strict=True))

    def empty(self) -> Arrays:
        """New arrays of the right shapes, for a decoder to fill."""
        return Arrays(*(np.empty(shape, np.uint8) for shape in self.shapes().values()))

    def check(self, arrays: Arrays, source: str) -> None:
        """Raise `DataError`, naming the source, unless the arrays are this data set to the bit."""
        if (found := digest(*arrays)) != self.digest:
            raise _mismatch(source, self.name, found, self.digest)


def checked(settings: DataSettings, *, verify: bool) -> tuple[Arrays, str]:
    """Read a data set that is not in the cache, check that its arrays are what its class declares, and hash them.

    Without ``verify``, a declared digest is returned unchecked.
    """
    read = [np.asarray(array) for array in settings.arrays()]
    for name, array in zip(Arrays._fields, read, strict=True):
        is_images = name.endswith("images")
        if is_images and not (array.dtype == np.uint8 and array.ndim in {3, 4} and array.shape[1] == array.shape[2]):
            wanted = "uint8 of shape (images, size, size) or (images, size, size, channels)"
            raise DataError(f"{settings.name}: {name} are {array.dtype} {array.shape}; they must be {wanted}")
        count = settings.size.train if name.startswith("train") else settings.size.test
        if len(array) != count:
            raise DataError(f"{settings.name}: {name} has {len(array):,} entries; its size says {count:,}")
        if not is_images:
            _check_labels(array, name, settings)
    if read[0].shape[1:] != read[2].shape[1:]:
        raise DataError(f"{settings.name}: training images are {read[0].shape[1:]}, test images {read[2].shape[1:]}")
    label_type = np.uint8 if len(settings.class_names) <= 256 else np.int64
    images = [array if array.ndim == 4 else array[..., np.newaxis] for array in (read[0], read[2])]
    arrays = Arrays(images[0], read[1].astype(label_type), images[1], read[3].astype(label_type))
    if settings.sha256 and not verify:
        return arrays, settings.sha256
    found = digest(*arrays)
    if settings.sha256 not in {"", found}:
        raise _mismatch(settings.origin()[1], settings.name, found, settings.sha256)
    return arrays, found


def _check_labels(labels: NDArray[Any], name: str, settings: DataSettings) -> None:
    classes = len(settings.class_names)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{settings.name}: {name} are {labels.dtype} {labels.shape}; they must be integers (images,)")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"{settings.name}: {name} run from {labels.min()} to {labels.max()}; with {classes} class names they must "
            f"be 0 to {classes - 1}"
        )


def _mismatch(source: str, name: str, found: str, wanted: str) -> DataError:
    return DataError(
        f"{source}: these are not the images and labels of {name}: they decode to SHA-256 {found}, "
        f"which must be {wanted}"
    )


def digest(*arrays: Pixels) -> str:
    """SHA-256, in hexadecimal, over the bytes of arrays in C order, one after the other."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).reshape(-1).data)
    return total.hexdigest()
