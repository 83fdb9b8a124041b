"""Files that appear whole or not at all."""

from pathlib import Path

import pytest

from fairtrial.files import make_folder, open_atomically, write_atomically


def test_a_file_is_written_and_replaced():
    for content in (b"one", b"two"):
        write_atomically(Path("file"), content)
        assert Path("file").read_bytes() == content
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else():
    Path("file").write_bytes(b"old")

    def fail_halfway():
        with open_atomically(Path("file")) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert Path("file").read_bytes() == b"old"
    assert [path.name for path in Path().iterdir()] == ["file"]


def test_the_name_comes_after_the_content():
    seen = []
    write_atomically(Path("file"), b"all", before_rename=lambda: seen.append(Path("file").exists()))
    assert seen == [False]


def test_a_folder_is_made_with_those_above_it():
    make_folder(Path("a/b/c"))
    make_folder(Path("a/b/c"))
    assert Path("a/b/c").is_dir()
