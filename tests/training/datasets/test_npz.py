"""NumPy's files: what is in them, and what must not be read."""

import io
import zipfile

import numpy as np
import pytest

from fairtrial.errors import DataError, StudyError
from fairtrial.spec import Study
from fairtrial.training import datasets, prepare
from fairtrial.training.datasets.npz import Npz, read_npz

IMAGES, LABELS = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 3), np.uint8), np.arange(12) % 3


def packed(**members):
    """A .npz file with members of any content."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def header(shape, descr="'<f8'"):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_both_parts(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:3], y_test=LABELS[:3])
    dataset = datasets.load(Npz(path=str(tmp_path / "a.npz")))
    assert np.array_equal(dataset.train.images, IMAGES)
    assert np.array_equal(dataset.test.labels, LABELS[:3])
    assert dataset.classes == 3


def test_one_part_that_is_split(tmp_path):
    numbers = np.random.default_rng(0).random((50, 4))
    np.savez(tmp_path / "a.npz", X=numbers, y=numbers @ np.ones((4, 2)))
    dataset = datasets.load(Npz(path=str(tmp_path / "a.npz"), task="regression"))
    assert (len(dataset.train), len(dataset.test), dataset.classes, dataset.channels) == (40, 10, 2, 4)
    assert dataset.train.labels.shape == (40, 2)


def test_labels_that_are_texts_are_numbered_in_their_order(tmp_path):
    np.savez(
        tmp_path / "a.npz", x_train=IMAGES, y_train=np.array(["b", "a", "c"] * 4), x_test=IMAGES, y_test=["c"] * 12
    )
    dataset = datasets.load(Npz(path=str(tmp_path / "a.npz")))
    assert dataset.train.labels[:3].tolist() == [1, 0, 2]
    assert set(dataset.test.labels.tolist()) == {2}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip", "not a readable .npz file"),
        (packed(x=b"no array"), "not a NumPy array"),
        (packed(x=header("(10**12,)")), "not a NumPy array"),
        (packed(x=header("(1000000000000,)")), r"its header says float64 \(1000000000000,\), but there are 0 bytes"),
        (packed(x=header("(-1,)") + bytes(8)), r"its header says float64 \(-1,\), but there are 8 bytes"),
        (packed(x=header("(1,)", "'|O'") + bytes(8)), "is an array of Python objects, which are not unpickled"),
        (packed(**{f"x{number}": b"" for number in range(101)}), "has more than 100 arrays and 2 GiB when unpacked"),
    ],
)
def test_files_made_to_mislead(content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_npz(content, "x.npz")
    assert str(caught.value).startswith("x.npz")
    assert "\n" not in str(caught.value)


def test_members_that_unpack_without_end(monkeypatch):
    content = packed(x=bytes(10**6))
    monkeypatch.setattr("fairtrial.training.datasets.npz.LARGEST_DATA", 10**5)
    with pytest.raises(DataError, match="when unpacked, the most that is read"):
        read_npz(content, "x.npz")


def test_names_that_say_nothing(tmp_path):
    np.savez(tmp_path / "a.npz", a=IMAGES, b=LABELS)
    with pytest.raises(
        DataError, match=r"has the arrays 'a', 'b'; it must have x_train, y_train, x_test, y_test or x, y"
    ):
        datasets.load(Npz(path=str(tmp_path / "a.npz")))


def test_a_path_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    study = Study(name="s", reference="a", data={"name": "npz", "path": "~/a.npz"}, arms={"a": {}})
    assert len(datasets.load(study.arms[0].settings.data).train) == 10


@pytest.mark.parametrize(("shape", "model"), [((40, 1, 8, 6), "mlp"), ((40, 3, 2, 2), "small_cnn")])
def test_images_that_a_model_cant_take_are_one_line_before_any_training(tmp_path, shape, model):
    np.savez(tmp_path / "a.npz", x=np.ones(shape, np.float32), y=np.arange(40) % 2)
    study = Study(
        name="s",
        reference="a",
        data={"name": "npz", "path": str(tmp_path / "a.npz")},
        model={"name": model},
        training={"batch_size": 8},
        arms={"a": {}},
    )
    with pytest.raises(StudyError, match=f'model.name = "{model}": fails on inputs of shape'):
        prepare.prepare(study)
