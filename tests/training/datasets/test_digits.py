"""The digits: scaled, upsampled and split by rules of our own."""

import numpy as np
from sklearn.datasets import load_digits

from fairtrial.training.datasets import digits
from fairtrial.training.datasets.layout import digest


def test_the_digest_in_the_code():
    arrays = digits.Digits().arrays()
    assert digest(*arrays) == digits.Digits.sha256
    assert (len(arrays.train_images), len(arrays.test_images)) == digits.Digits.size
    assert arrays.train_images.shape[1:] == (32, 32, 3)


def test_every_image_is_there_once_and_keeps_its_pixels():
    arrays = digits.Digits().arrays()
    source = load_digits()
    small = [images[:, ::4, ::4, 0] for images in (arrays.train_images, arrays.test_images)]
    ours = sorted(image.tobytes() for part in small for image in part)
    theirs = np.floor(source.images * 255 / 16 + 0.5).astype(np.uint8)
    assert ours == sorted(image.tobytes() for image in theirs)
    for images, part in zip((arrays.train_images, arrays.test_images), small, strict=True):
        enlarged = np.kron(part, np.ones((1, 4, 4), np.uint8))
        for channel in range(3):
            np.testing.assert_array_equal(images[..., channel], enlarged)


def test_the_split_is_stratified():
    arrays = digits.Digits().arrays()
    test = np.bincount(arrays.test_labels)
    everything = test + np.bincount(arrays.train_labels)
    assert np.abs(test - everything / 5).max() < 1
