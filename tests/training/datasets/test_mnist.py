"""MNIST and Fashion-MNIST, on small files in the official format."""

import gzip
import hashlib
import struct

import numpy as np
import pytest

from fairtrial.errors import DataError
from fairtrial.training import datasets
from fairtrial.training.datasets import cache, mnist
from fairtrial.training.datasets.download import WebArchive, WebFiles
from fairtrial.training.datasets.layout import Arrays, Layout, digest
from fairtrial.training.datasets.mnist import NAMES, FashionMnist, Mnist, Published


def idx(array):
    """An array as an IDX file (http://yann.lecun.com/exdb/mnist), gzipped."""
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes())


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    parts = [(random.integers(0, 256, (n, 28, 28, 1), np.uint8), np.arange(n, dtype=np.uint8) % 10) for n in (40, 20)]
    return Arrays(*parts[0], *parts[1])


@pytest.fixture
def contents(arrays, monkeypatch, cache_root):
    """The four files, which "mnist" is said to consist of."""
    files = {name: idx(array.squeeze()) for name, array in zip(NAMES, arrays, strict=True)}
    published = tuple(Published(hashlib.sha256(one).hexdigest(), len(one)) for one in files.values())
    monkeypatch.setattr(Mnist, "published", published)
    monkeypatch.setattr(Mnist, "layout", Layout("mnist", 28, 40, 20, channels=1))
    monkeypatch.setattr(Mnist, "size", type(Mnist.size)(40, 20))
    monkeypatch.setattr(Mnist, "sources", ())
    return files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw"])
def test_a_folder_of_the_users(contents, arrays, tmp_path, inside):
    write(tmp_path / "mine" / inside, contents)
    fetched = datasets.fetch("mnist", source=tmp_path / "mine")
    assert fetched.digest == digest(*arrays)
    dataset = datasets.load(Mnist(train=20))
    assert (dataset.classes, dataset.channels, dataset.image_size, len(dataset.train)) == (10, 1, 28, 20)
    assert dataset.digest == digest(*arrays)
    assert np.array_equal(cache.read(Mnist.layout, verify=True).train_images, arrays.train_images)


def test_the_files_are_downloaded_each_with_its_digest(contents, arrays, serve, monkeypatch):
    def published(name, content, sha256):
        return WebArchive(serve(content).replace("mini.tar.gz", name), sha256, len(content))

    right = [published(name, one, hashlib.sha256(one).hexdigest()) for name, one in contents.items()]
    wrong = [*right[:3], published(NAMES[3], contents[NAMES[3]], "0" * 64)]
    monkeypatch.setattr(Mnist, "sources", (WebFiles(tuple(wrong)),))
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz: the download is damaged or has changed"):
        datasets.fetch("mnist")
    monkeypatch.setattr(Mnist, "sources", (WebFiles(tuple(right)),))
    fetched = datasets.fetch("mnist")
    assert fetched.digest == digest(*arrays)
    assert fetched.origin == right[0].url.rpartition("/")[0]


def test_a_damaged_cache_is_found_without_a_published_digest(contents, tmp_path):
    path = datasets.fetch("mnist", source=write(tmp_path / "mine", contents)).path
    content = bytearray((path / "train_labels.npy").read_bytes())
    content[-1] ^= 1
    (path / "train_labels.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"train_labels\.npy is damaged \(its contents have changed\)"):
        datasets.cached("mnist")
    (path / "about.json").write_text("{}")
    with pytest.raises(DataError, match=r"about\.json is damaged \(it has no digests of the arrays\)"):
        datasets.cached("mnist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop(NAMES[1]), "lacks train-labels-idx1-ubyte.gz of mnist$"),
        (lambda files: files.update({NAMES[3]: files[NAMES[3]][:-1] + b"x"}), "is another file: its SHA-256 is"),
        (lambda files: files.update({NAMES[0]: bytes(10**6)}), "can't be read \\(has more than"),
    ],
)
def test_other_files(contents, tmp_path, change, message):
    change(contents)
    with pytest.raises(DataError, match=message):
        datasets.fetch("mnist", source=write(tmp_path / "mine", contents))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "not a readable gzip file"),
        (gzip.compress(bytes(100)), r"not an IDX file of bytes \(2, 3\)"),
        (idx(np.zeros((2, 4), np.uint8)), r"not an IDX file of bytes \(2, 3\)"),
        (gzip.compress(bytes(10**8)), r"not an IDX file of bytes \(2, 3\)"),  # unpacked no further than is needed
        (idx(np.zeros((2, 3), np.uint8))[:-9], "not a readable gzip file"),
    ],
    ids=["no gzip", "no header", "another shape", "too long", "cut off"],  # a gzip file has the time in it
)
def test_what_is_no_idx_file(content, message):
    with pytest.raises(DataError, match=message):
        mnist._read_idx(content, (2, 3), "x.gz")


def test_what_is_published():
    for kind in (Mnist, FashionMnist):
        assert len({one.sha256 for one in kind.published}) == 4
        assert all(len(one.sha256) == 64 and set(one.sha256) <= set("0123456789abcdef") for one in kind.published)
        assert [file.url.rpartition("/")[2] for file in kind.sources[0].files] == list(NAMES)
