"""Every form of CIFAR-10 decodes to the same arrays; whatever is wrong with one is said in one line."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairtrial.errors import DataError
from fairtrial.training.datasets.cifar10 import Cifar10
from fairtrial.training.datasets.layout import digest

pytestmark = pytest.mark.usefixtures("miniature_layout")

FORMS = {"python": "cifar-10-batches-py", "binary": "cifar-10-batches-bin", "png": "package"}


@pytest.mark.parametrize("form", FORMS)
class TestForms:
    def test_folder(self, mini, form, tmp_path):
        arrays = Cifar10.decode(mini.folder(form, tmp_path))
        assert digest(*arrays) == mini.layout.digest

    def test_one_level_down(self, mini, form, tmp_path):
        mini.folder(form, tmp_path / FORMS[form])
        assert digest(*Cifar10.decode(tmp_path)) == mini.layout.digest

    def test_archive(self, mini, form, tmp_path):
        archive = mini.archive(form, tmp_path / "a.tar.gz")
        assert digest(*Cifar10.decode(archive)) == mini.layout.digest

    def test_a_missing_file_is_named(self, mini, form, tmp_path):
        mini.folder(form, tmp_path)
        gone = next(tmp_path.glob("data_batch_3*"))
        gone.unlink()
        for look in (Cifar10.check, Cifar10.decode):
            with pytest.raises(DataError, match=f"lacks {gone.name} of CIFAR-10's"):
                look(tmp_path)

    def test_a_truncated_file_is_named(self, mini, form, tmp_path):
        mini.folder(form, tmp_path)
        short = next(tmp_path.glob("test_batch*"))
        short.write_bytes(short.read_bytes()[:-30])
        with pytest.raises(DataError, match=short.name) as caught:
            Cifar10.decode(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_file_far_too_big_is_not_read(self, mini, form, tmp_path):
        mini.folder(form, tmp_path)
        big = next(tmp_path.glob("data_batch_1*"))
        big.write_bytes(bytes(2**21))
        with pytest.raises(DataError, match=rf"{big.name}: can.t be read \(has more than 1 MiB"):
            Cifar10.decode(tmp_path)


def test_a_changed_pixel_fails_the_digest(mini, tmp_path):
    folder = mini.folder("binary", tmp_path)
    content = bytearray((folder / "data_batch_2.bin").read_bytes())
    content[7] ^= 1
    (folder / "data_batch_2.bin").write_bytes(content)
    arrays = Cifar10.decode(folder)
    with pytest.raises(DataError, match=f"my source: these are not .* must be {mini.layout.digest}"):
        mini.layout.check(arrays, "my source")


def test_the_sizes_of_a_binary_file_are_told(mini, tmp_path):
    folder = mini.folder("binary", tmp_path)
    (folder / "data_batch_4.bin").write_bytes(bytes(979))
    with pytest.raises(DataError, match=r"data_batch_4\.bin: 979 bytes, expected 980"):
        Cifar10.decode(folder)


def test_a_complete_form_wins_over_an_incomplete_one(mini, tmp_path):
    mini.folder("python", tmp_path)
    mini.folder("binary", tmp_path / "cifar-10-batches-bin")
    (tmp_path / "test_batch").unlink()
    assert digest(*Cifar10.decode(tmp_path)) == mini.layout.digest


@pytest.mark.parametrize("look", [Cifar10.check, Cifar10.decode])
def test_a_folder_of_something_else(look, tmp_path):
    (tmp_path / "train").write_bytes(b"CIFAR-100 has this")
    with pytest.raises(DataError, match="holds no CIFAR-10: expected data_batch_1 to data_batch_5"):
        look(tmp_path)


@pytest.mark.parametrize("look", [Cifar10.check, Cifar10.decode])
def test_a_path_to_nothing(look, tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        look(tmp_path / "nowhere")


@pytest.mark.parametrize("look", [Cifar10.check, Cifar10.decode])
def test_a_file_that_is_no_archive(look, tmp_path):
    (tmp_path / "notes.txt").write_text("not a tar archive at all\n" * 100)
    with pytest.raises(DataError, match=r"notes\.txt: not a readable tar archive"):
        look(tmp_path / "notes.txt")


@pytest.mark.parametrize("image", [Image.new("RGB", (16, 19)), Image.new("L", (16, 20))], ids=["one row short", "grey"])
def test_a_png_of_another_kind(mini, tmp_path, image):
    folder = mini.folder("png", tmp_path)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    (folder / "data_batch_1.png").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"data_batch_1\.png: .* expected 16 x 20 RGB"):
        Cifar10.decode(folder)


@pytest.mark.parametrize("labels", [b"[1, 2", b'{"a": 1}', json.dumps([1] * 99).encode(), b"[300]", b"\xff"])
def test_labels_that_are_none(mini, tmp_path, labels):
    folder = mini.folder("png", tmp_path)
    (folder / "train_lables.json").write_bytes(labels)
    with pytest.raises(DataError, match=r"train_lables\.json: "):
        Cifar10.decode(folder)


def test_class_names_stand_for_the_official_labels():
    assert len(Cifar10.class_names) == 10
    assert Cifar10.class_names[6] == "frog"  # the first training image, labeled 6
    assert Cifar10.class_names[3] == "cat"  # the first test image, labeled 3


def test_channels_and_rows_keep_their_places(mini, tmp_path: Path):
    """One red pixel in the second row and third column, in the two planar forms."""
    images = np.zeros_like(mini.arrays.train_images)
    images[0, 1, 2, 0] = 255
    marked = type(mini)(mini.layout, mini.arrays._replace(train_images=images))
    for form in ("python", "binary"):
        decoded = Cifar10.decode(marked.folder(form, tmp_path / form)).train_images
        assert np.argwhere(decoded).tolist() == [[0, 1, 2, 0]]
