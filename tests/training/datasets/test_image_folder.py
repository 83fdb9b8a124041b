"""A folder of images by class, and what else people and attackers put there."""

import os

import numpy as np
import pytest
from PIL import Image

from fairtrial.errors import DataError
from fairtrial.training import datasets
from fairtrial.training.datasets import image_folder
from fairtrial.training.datasets.image_folder import ImageFolder

RANDOM = np.random.default_rng(0)


def picture(path, size=(6, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.fixture
def folder(tmp_path):
    """Two classes, split; and the pixels by path."""
    names = [f"{part}/{kind}/{number}.png" for part in ("train", "test") for kind in ("cat", "ant") for number in "21"]
    return tmp_path / "f", {name: picture(tmp_path / "f" / name) for name in names}


def load(folder, **settings):
    return datasets.load(ImageFolder(path=str(folder), **settings))


def test_classes_and_images_in_the_order_of_their_names(folder):
    path, pixels = folder
    (path / ".DS_Store").write_bytes(b"x")
    dataset = load(path)
    names = ["ant/1.png", "ant/2.png", "cat/1.png", "cat/2.png"]
    for part, found in (("train", dataset.train), ("test", dataset.test)):
        assert np.array_equal(found.images, np.stack([pixels[f"{part}/{name}"] for name in names]))
        assert found.labels.tolist() == [0, 0, 1, 1]
    assert (dataset.classes, dataset.image_size, dataset.channels) == (2, 6, 3)


def test_without_a_split(folder):
    dataset = load(folder[0] / "train", test_share=0.5)
    assert (len(dataset.train), len(dataset.test)) == (2, 2)
    assert sorted(dataset.test.labels.tolist()) == [0, 1]


def test_images_of_other_sizes_are_scaled_and_cut(folder):
    path, _ = folder
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = 200  # the middle
    Image.fromarray(wide).save(path / "train/ant/1.png")
    with pytest.raises(DataError, match=r"1\.png: has 16 x 8 pixels, not 8 x 8; set data\.image_size"):
        load(path)
    dataset = load(path, image_size=4, gray=True)
    assert dataset.train.pixels.shape == (4, 4, 4, 1)
    assert (dataset.train.images[0, :, 1:3] == 200).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "train/ant/notes.txt").write_text("x"), r"notes\.txt: is no image; its name must end in"),
        (lambda path: (path / "train/ant/1.png").write_text("x"), r"1\.png: not a readable image"),
        (lambda path: (path / "train/ant/1.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"1\.png: not a readable image"),
        (lambda path: (path / "train/readme").write_text("x"), "readme: is no folder; images must be in the folder of"),
        (lambda path: (path / "train/empty").mkdir(), "empty: has no images"),
        (lambda path: (path / "test/ant").rename(path / "test/bee"), "bee: there is no such class in train"),
        (lambda path: (path / "train/ant/3.png").symlink_to(path / "train/ant/1.png"), r"3\.png: is a link"),
        (lambda path: os.mkfifo(path / "train/ant/3.png"), r"not a regular file|not a readable image"),
        (lambda path: picture(path / "train/ant/3.png", (5, 5)), r"3\.png: has 5 x 5 pixels, not 6 x 6"),
    ],
)
def test_what_else_may_be_there(folder, spoil, message):
    spoil(folder[0])
    with pytest.raises(DataError, match=message) as caught:
        ImageFolder(path=str(folder[0])).arrays()
    assert "\n" not in str(caught.value)


def test_limits(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "_MOST_PIXELS", 30)
    with pytest.raises(DataError, match="has 6 x 6 pixels, more than are read"):
        load(folder[0])
    monkeypatch.undo()
    monkeypatch.setattr(image_folder, "LARGEST_DATA", 100)
    with pytest.raises(DataError, match="its images take more than 100 bytes"):
        load(folder[0])


def test_it_is_a_folder_of_classes(tmp_path, folder):
    (tmp_path / "x").write_text("x")
    with pytest.raises(DataError, match="not a folder"):
        load(tmp_path / "x")
    picture(tmp_path / "one" / "cat" / "1.png")
    with pytest.raises(DataError, match="has 1 folders of classes; there must be at least 2"):
        load(tmp_path / "one")
    with pytest.raises(DataError, match='its labels are classes; task = "regression" has no meaning'):
        load(folder[0], task="regression")


def test_images_of_16_bits(folder):
    path, _ = folder
    Image.fromarray(np.full((6, 6), 40_000, np.uint16)).save(path / "train/ant/1.png")
    with pytest.raises(DataError, match=r"ant/1\.png: has more than 8 bits a pixel; save it with 8"):
        load(path)
