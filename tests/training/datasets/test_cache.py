"""The cache: whole or absent, shared, and never silently wrong."""

import threading
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairtrial.errors import DataError
from fairtrial.training.datasets import cache
from fairtrial.training.datasets.download import silent
from fairtrial.training.datasets.layout import Arrays, digest


@pytest.fixture
def filled(mini, cache_root):
    """A cache that holds the miniature."""
    with cache.fetching("cifar10", silent):
        cache.write(mini.layout, mini.arrays, "a test")
    return cache_root / "cifar10"


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path))
    assert cache.folder("cifar10") == tmp_path / "cifar10"
    monkeypatch.setenv("FAIRTRIAL_CACHE", "~/there")
    assert cache.folder("cifar10") == Path.home() / "there" / "cifar10"
    for unset in (
        lambda: monkeypatch.setenv("FAIRTRIAL_CACHE", ""),
        lambda: monkeypatch.delenv("FAIRTRIAL_CACHE"),
    ):
        unset()
        assert cache.folder("cifar10") == Path(platformdirs.user_cache_dir("fairtrial")) / "cifar10"


def test_no_home_folder(monkeypatch):
    monkeypatch.setenv("FAIRTRIAL_CACHE", "~nosuch/x")
    with pytest.raises(DataError, match=r"^~nosuch/x: no home folder for the cache; set FAIRTRIAL_CACHE to a folder$"):
        cache.folder("cifar10")
    for name in ("FAIRTRIAL_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)  # whom the system does not know
    with pytest.raises(DataError, match=r"^~: no home folder for the cache; set FAIRTRIAL_CACHE to a folder$"):
        cache.folder("cifar10")


def test_round_trip(mini, filled):
    arrays = cache.read(mini.layout, verify=True)
    assert digest(*arrays) == mini.layout.digest
    assert all(isinstance(array, np.memmap) for array in arrays)
    assert cache.origin("cifar10") == "a test"
    assert cache.size(mini.layout) == sum(path.stat().st_size for path in filled.glob("*.npy"))
    assert sorted(path.name for path in filled.iterdir()) == sorted(
        [".lock", "about.json", *(f"{name}.npy" for name in Arrays._fields)]
    )


def test_writing_to_a_map_does_not_reach_the_file(mini, filled):
    arrays = cache.read(mini.layout, verify=True)
    arrays.train_images[:] = 0
    assert digest(*cache.read(mini.layout, verify=True)) == mini.layout.digest


@pytest.mark.parametrize("gone", Arrays._fields)
def test_an_incomplete_cache_is_no_cache(mini, filled, gone):
    (filled / f"{gone}.npy").unlink()
    assert cache.read(mini.layout, verify=True) is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"\0")


def empty(path):
    path.write_bytes(b"")


def rewrite(path):
    path.write_bytes(b"no array at all" * 1000)


def reshape(path):
    np.save(path, np.load(path)[:-1])


def retype(path):
    np.save(path, np.load(path).view(np.int8))


def reorder(path):
    np.save(path, np.asfortranarray(np.load(path)))


@pytest.fixture
def told():
    """What `cache.read_sound` said."""
    return []


def read_sound(mini, told, *, verify):
    return cache.read_sound(mini.layout, verify=verify, progress=lambda *report: told.append(report))


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("which", ["train_images", "test_labels"])
@pytest.mark.parametrize("harm", [truncate, lengthen, empty, rewrite, reshape, retype])
def test_a_file_of_the_wrong_shape_is_set_aside_even_unverified(mini, filled, told, harm, which, verify):
    path = filled / f"{which}.npy"
    harm(path)
    with pytest.raises(DataError, match=r"is damaged .*; the next study sets it aside and fetches it anew"):
        cache.read(mini.layout, verify=verify)
    assert path.exists()
    assert read_sound(mini, told, verify=verify) is None
    ((done, total, line),) = told
    assert (done, total, "\n" in line) == (0, 0, False)
    bad = filled / f"{which}.npy.bad"
    assert line.startswith(f"cifar10: the cached file {path} is damaged (")
    assert line.endswith(f"); set aside as {bad}, and fetched anew")
    assert bad.exists()
    assert not path.exists()
    assert cache.read(mini.layout, verify=verify) is None


def test_another_memory_order_is_damage(mini, filled):
    reorder(filled / "test_images.npy")
    with pytest.raises(DataError, match=r"test_images\.npy is damaged"):
        cache.read(mini.layout, verify=False)


