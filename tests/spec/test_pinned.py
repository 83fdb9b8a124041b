"""Digests of files and folders of data."""

import hashlib
import os
from pathlib import Path

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


@pytest.fixture
def weights(tmp_path):
    """Two files of weights, each with its digest."""
    files = {tmp_path / name: name.encode() for name in ("one.pt", "two.pt")}
    for path, content in files.items():
        path.write_bytes(content)
    return [(str(path), hashlib.sha256(content).hexdigest()) for path, content in files.items()]


def study(arms=None, **changes):
    return Study(name="s", reference="a", arms={"a": {}, **(arms or {})}, **changes)


def models(made):
    return [(arm.settings.model.weights, arm.settings.model.weights_sha256) for arm in made.arms]


def test_weights_of_a_study_that_is_built_in_python_are_pinned(weights):
    (one, digest), (two, other) = weights
    made = study(model={"weights": one}, arms={"b": {"model": {"weights": two}}})
    assert models(made) == [(one, digest), (two, other)]
    Path(one).write_bytes(b"changed")
    assert study(model={"weights": one}, arms={"b": {"model": {"weights": two}}}).hash != made.hash
    assert Study.from_toml(made.to_toml()) == made  # a study that has its digests reads no file
    with pytest.raises(StudyError, match=r'^arms\.b\.model\.weights = ".*none\.pt": No such file'):
        study(arms={"b": {"model": {"weights": "none.pt"}}})
    with pytest.raises(StudyError, match=r'^model\.weights = ".*": Is a directory'):
        study(model={"weights": str(Path(one).parent)}, arms={"b": {"optimizer": {"lr": 0.1}}})


def test_a_digest_that_is_stated_stays_also_for_an_arm_that_repeats_the_path(weights):
    stated, (one, _) = "0" * 64, weights[0]
    arm = {"model": {"weights": one, "width": 0.5}}
    made = study(model={"weights": one, "weights_sha256": stated}, arms={"b": arm})
    assert models(made) == [(one, stated)] * 2


def test_other_weights_of_an_arm_do_not_inherit_a_digest(weights):
    (one, digest), (two, other) = weights
    pinned_model = {"weights": one, "weights_sha256": digest, "flavor": "keras"}
    arms = {"b": {"model": {"weights": "keras:imagenet"}}, "c": {"model": {"weights": two}}}
    made = study(model=pinned_model, arms=arms)
    assert models(made) == [(one, digest), ("keras:imagenet", None), (two, other)]
    assert Study.from_toml(made.to_toml()).hash == made.hash


def test_a_model_without_weights_says_so(weights):
    with pytest.raises(StudyError, match="unknown key `weights`"):
        study(model={"name": "mlp", "weights": weights[0][0]}, arms={"b": {"optimizer": {"lr": 0.1}}})
