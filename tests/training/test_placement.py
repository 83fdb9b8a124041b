"""Data on a device: here torch's "meta" device, which has shapes and no values."""

import torch

from fairtrial.training.datasets import Dataset, ImageSet
from fairtrial.training.placement import on_device

META = torch.device("meta")


def image_set(pixels, index=None):
    return ImageSet(pixels, index, torch.zeros(len(pixels if index is None else index), dtype=torch.int64))


def test_parts_that_share_their_images_share_them_on_the_device():
    pixels = torch.zeros(10, 4, 4, 3, dtype=torch.uint8)
    parts = (
        image_set(pixels, torch.arange(6)),
        image_set(torch.zeros_like(pixels)),
        image_set(pixels, torch.arange(4)),
    )
    moved = on_device(Dataset(10, "d", *parts), META)
    assert moved.train.pixels is moved.validation.pixels
    assert moved.train.pixels is not moved.test.pixels
    assert [one.device for one in (moved.train.pixels, moved.train.index, moved.test.labels)] == [META] * 3
    assert [len(one) for one in (moved.train, moved.test, moved.validation)] == [6, 10, 4]
    assert moved.test.index is None


def test_arrays_that_begin_at_one_place_stay_apart():
    """A user's data may be slices of one array."""
    pixels = torch.zeros(10, 4, 4, 3, dtype=torch.uint8)
    moved = on_device(Dataset(10, "d", image_set(pixels[:8]), image_set(pixels), None), META)
    assert (len(moved.train.pixels), len(moved.test.pixels)) == (8, 10)
