"""CIFAR-100's python version, on small files in the official format."""

import hashlib

import numpy as np
import pytest

from fairtrial.errors import DataError
from fairtrial.training import datasets
from fairtrial.training.datasets.cifar100 import Cifar100
from fairtrial.training.datasets.layout import Layout


@pytest.fixture
def contents(mini, monkeypatch, cache_root):
    """The files train and test, of 20 images each, which "cifar100" is said to consist of."""
    batches = mini.files("python")
    files = {
        name: batches[batch].replace(b"U\x06labels", b"U\x0bfine_labels")
        for name, batch in (("train", "data_batch_1"), ("test", "test_batch"))
    }
    published = {name: hashlib.md5(one, usedforsecurity=False).hexdigest() for name, one in files.items()}
    monkeypatch.setattr(Cifar100, "published", published)
    monkeypatch.setattr(Cifar100, "layout", Layout("cifar100", 4, 20, 20))
    monkeypatch.setattr(Cifar100, "size", type(Cifar100.size)(20, 20))
    return files


@pytest.mark.parametrize("inside", ["", "cifar-100-python"])
def test_a_folder_of_the_users(contents, mini, tmp_path, inside):
    folder = tmp_path / "mine" / inside
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    datasets.fetch("cifar100", source=tmp_path / "mine")
    dataset = datasets.load(Cifar100())
    assert np.array_equal(dataset.train.images, mini.arrays.train_images[:20])
    assert np.array_equal(dataset.train.labels, mini.arrays.train_labels[:20])
    assert np.array_equal(dataset.test.images, mini.arrays.test_images)
    assert dataset.classes == 100


def test_other_files(contents, tmp_path):
    (tmp_path / "train").write_bytes(contents["train"][:-1] + b"!")
    with pytest.raises(DataError, match=r"lacks the files train and test of CIFAR-100's python version$"):
        datasets.fetch("cifar100", source=tmp_path)
    (tmp_path / "test").write_bytes(contents["test"])
    with pytest.raises(DataError, match="train: is another file: its MD5 is"):
        datasets.fetch("cifar100", source=tmp_path)


def test_its_classes():
    assert len(set(Cifar100.class_names)) == 100
    assert list(Cifar100.class_names) == sorted(Cifar100.class_names)  # as in the official file meta
