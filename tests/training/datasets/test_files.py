"""Archives are read into memory, member by member, and nothing else happens."""

import io
import tarfile

import pytest

from fairtrial.errors import DataError
from fairtrial.training.datasets import files
from fairtrial.training.datasets.cifar10 import Cifar10
from fairtrial.training.datasets.layout import digest

pytestmark = pytest.mark.usefixtures("miniature_layout")


def archive_of(path, *members):
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_folder_and_archive_give_the_same(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"A")
    (tmp_path / "b").write_bytes(b"B")
    packed = archive_of(tmp_path / "x.tar.gz", (tarfile.TarInfo("./sub/a"), b"A"), (tarfile.TarInfo("b"), b"B"))
    wanted = dict.fromkeys(("sub/a", "b", "c"), 10)
    expected = {"sub/a": b"A", "b": b"B"}
    assert files.read(tmp_path, wanted) == files.read(packed, wanted) == expected
    assert files.listed(tmp_path, wanted) == {"sub/a", "b"}


@pytest.mark.parametrize("name", ["../data_batch_1", "/data_batch_1", "x/../data_batch_1", "{outside}"])
def test_a_path_that_leaves_the_archive_is_neither_written_nor_taken_for_a_file(mini, tmp_path, name):
    outside = tmp_path / "outside"
    evil = tarfile.TarInfo(name.format(outside=outside))
    good = [(tarfile.TarInfo(n), c) for n, c in mini.files("python").items()]
    packed = archive_of(tmp_path / "x.tar.gz", (evil, b"evil"), *good)
    before = set(tmp_path.rglob("*"))
    assert digest(*Cifar10.decode(packed)) == mini.layout.digest
    assert set(tmp_path.rglob("*")) == before
    without = archive_of(tmp_path / "y.tar.gz", (evil, b"evil"), *good[1:])
    with pytest.raises(DataError, match="lacks data_batch_1 of"):
        Cifar10.decode(without)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_other_things_are_no_files(tmp_path, kind):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = tarfile.TarInfo("a")
    link.type, link.linkname = kind, str(secret)
    packed = archive_of(tmp_path / "x.tar.gz", (link, b""))
    assert files.read(packed, {"a": 10}) == {}


def test_a_member_above_the_limit_is_not_read(tmp_path):
    packed = archive_of(tmp_path / "x.tar.gz", (tarfile.TarInfo("a"), bytes(11)))
    with pytest.raises(DataError, match=r"x\.tar\.gz: a: 11 bytes, at most 10 expected"):
        files.read(packed, {"a": 10})


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_archive(mini, tmp_path, keep):
    packed = mini.archive("binary", tmp_path / "x.tar.gz")
    content = packed.read_bytes()
    packed.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError, match=r"x\.tar\.gz: not a readable tar archive") as caught:
        Cifar10.decode(packed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("mode", "name"), [("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_another_compression_is_named(tmp_path, mode, name):
    with tarfile.open(tmp_path / "x.tar", mode) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    with pytest.raises(DataError, match=rf"x\.tar: compressed with {name}; unpack it, or compress it with gzip$"):
        files.read(tmp_path / "x.tar", {"a": 10})


def test_a_name_in_an_archive_is_no_compression(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("BZh9"))
    assert files.read(tmp_path / "x.tar", {"BZh9": 10}) == {"BZh9": b""}


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "read_bounded", refuse)
    with pytest.raises(DataError, match=r"a: can't be read \(Permission denied\)"):
        files.read(tmp_path, {"a": 10})
