"""Data by path: what functions of a user's may give, and what they may not."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from fairtrial.errors import DataError, StudyError
from fairtrial.loading import load
from fairtrial.scheduler import plan
from fairtrial.training import datasets, loop, prepare
from fairtrial.training.datasets import own
from fairtrial.trial import TrialContext

MODULE = """
import numpy as np
import torch


def load(rows: int = 60, noise=0.1, path=None):
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    images = np.eye(3)[labels][:, :, None, None] + random.normal(0, noise, (rows, 3, 8, 8))
    return (images[10:], labels[10:]), (images[:10], labels[:10])


class Squares(torch.utils.data.Dataset):
    def __init__(self, rows=30):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        return torch.full((1, 6, 6), float(index % 2)), index % 2


def drawn(rows=30):
    labels = np.arange(rows) % 3
    return np.random.permutation(labels[:, None] * 1.0), labels


values = [1, 2]
"""
STUDY = """
name = "mine"
reference = "adam"
data = { name = "my_arrays:load", rows = 90, validation = 8 }
model = { name = "small_cnn", width = 4 }
training = { epochs = 1, batch_size = 16 }
[arms.adam]
[arms.noisy]
data.noise = 0.5
"""


def study_of(data):
    return f'name = "mine"\nreference = "a"\ndata = {data}\n[arms.a]\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_arrays.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    yield tmp_path
    sys.modules.pop("my_arrays", None)


def test_a_function_and_its_arguments(folder):
    study = load(folder / "study.toml")
    first, second = prepare.prepare(study)
    assert (len(first.train), len(first.test), len(first.validation)) == (72, 10, 8)
    assert (first.classes, first.channels, first.image_size) == (3, 3, 8)
    assert first.digest != second.digest
    trials = plan(study)
    assert len({trial.hash for trial in trials}) == 2
    for trial in trials:
        (record,) = loop.train(TrialContext(trial))
        assert {"train_acc", "test_acc", "val_acc"} < set(record)


def test_a_class_of_torch_data_sets_is_split(folder):
    (folder / "study.toml").write_text(study_of('{ name = "my_arrays:Squares" }'))
    dataset = datasets.load(load(folder / "study.toml").settings.data)
    assert (len(dataset.train), len(dataset.test), dataset.classes, dataset.channels) == (24, 6, 2, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('{name="my_arrays:load", row=3}', r"unknown key `row` in \[data\]: did you mean `rows`\?"),
        ('{name="my_arrays:load", rows="x"}', r"data\.rows.*must be an integer"),
        ('{name="my_arrays:values"}', "must be a function that gives arrays or torch data sets"),
        ('{name="my_arrays:loads"}', "my_arrays has no loads"),
        ('{name="my_arrays:load", path="nowhere"}', "data.path = .*: No such file or directory"),
    ],
)
def test_settings_that_can_not_be(folder, data, message):
    (folder / "study.toml").write_text(study_of(data))
    with pytest.raises(StudyError, match=message):
        load(folder / "study.toml")


X, Y = np.random.default_rng(0).random((30, 4)), np.arange(30) % 3
IMAGES = torch.randint(0, 256, (30, 3, 8, 8), dtype=torch.uint8)
PAIRS = [(X[index], int(Y[index])) for index in range(30)]


class Listed(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        item = self.items[index]
        return item() if callable(item) else item


def given(value, **settings):
    kind = own.adapt("my:data", lambda: value)
    return datasets.load(kind(name="my:data", **settings))


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        ((X, Y, X[:5], Y[:5]), (30, 5)),
        ([[X, Y], [X[:5], Y[:5]]], (30, 5)),
        ((torch.tensor(X), torch.tensor(Y)), (24, 6)),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}, (30, 30)),
        ({"data": X, "target": Y, "DESCR": "a text"}, (24, 6)),
        (TensorDataset(torch.tensor(X), torch.tensor(Y)), (24, 6)),
        ((Listed(PAIRS), Listed(PAIRS[:4])), (30, 4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_may_be_given(value, sizes):
    dataset = given(value)
    assert (len(dataset.train), len(dataset.test)) == sizes
    inputs, labels = dataset.train.batch(torch.tensor([0, 1]))
    assert (inputs.dtype, tuple(inputs.shape), labels.dtype) == (torch.float32, (2, 4), torch.int64)
    assert (dataset.classes, dataset.channels, dataset.image_size) == (3, 4, 1)


def test_images_and_tokens():
    dataset = given((IMAGES, Y))
    assert torch.equal(dataset.train.pixels, given((IMAGES.permute(0, 2, 3, 1).numpy(), Y)).train.pixels)
    assert dataset.train.batch(torch.tensor([0]))[0].shape == (1, 3, 8, 8)
    floats = given((IMAGES.float() / 255, Y))
    assert torch.equal(floats.train.batch(torch.tensor([3]))[0], dataset.train.batch(torch.tensor([3]))[0])
    tokens = given((np.arange(60).reshape(30, 2), Y))
    assert (tokens.train.pixels.dtype, tokens.channels, tokens.image_size) == (torch.int64, 2, 1)


def test_numbers_to_predict():
    dataset = given((X, X @ np.ones(4)), task="regression")
    assert (dataset.classes, dataset.train.labels.dtype, dataset.train.labels.shape) == (1, torch.float32, (24, 1))


class Stream(IterableDataset):
    def __iter__(self):
        yield X[0], 0


def with_(array, where, value):
    changed = array.astype(float)
    changed[where] = value
    return changed


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "gave NoneType; it must give"),
        ((X, Y, X), "gave 3 things; it must give"),
        ((X, Y[:-1]), "30 inputs, but 29 labels"),
        ((X, Y, X, Y[:-1]), r"test_images \(30, 4\) and test_labels \(29,\)"),
        ((X, Y, X[:, :3], Y), r"training images are float32 \(4,\), test images float32 \(3,\)"),
        ((with_(X, (7, 1), np.nan), Y, X, Y), "train_images have NaN in 1 of 30 rows, first in row 7"),
        ((X, Y, with_(X, 3, np.inf), Y), "test_images have an infinity, .* in 1 of 30 rows, first in row 3"),
        ((with_(X, 7, np.nan), Y), "inputs have NaN in 1 of 30 rows, first in row 7"),
        ((with_(X, 0, 1e300), Y, X, Y), "a number too large for float32"),
        ((X, Y + 1, X, Y), "train_labels run to 3, and none is 0; number them from 0"),
        ((X, Y - 1, X, Y), "train_labels run from -1 to 1; they must begin with 0"),
        ((X, Y * 2, X, Y), "train_labels run to 4, and none is 1"),
        ((X, Y, X, Y + 1), "test_labels run to 3, train_labels to 2"),
        ((X, Y * 0, X, Y * 0), "train_labels are all 0; there is nothing to tell apart"),
        ((X, Y + 0.5, X, Y), 'they must be integers .*; for numbers to predict, set task = "regression"'),
        ((X, np.eye(3)[Y], X, Y), r"train_labels are float64 \(30, 3\); they must be integers"),
        ((X[:, 0], Y, X[:, 0], Y), r"train_images are float64 \(30,\); they must be uint8 images, floats or"),
        ((X.astype(object), Y, X, Y), r"train_images are object"),
        ((X.astype(complex), Y, X, Y), r"train_images are complex128"),
        ((np.zeros((30, 8, 8, 3)), Y, X, Y), "with the channels last; give floats as"),
        ((np.zeros((30, 8, 9, 3), np.uint8), Y, X, Y), "they must be uint8 of shape"),
        ((X[:0], Y[:0], X, Y), "train_images is empty"),
        ((X[:1], Y[:1]), "1 rows can't be split"),
        (Stream(), "gave Stream without a length; it must fit in memory"),
        (Listed([X[0]]), "item 0 of Listed is no pair"),
        (
            Listed([(X[0], 0), (X[0, :3], 0)]),
            r"item 1 has another shape than the others: \(3,\), that of item 0 \(4,\)",
        ),
        (Listed([]), "gave Listed without items"),
        (Listed([lambda: (np.random.rand(4), 0)] * 9), "item 0 of Listed is another one each time"),  # noqa: NPY002
        ({"a": X}, "has the arrays 'a'; it must have"),
        ((Listed(PAIRS), 3), "gave int where a pair"),
    ],
)
def test_what_may_not_be_given(value, message):
    with pytest.raises(DataError, match=message) as caught:
        given(value)
    assert str(caught.value).startswith("my:data: ")
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_classes_that_were_declared():
    assert given((X, Y), classes=5).classes == 5
    with pytest.raises(DataError, match="train_labels run from 0 to 2; with 2 classes they must be 0 to 1"):
        given((X, Y), classes=2)


def test_data_that_are_drawn_anew_in_each_call(folder):
    """Each worker calls the function, so the trials of a seed would not share them."""
    (folder / "drawn.toml").write_text(study_of('{ name = "my_arrays:drawn" }'))
    study = load(folder / "drawn.toml")
    with pytest.raises(DataError, match="my_arrays:drawn: gives other data each time; seed the random numbers"):
        datasets.load(study.arms[0].settings.data)
