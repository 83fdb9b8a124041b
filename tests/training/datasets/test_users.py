"""Data of the user's own, named by its import path."""

import sys

import numpy as np
import pytest

from fairtrial.errors import DataError, StudyError
from fairtrial.loading import load
from fairtrial.registry import DATASETS
from fairtrial.scheduler import plan
from fairtrial.training import datasets, loop, prepare
from fairtrial.training.datasets.layout import digest
from fairtrial.training.machine import describe_machine
from fairtrial.trial import TrialContext

MODULE = '''
import numpy as np

from fairtrial import DataSettings, DataSize


class FashionLike(DataSettings):
    """Gray images of ten kinds of clothes, 28x28."""

    size = DataSize(train=60, test=20)
    class_names = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")

    def arrays(self):
        with np.load(self.path) as file:
            return tuple(file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
'''
STUDY = """
name = "fashion"
reference = "adam"
[data]
name = "my_data:FashionLike"
path = "fashion.npz"
train = 40
validation = 10
[model]
width = 0.1
[training]
epochs = 1
batch_size = 20
[arms.adam]
[arms.sgd]
optimizer.name = "sgd"
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study, a module with its data set, and a file of arrays, in one folder."""
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (60, 28, 28), np.uint8),
        "y_train": np.arange(60) % 10,
        "x_test": random.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": np.arange(20) % 10,
    }
    (tmp_path / "my_data.py").write_text(MODULE)
    (tmp_path / "study.toml").write_text(STUDY)
    np.savez(tmp_path / "fashion.npz", **arrays)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_data", None)


def test_a_study_trains_on_it(folder):
    study = load(folder / "study.toml")
    (dataset,) = prepare.prepare(study)
    assert (dataset.classes, dataset.train.pixels.shape[1:]) == (10, (28, 28, 1))
    assert (len(dataset.train), len(dataset.test), len(dataset.validation)) == (40, 20, 10)
    for trial in plan(study):
        (record,) = loop.train(TrialContext(trial))
        assert np.isfinite([record["train_loss"], record["test_loss"], record["val_loss"]]).all()
        with np.load(folder / "fashion.npz") as file:
            images, labels = file["x_train"], file["y_train"].astype(np.uint8)
            tests, answers = file["x_test"], file["y_test"].astype(np.uint8)
        assert describe_machine(trial).data == digest(images, labels, tests, answers) == dataset.digest


def test_its_place_is_no_part_of_the_hash(folder):
    study = load(folder / "study.toml")
    assert study.settings.data.path == str(folder / "fashion.npz")
    (folder / "fashion.npz").rename(folder / "moved.npz")
    assert load(folder / "study.toml", ["data.path=moved.npz"]).hash == study.hash


def test_counts_are_checked_before_anything_is_read(folder):
    with pytest.raises(StudyError, match=r"data: train \+ validation = 61: my_data:FashionLike has 60 training images"):
        load(folder / "study.toml", ["data.train=51"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"x_train": np.zeros((60, 28, 28))},
            r"training images are float32 \(28, 28\), test images uint8 \(28, 28, 1\)",
        ),
        ({"x_train": np.zeros(60, np.uint8)}, r"train_images are uint8 \(60,\); they must be uint8 images, floats or"),
        ({"x_test": np.zeros((20, 28, 27), np.uint8)}, r"test_images are uint8 \(20, 28, 27\); they must be uint8"),
        (
            {"x_test": np.zeros((20, 32, 32), np.uint8)},
            r"training images are uint8 \(28, 28, 1\), test images uint8 \(32, 32, 1\)",
        ),
        ({"y_train": np.zeros(59, int)}, "train_labels has 59 entries; its size says 60"),
        ({"y_test": np.zeros(20)}, r"test_labels are float64 \(20,\); they must be integers"),
        ({"y_test": np.full(20, 10)}, "test_labels run from 10 to 10; with 10 classes they must be 0 to 9"),
        ({"y_test": np.full(20, -1)}, "test_labels run from -1 to -1"),
    ],
)
def test_arrays_that_are_not_what_the_class_says(folder, change, message):
    study = load(folder / "study.toml")
    with np.load(folder / "fashion.npz") as file:
        arrays = dict(file)
    np.savez(folder / "fashion.npz", **arrays | change)
    with pytest.raises(DataError, match=message) as caught:
        datasets.load(study.settings.data)
    assert str(caught.value).startswith("my_data:FashionLike: ")


def test_a_stated_digest_is_checked_once_a_study(folder, monkeypatch):
    study = load(folder / "study.toml")
    found = datasets.load(study.settings.data).digest
    monkeypatch.setattr(DATASETS.get("my_data:FashionLike"), "sha256", found)
    assert datasets.load(study.settings.data).digest == found
    monkeypatch.setattr(DATASETS.get("my_data:FashionLike"), "sha256", "0" * 64)
    with pytest.raises(DataError, match=f"my_data: these are not the images .* SHA-256 {found}, which must be 000"):
        datasets.load(study.settings.data)
    assert datasets.load(study.settings.data, verify=False).digest == "0" * 64  # a worker trusts what was checked