@pytest.mark.parametrize("which", Arrays._fields)
def test_one_flipped_bit_is_found_and_the_file_named(mini, filled, told, which):
    path = filled / f"{which}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert cache.read(mini.layout, verify=False) is not None
    assert read_sound(mini, told, verify=True) is None
    assert f"{which}.npy is damaged (its contents have changed); set aside as " in told[0][2]
    assert [path.name for path in filled.glob("*.bad")] == [f"{which}.npy.bad"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_anywhere_in_a_file_is_found_and_made_good(mini, filled, data):
    """Most of all in its header, at which NumPy's parser fails in many ways."""
    path = filled / f"{data.draw(st.sampled_from(Arrays._fields))}.npy"
    whole = path.read_bytes()
    content = bytearray(whole)
    at = data.draw(st.one_of(st.integers(0, 127), st.integers(0, len(whole) - 1)))
    noise = data.draw(st.binary(min_size=1, max_size=30))
    content[at : at + len(noise)] = noise
    path.write_bytes(content)
    told = []
    damaged = content != whole
    assert (read_sound(mini, told, verify=True) is None) == damaged
    assert len(told) == damaged
    path.write_bytes(whole)
    assert digest(*cache.read(mini.layout, verify=True)) == mini.layout.digest


def test_a_bad_file_that_has_to_stay(mini, filled, told, monkeypatch):
    truncate(filled / "train_labels.npy")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DataError, match=r"can't be set aside \(Permission denied\); remove it"):
        read_sound(mini, told, verify=False)


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "[]", "\0"])
def test_notes_that_are_damaged(filled, content):
    (filled / "about.json").write_text(content)
    assert cache.origin("cifar10") == "unknown"
    (filled / "about.json").unlink()
    assert cache.origin("cifar10") == "unknown"


def test_a_cache_folder_that_can_not_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FAIRTRIAL_CACHE", str(tmp_path / "file"))
    fetching = cache.fetching("cifar10", silent)
    with pytest.raises(DataError, match=r"can't be written to .*; set FAIRTRIAL_CACHE"), fetching:
        pass


def test_a_full_disk(mini, cache_root, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    fetching = cache.fetching("cifar10", silent)
    with pytest.raises(DataError, match="No space left on device"), fetching:
        cache.write(mini.layout, mini.arrays, "a test")
    assert {path.name for path in (cache_root / "cifar10").iterdir()} == {".lock", "about.json"}


def test_what_a_killed_process_left_behind_is_removed(cache_root):
    left = cache_root / "cifar10" / "fetching-abc"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"half a download")
    half = cache_root / "cifar10" / ".train_images.npy.0a1b2c3d.part"
    half.write_bytes(b"half an array")
    with cache.fetching("cifar10", silent) as workspace:
        assert workspace.exists()
        assert not left.exists()
        assert not half.exists()


def test_one_fetches_and_the_other_waits_and_says_so(cache_root):
    order, reports, inside = [], [], threading.Event()

    def second():
        inside.wait()
        with cache.fetching("cifar10", lambda *report: (reports.append(report), waiting.set())):
            order.append("second")

    waiting = threading.Event()
    thread = threading.Thread(target=second)
    thread.start()
    with cache.fetching("cifar10", silent):
        inside.set()
        assert waiting.wait(timeout=60)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert reports == [(0, None, "waiting for another process that fetches cifar10")]


def test_readers_never_see_half_a_file(mini, filled):
    """Rewriting the cache under a reader, as two fetching processes would, disturbs nobody."""
    stop = threading.Event()

    def rewrite_for_ever():
        while not stop.is_set():
            with cache.fetching("cifar10", silent):
                cache.write(mini.layout, mini.arrays, "a test")

    writer = threading.Thread(target=rewrite_for_ever)
    writer.start()
    try:
        for _ in range(200):
            assert digest(*cache.read(mini.layout, verify=True)) == mini.layout.digest
    finally:
        stop.set()
        writer.join()


def test_reading_writes_nothing(mini, filled):
    """So a cache that a user may only read is good enough; a test run by root could not be refused a write."""
    before = {path: path.stat().st_mtime_ns for path in (filled, *filled.iterdir())}
    assert cache.read(mini.layout, verify=True) is not None
    assert {path: path.stat().st_mtime_ns for path in (filled, *filled.iterdir())} == before
