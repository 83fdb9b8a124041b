"""What a decoded data set must be: its arrays' names, types, shapes and digests."""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError

Pixels = NDArray[np.uint8]


class Arrays(NamedTuple):
    """A data set in its canonical form, whatever file format it came in.

    Images are uint8, (images, size, size, channels), rows from the top, red before green before blue; other inputs are
    float32 or int64, (rows, ...). Labels are class numbers from 0, (images,), uint8, or int64 for more than 256
    classes; for regression they are float32, (rows, targets).
    """

    train_images: NDArray[Any]
    train_labels: NDArray[Any]
    test_images: NDArray[Any]
    test_labels: NDArray[Any]


@dataclass(frozen=True)
class Layout:
    """The only shape and content that a data set in the cache may have; images are ``image_size`` pixels square.

    ``digest`` is SHA-256 over the bytes of the four arrays in order; ``array_digests``, of each, show which is damaged.
    Without them, the data set's decoder has checked the official files by their own digests, and the arrays' digests
    are those that were recorded when they were decoded.
    """

    name: str
    image_size: int
    train: int
    test: int
    digest: str = ""
    array_digests: tuple[str, ...] = ()
    channels: int = 3

    @property
    def image_bytes(self) -> int:
        """Bytes of one decoded image."""
        return self.image_size * self.image_size * self.channels

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array, by its name in `Arrays`."""
        image = (self.image_size, self.image_size, self.channels)
        shapes = ((self.train, *image), (self.train,), (self.test, *image), (self.test,))
        return dict(zip(Arrays._fields, shapes, strict=True))

    def empty(self) -> Arrays:
        """New arrays of the right shapes, for a decoder to fill."""
        return Arrays(*(np.empty(shape, np.uint8) for shape in self.shapes().values()))

    def check(self, arrays: Arrays, source: str) -> None:
        """Raise `DataError`, naming the source, unless the arrays are this data set to the bit, where that is known."""
        if self.digest and (found := digest(*arrays)) != self.digest:
            raise mismatch(source, self.name, found, self.digest)


def mismatch(source: str, name: str, found: str, wanted: str) -> DataError:
    """The error of arrays that are not those of a data set."""
    return DataError(
        f"{source}: these are not the images and labels of {name}: they decode to SHA-256 {found}, "
        f"which must be {wanted}"
    )


def digest(*arrays: NDArray[Any]) -> str:
    """SHA-256, in hexadecimal, over the bytes of arrays in C order, one after the other."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()
