"""What a decoded data set must be: its arrays' names, shapes and digests."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError

Pixels = NDArray[np.uint8]


class Arrays(NamedTuple):
    """A data set in its canonical form, whatever file format it came in. All arrays are uint8.

    Attributes:
        train_images: (train, size, size, 3), rows from the top, red before green before blue.
        train_labels: (train,), class numbers from 0.
        test_images: (test, size, size, 3).
        test_labels: (test,).
    """

    train_images: Pixels
    train_labels: Pixels
    test_images: Pixels
    test_labels: Pixels


@dataclass(frozen=True)
class Layout:
    """The one shape and content that a data set may have.

    Attributes:
        name: the data set's name in a study file.
        class_names: what the labels 0, 1, ... stand for.
        image_size: height and width in pixels.
        train: number of training images.
        test: number of test images.
        digest: SHA-256 over the bytes of the four arrays, one after the other in the order of `Arrays`.
        array_digests: SHA-256 of each array, so that a damaged one can be named.
    """

    name: str
    class_names: tuple[str, ...]
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
        return dict(
            zip(
                Arrays._fields,
                ((self.train, *image), (self.train,), (self.test, *image), (self.test,)),
                strict=True,
            )
        )

    def empty(self) -> Arrays:
        """New arrays of the right shapes, for a decoder to fill."""
        return Arrays(*(np.empty(shape, np.uint8) for shape in self.shapes().values()))

    def check(self, arrays: Arrays, where: str) -> None:
        """Hold decoded arrays against the digest.

        Args:
            arrays: what a decoder made.
            where: the source they came from, for the message.

        Raises:
            DataError: the arrays are not this data set to the bit.
        """
        found = digest(*arrays)
        if found != self.digest:
            raise DataError(
                f"{where}: these are not the images and labels of {self.name}: "
                f"they decode to SHA-256 {found}, which must be {self.digest}"
            )


def digest(*arrays: Pixels) -> str:
    """SHA-256, in hexadecimal, over the bytes of arrays in C order, one after the other."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).reshape(-1).data)
    return total.hexdigest()
