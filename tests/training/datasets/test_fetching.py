"""Data sets sent to a machine that can't fetch them."""

import hashlib

import numpy as np
import pytest

from fairtrial.errors import DataError
from fairtrial.training import datasets
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.cifar10 import Cifar10
from fairtrial.training.datasets.download import WebArchive


@pytest.fixture
def parcel(mini, use_sources):
    """What the runner sends; no source of the data sets is available."""
    use_sources()
    return {"cifar10": mini.arrays}


def test_what_is_in_one_cache_comes_into_another(mini, parcel, tmp_path, monkeypatch):
    datasets.install(["cifar10", "digits"], lambda: parcel)
    gathered = datasets.gather(["digits", "cifar10", "cifar10"])
    assert list(gathered) == ["cifar10"]
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / "another"))
    datasets.install(["cifar10"], lambda: gathered)
    assert datasets.fetch("cifar10").cached
    assert cache.folder("cifar10").is_relative_to(tmp_path / "another")
    for theirs, ours in zip(cache.read(mini.layout, verify=True), mini.arrays, strict=True):
        assert np.array_equal(theirs, ours)


def test_nothing_is_asked_for_where_the_data_are(parcel):
    datasets.install(["cifar10"], lambda: parcel)
    datasets.install(["cifar10"], lambda: pytest.fail("asked for data that are here"))


def test_own_sources_come_first(mini, use_sources, serve, tmp_path):
    content = mini.archive("python", tmp_path / "archive.tar.gz").read_bytes()
    source = WebArchive(serve(content), hashlib.sha256(content).hexdigest(), len(content))
    use_sources(source)
    datasets.install(["cifar10"], lambda: pytest.fail("asked for data that can be fetched"))
    assert datasets.fetch("cifar10").origin == source.label


def test_data_that_changed_on_the_way_are_refused(mini, parcel):
    images = mini.arrays.train_images.copy()
    images[0, 0, 0, 0] ^= 1
    with pytest.raises(DataError, match="the data that came with the study: these are not the images"):
        datasets.install(["cifar10"], lambda: {"cifar10": mini.arrays._replace(train_images=images)})
    assert cache.read(mini.layout, verify=True) is None


def test_what_is_not_in_the_cache_can_not_be_handed_on(parcel):
    with pytest.raises(DataError, match="cifar10: not in the cache; run `fairtrial data cifar10`"):
        datasets.gather(["cifar10"])


def test_a_path_in_no_home_folder(mini):
    with pytest.raises(DataError, match=r"^~nosuch/x: no such home folder; name a folder or archive$"):
        Cifar10(path="~nosuch/x").fetched(verify=True)
