"""Batches: the right images, in [0, 1], channels last."""

import warnings

import numpy as np
import pytest
import torch

from fairtrial.training.datasets import cache
from fairtrial.training.datasets.cifar10 import Cifar10
from fairtrial.training.datasets.dataset import assemble
from fairtrial.training.datasets.download import silent


@pytest.fixture
def mapped(mini, cache_root):
    with cache.fetching("cifar10", silent):
        cache.write(mini.layout, mini.arrays, "a test")
    return cache.read(mini.layout, verify=False)


def test_a_batch_is_the_bytes_divided_by_255(mini, mapped):
    indices = torch.tensor([99, 0, 17, 17])
    images, labels = assemble(Cifar10(), mapped, mini.layout.digest).train.batch(indices)
    expected = mini.arrays.train_images[indices].transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(images.numpy(), expected)
    np.testing.assert_array_equal(labels.numpy(), mini.arrays.train_labels[indices])
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert images.shape == (4, 3, 4, 4)


def test_every_byte_ends_in_the_unit_interval(mini):
    ramp = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 4, 4, 3)
    dataset = assemble(Cifar10(), mini.arrays._replace(train_images=ramp), mini.layout.digest)
    images, _ = dataset.train.batch(torch.arange(16))
    values = images.permute(0, 2, 3, 1).reshape(256, 3)
    assert torch.equal(values[:, 0], torch.arange(256) / 255)
    assert (values.min(), values.max()) == (0, 1)


def test_a_subset_looks_into_the_shared_map(mini, mapped):
    whole = assemble(Cifar10(), mapped, mini.layout.digest)
    some = assemble(Cifar10(train=30, test=10, validation=20), mapped, mini.layout.digest)
    assert (len(some.train), len(some.test), len(some.validation)) == (30, 10, 20)
    for part, of in ((some.train, whole.train), (some.validation, whole.train), (some.test, whole.test)):
        assert part.pixels.data_ptr() == of.pixels.data_ptr()
        everything = torch.arange(len(part))
        images, labels = part.batch(everything)
        expected_images, expected_labels = of.batch(part.index)
        assert torch.equal(images, expected_images)
        assert torch.equal(labels, expected_labels)
        assert torch.equal(part.labels, labels)
        assert torch.equal(part.images, of.pixels[part.index])


def test_the_pixels_are_the_map_itself(mini, mapped):
    train = assemble(Cifar10(), mapped, mini.layout.digest).train
    assert train.images.data_ptr() == mapped.train_images.ctypes.data
    assert (train.images.dtype, train.images.shape) == (torch.uint8, (100, 4, 4, 3))


def test_a_batch_is_a_copy(mini, mapped):
    train = assemble(Cifar10(), mapped, mini.layout.digest).train
    train.batch(torch.arange(5))[0].zero_()
    np.testing.assert_array_equal(train.images.numpy(), mini.arrays.train_images)


def test_torch_has_nothing_to_warn_of(mini, mapped):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assemble(Cifar10(train=10), mapped, mini.layout.digest)


@pytest.mark.parametrize("index", [-101, 100])
def test_positions_outside_the_set_are_errors(mini, mapped, index):
    with pytest.raises((IndexError, RuntimeError)):
        assemble(Cifar10(), mapped, mini.layout.digest).train.batch(torch.tensor([index]))


def test_the_description(mini, mapped):
    dataset = assemble(Cifar10(), mapped, mini.layout.digest)
    assert (dataset.classes, dataset.train.pixels.shape[1:]) == (10, (4, 4, 3))
    assert dataset.digest == mini.layout.digest
    assert dataset.validation is None
