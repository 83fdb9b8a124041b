"""The split of data that have none, and data files that are pinned by their digests."""

import numpy as np
import pytest

from fairtrial.errors import DataError, StudyError
from fairtrial.spec import Study
from fairtrial.training import datasets
from fairtrial.training.datasets.npz import Npz
from fairtrial.training.datasets.raw import test_rows as rows_to_test


def test_each_class_has_its_share_of_the_test_rows():
    labels = np.repeat([0, 1, 2], [500, 50, 10])
    chosen = rows_to_test(labels, 0.2, 0, stratified=True)
    assert [int(chosen[labels == one].sum()) for one in range(3)] == [100, 10, 2]
    assert not np.array_equal(chosen, rows_to_test(labels, 0.2, 1, stratified=True))
    assert np.array_equal(chosen, rows_to_test(labels, 0.2, 0, stratified=True))


def test_regression_splits_at_random():
    numbers = np.linspace(0, 1, 1000)[:, None]
    chosen = rows_to_test(numbers, 0.25, 0, stratified=False)
    assert chosen.sum() == 250
    assert 0.4 < numbers[chosen].mean() < 0.6


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("one.npz", "two.npz"):
        np.savez(name, x=random.random((30, 4)), y=np.arange(30) % 3)


def study(**arms):
    data = {"name": "npz", "path": "one.npz"}
    return Study(name="s", reference="a", data=data, arms=arms or {"a": {}, "b": {"data": {"path": "two.npz"}}})


@pytest.mark.usefixtures("files")
def test_another_file_is_another_study_wherever_it_is(tmp_path):
    first = study()
    digests = [arm.settings.data.path_sha256 for arm in first.arms]
    assert len(set(digests)) == 2
    (tmp_path / "one.npz").rename("moved.npz")
    (tmp_path / "two.npz").rename("one.npz")
    moved = study(a={"data": {"path": "moved.npz"}}, b={})
    assert [arm.settings.data.path_sha256 for arm in moved.arms] == digests
    assert Study.from_toml(first.to_toml()) == first  # without reading a file anew
    assert Study.from_toml(first.to_toml()).hash == first.hash


@pytest.mark.usefixtures("files")
def test_an_arm_that_reads_the_same_path_as_other_data_is_pinned_too():
    made = study(a={}, b={"data": {"name": "image_folder"}}, c={"data": {"train": 9}})
    assert len({arm.settings.data.path_sha256 for arm in made.arms}) == 1
    assert made.settings.data.path_sha256 is not None
    assert Study.from_toml(made.to_toml()).hash == made.hash


@pytest.mark.usefixtures("files")
def test_a_file_that_changes_is_found_when_it_is_read(tmp_path):
    settings = study().settings.data
    (tmp_path / "two.npz").replace("one.npz")
    with pytest.raises(DataError, match=r"^one\.npz: its SHA-256 is .*, as data\.path_sha256 states$"):
        datasets.load(settings)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "none.npz"}, r'data\.path = "none\.npz": No such file or directory'),
        ({"path": "/dev/zero"}, r'data\.path = "/dev/zero": not a regular file'),
        ({}, 'path is missing: name = "npz" reads a file or folder of yours'),
        ({"path": "one.npz", "task": "regression", "classes": 3}, "there are no classes to count"),
        ({"path": "one.npz", "augment": "crops"}, r"data\.augment = .*: did you mean `crop`\?"),
        ({"path": "one.npz", "augment": 3}, "must be a list of names, such as"),
    ],
)
@pytest.mark.usefixtures("files")
def test_settings_that_can_not_be(data, message):
    with pytest.raises(StudyError, match=message):
        Study(name="s", reference="a", data={"name": "npz", **data}, arms={"a": {}, "b": {"optimizer": {"lr": 0.1}}})


@pytest.mark.usefixtures("files")
def test_counts_are_checked_once_the_data_are_there():
    with pytest.raises(DataError, match=r"^data\.train \+ validation = 30: npz has 24 training images$"):
        datasets.load(Npz(path="one.npz", train=20, validation=10))


def test_there_is_nothing_to_fetch():
    with pytest.raises(DataError, match=r"^npz: reads what a study names as data\.path; there is nothing to fetch$"):
        datasets.fetch("npz")
