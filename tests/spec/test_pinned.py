"""Digests of files and folders of data."""

import hashlib
import os

import pytest

from fairtrial.spec import pinned
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
