"""Files that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from fairtrial.files import find_program, make_folder, open_atomically, read_bounded, write_atomically


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


def test_a_file_up_to_the_limit_is_read_through_a_link():
    Path("file").write_bytes(b"12345")
    Path("link").symlink_to("file")
    assert read_bounded(Path("link"), 5) == b"12345"
    with pytest.raises(OSError, match="has more than 4 bytes, the most that is read"):
        read_bounded(Path("link"), 4)


@pytest.mark.parametrize(
    ("name", "said"), [("pipe", "not a regular file"), ("folder", "Is a directory"), ("\0", "NUL")]
)
def test_what_is_no_regular_file_is_refused_at_once(name, said):
    os.mkfifo("pipe")
    Path("folder").mkdir()
    with pytest.raises(OSError, match=said):
        read_bounded(Path(name), 5)


@pytest.mark.parametrize("path", ["", ".", "bin", ":{there}", "bin:{there}:"])
def test_programs_are_found_in_absolute_entries_of_the_path_only(tmp_path, monkeypatch, path):
    for folder in (".", "bin", "there"):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "tool").write_text("#!/bin/sh\n")
        Path(folder, "tool").chmod(0o755)
    there = Path("there").resolve()
    monkeypatch.setenv("PATH", path.format(there=there))
    assert find_program("tool") == (str(there / "tool") if "there" in path else None)
    assert find_program("./tool") == "./tool"
