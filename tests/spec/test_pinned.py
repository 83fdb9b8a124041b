"""Digests of files and folders of data."""

import hashlib
import os

import pytest

from fairtrial.errors import StudyError
from fairtrial.spec import Study, pinned
from fairtrial.spec.pinned import path_digest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "f" / "a").mkdir(parents=True)
    (tmp_path / "f" / "a" / "1.png").write_bytes(b"one")
    (tmp_path / "f" / "2.png").write_bytes(b"two")
    return tmp_path / "f"


def test_a_file(folder):
    assert path_digest(folder / "2.png") == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: (path / "a" / "1.png").write_bytes(b"other"),
        lambda path: (path / "a" / "1.png").rename(path / "a" / "3.png"),
        lambda path: (path / "a").rename(path / "b"),
        lambda path: (path / "3.png").write_bytes(b""),
        lambda path: (path / "2.png").unlink(),
    ],
)
def test_names_and_contents_of_a_folder_count(folder, change):
    before = path_digest(folder)
    change(folder)
    assert path_digest(folder) != before


def test_hidden_files_and_links_do_not_count(folder):
    before = path_digest(folder)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".git").mkdir()
    (folder / ".git" / "x").write_bytes(b"x")
    (folder / "link.png").symlink_to(folder / "2.png")
    (folder / "up").symlink_to(folder)
    assert path_digest(folder) == before
    assert path_digest(folder.rename(folder.parent / "moved")) == before


def test_limits(folder, monkeypatch):
    monkeypatch.setattr(pinned, "LARGEST_DATA", 5)
    with pytest.raises(OSError, match="has more than 5 bytes, the most that is read"):
        path_digest(folder)
    monkeypatch.undo()
    monkeypatch.setattr(pinned, "MOST_DATA_FILES", 1)
    with pytest.raises(OSError, match="has more than 1 files"):
        path_digest(folder)


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        path_digest(folder)


def table(**changes):
    return {"name": "s", "reference": "a", "seeds": 1, "arms": {"a": {}, "b": {"optimizer": {"lr": 0.1}}}, **changes}


def test_weights_of_a_study_in_python_are_pinned_by_their_content(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    weights = str(tmp_path / "w.pt")
    first = Study.from_dict(table(model={"weights": weights}))
    assert first.settings.model.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert Study.from_dict(first.to_dict()) == first
    (tmp_path / "w.pt").write_bytes(b"others")
    assert Study.from_dict(table(model={"weights": weights})).hash != first.hash
    arm = Study.from_dict(table(arms={"a": {}, "b": {"model": {"weights": weights}}})).arm("b")
    assert arm.settings.model.weights_sha256 == hashlib.sha256(b"others").hexdigest()


def test_weights_that_are_no_file_are_named_with_their_place(tmp_path):
    with pytest.raises(StudyError, match=r'^arms\.b\.model\.weights = ".*none\.pt": No such file or directory$'):
        Study.from_dict(table(arms={"a": {}, "b": {"model": {"weights": str(tmp_path / "none.pt")}}}))


def test_an_arm_with_published_weights_does_not_inherit_the_digest_of_a_file(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"weights")
    arms = {"a": {}, "b": {"model": {"weights": "torchvision:IMAGENET1K_V1"}}}
    study = Study.from_dict(table(model={"weights": str(tmp_path / "w.pt")}, arms=arms))
    assert study.arm("b").settings.model.weights_sha256 is None
    assert study.arm("a").settings.model.weights_sha256 == hashlib.sha256(b"weights").hexdigest()
    assert Study.from_dict(study.to_dict()).hash == study.hash == Study.from_toml(study.to_toml()).hash
