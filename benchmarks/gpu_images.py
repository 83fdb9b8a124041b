"""Random images of CIFAR-10's shapes, for measurements that need no data set."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def random_images(train: int = 50_000, test: int = 10_000) -> tuple[NDArray[Any], ...]:
    """Draw images and labels, the same each time."""
    random = np.random.Generator(np.random.PCG64(0))

    def draw(images: int) -> tuple[NDArray[Any], NDArray[Any]]:
        pixels = random.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8)
        return pixels, np.arange(images, dtype=np.int64) % 10

    return (*draw(train), *draw(test))
