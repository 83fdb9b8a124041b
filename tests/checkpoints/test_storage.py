"""What every place for checkpoints promises, asked of a folder and of file systems of fsspec's."""

import os
from pathlib import Path

import fsspec
import pytest

from fairtrial.checkpoints.storage import FolderStorage, FsspecStorage, open_storage
from fairtrial.errors import CheckpointError

PLACES = {
    "folder": lambda: open_storage("deep/down", "trial"),
    "file URL": lambda: open_storage(f"file://{Path.cwd()}/by url", "trial"),
    "memory URL": lambda: open_storage(f"memory://{Path.cwd()}/", "trial"),
    "fsspec's own files": lambda: FsspecStorage(fsspec.filesystem("file"), f"{Path.cwd()}/remote/trial"),
}


@pytest.fixture(params=PLACES)
def place(request):
    yield PLACES[request.param]()
    fsspec.filesystem("memory").store.clear()


def empty(place):
    for name in place.names():
        place.remove(name)
    place.remove_folder()


def test_nothing_is_there_before_something_is_written(place):
    assert place.names() == []
    with pytest.raises(FileNotFoundError):
        place.read("a.json")
    place.remove("a.json")
    place.remove_folder()
    assert place.names() == []


def test_what_is_written_is_read_listed_and_removed(place):
    contents = {"b.json": b"x", "a.safetensors": bytes(range(256)) * 999, "c": b""}
    for name, content in contents.items():
        place.write(name, content, "tensors")
    assert place.names() == sorted(contents)
    assert {name: place.read(name) for name in contents} == contents
    place.remove("b.json")
    place.remove("b.json")
    assert place.names() == ["a.safetensors", "c"]
    place.remove_folder()
    assert place.names() == ["a.safetensors", "c"]
    empty(place)
    empty(place)
    assert place.names() == []
    place.write("again", b"1", "manifest")
    assert place.names() == ["again"]


def test_two_views_of_a_place_see_the_same(place):
    (other,) = [make() for make in PLACES.values() if type(make()) is type(place) and vars(make()) == vars(place)]
    assert other.names() == []
    place.write("a", b"1", "tensors")
    assert other.names() == ["a"]


def test_places_of_two_trials_are_apart():
    for where in ("here", "memory://here"):
        one, other = open_storage(where, "one"), open_storage(where, "other")
        one.write("a", b"1", "tensors")
        other.write("a", b"2", "tensors")
        empty(one)
        assert (one.names(), other.names(), other.read("a")) == ([], ["a"], b"2")


def test_a_url_of_files_is_a_folder_because_that_sees_to_the_disk():
    assert isinstance(open_storage("file:///tmp/x", "trial"), FolderStorage)
    assert isinstance(open_storage("local:///tmp/x", "trial"), FolderStorage)
    assert isinstance(open_storage("memory://x", "trial"), FsspecStorage)


@pytest.mark.parametrize("where", ["nonsense://x", "pony3://bucket/x"])
def test_a_url_that_nobody_knows_is_refused(where):
    with pytest.raises(CheckpointError, match=f"^checkpoints at {where}: must be a folder or a URL that fsspec knows"):
        open_storage(where, "trial")


class Broken:
    """A file system whose library raises errors of its own, after it has written half."""

    def __init__(self):
        self.files = {}

    def invalidate_cache(self):
        pass

    def makedirs(self, path, exist_ok):
        pass

    def pipe_file(self, path, content):
        self.files[path] = content[:1]
        raise RuntimeError("quota exceeded")

    def rm_file(self, path):
        del self.files[path]

    def ls(self, path, detail):
        raise RuntimeError("token expired")


def test_whatever_a_library_raises_is_an_os_error_and_nothing_is_left():
    place = FsspecStorage(Broken(), "bucket")
    with pytest.raises(OSError, match=r"^RuntimeError: quota exceeded$"):
        place.write("a", b"123", "tensors")
    assert place._system.files == {}
    with pytest.raises(OSError, match=r"^RuntimeError: token expired$"):
        place.names()


def test_a_write_that_does_not_succeed_leaves_no_part(monkeypatch):
    place = FolderStorage(Path("here"), "trial")
    place.write("a", b"1", "tensors")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):

        def fail(descriptor, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            with pytest.raises(type(error)):
                place.write("b", b"2", "tensors")
        assert place.names() == ["a"]


def test_a_link_in_a_folders_place_is_named_and_nothing_behind_it_is_touched():
    Path("precious").mkdir()
    Path("precious/0001-000001-deadbeef.json").write_text("the user's own")
    Path("here").mkdir()
    Path("here/trial").symlink_to("../precious")
    place = FolderStorage(Path("here"), "trial")
    for attempt in (
        place.names,
        place.remove_folder,
        lambda: place.read("0001-000001-deadbeef.json"),
        lambda: place.write("0001-000001-deadbeef.json", b"1", "tensors"),
        lambda: place.remove("0001-000001-deadbeef.json"),
    ):
        with pytest.raises(NotADirectoryError):
            attempt()
    assert [path.read_text() for path in Path("precious").iterdir()] == ["the user's own"]
    assert Path("here/trial").is_symlink()


def test_the_location_itself_may_be_a_link_to_a_larger_disk():
    Path("disk").mkdir()
    Path("here").symlink_to("disk")
    FolderStorage(Path("here"), "trial").write("a", b"1", "tensors")
    assert Path("disk/trial/a").read_bytes() == b"1"


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling link", "folder", "pipe"])
def test_what_stands_in_a_files_place_is_never_written_through(kind):
    Path("here/trial").mkdir(parents=True)
    Path("precious").write_text("the user's own")
    path = Path("here/trial/a")
    {
        "link": lambda: path.symlink_to("../../precious"),
        "hard link": lambda: path.hardlink_to("precious"),
        "dangling link": lambda: path.symlink_to("../../nowhere"),
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
    }[kind]()
    place = FolderStorage(Path("here"), "trial")
    if kind != "hard link":  # its content is the checkpoint's to read, and a digest tells that it is none
        with pytest.raises(OSError, match=r"not a regular file|symbolic links|Is a directory"):
            place.read("a")
        place.remove("a")
        assert place.names() == ["a"]
    if kind == "folder":
        with pytest.raises(IsADirectoryError):
            place.write("a", b"1", "tensors")
    else:
        place.write("a", b"1", "tensors")
        assert (place.read("a"), path.is_symlink()) == (b"1", False)
        place.remove("a")
        assert place.names() == []
    assert Path("precious").read_text() == "the user's own"
    assert not Path("nowhere").exists()
