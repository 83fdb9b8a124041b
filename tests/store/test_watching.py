"""Cheap looks at a store, on each kind of store."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from fairtrial.errors import StoreError, StoreMissingError
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.store.watching import WatchedStore
from fairtrial.trial import EpochRecord, Machine, Outcome
from store_calls import Calls

MACHINE = Machine({"torch": "2"}, "processor", "cpu", 2, "system", "abc+")
NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return str(tmp_path / "store.db") if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def store(url):
    with SQLStore(url) as opened:
        yield opened


@pytest.fixture
def watched(store, url):
    with WatchedStore(url) as opened:
        yield opened


def record(trial, epoch):
    return EpochRecord(trial.arm, trial.seed, epoch, {"test_acc": 0.1 + epoch / 7})


def test_the_version_changes_with_each_write_and_with_nothing_else(store, watched, make_study):
    study = make_study()
    seen = [watched.version()]
    store.add_study(study, NOW)
    seen.append(watched.version())
    trial = plan(study)[0]
    calls = Calls(store)
    for step in (
        lambda: calls.begin(trial, "1", MACHINE, NOW),
        lambda: calls.add_epoch(trial, "1", record(trial, 1)),
        lambda: calls.end(trial, "1", Outcome.FINISHED, "", NOW),
    ):
        step()
        seen.append(watched.version())
    assert len({*seen}) == len(seen)
    store.results(study)
    watched.listed()
    assert watched.version() == watched.version() == seen[-1]


def test_marks_change_with_the_trial_and_say_how_far_it_is(store, watched, make_study):
    study = make_study()
    store.add_study(study, NOW)
    calls, trials = Calls(store), plan(study)
    before = watched.marks(study.hash)
    assert [(mark.trial, mark.arm, mark.seed) for mark in before] == [(one.hash, one.arm, one.seed) for one in trials]
    assert not any(mark.begun for mark in before)
    calls.begin(trials[1], "1", MACHINE, NOW)
    begun = watched.marks(study.hash)
    assert [a == b for a, b in zip(before, begun, strict=True)] == [True, False, True, True]
    assert (begun[1].open, begun[1].started, begun[1].epochs) == (True, NOW, 0)
    calls.add_epoch(trials[1], "1", record(trials[1], 1))
    assert (watched.marks(study.hash)[1].epochs, watched.marks(study.hash)[1].mark != begun[1].mark) == (1, True)
    calls.end(trials[1], "1", Outcome.FAILED, "trace", NOW)
    assert (watched.marks(study.hash)[1].outcome, watched.marks(study.hash)[1].open) == ("failed", False)


def test_trials_are_read_as_the_store_reads_them(store, watched, make_study, monkeypatch):
    monkeypatch.setattr("fairtrial.store.watching.TRIALS_PER_READ", 2)
    study = make_study(seeds=3)
    store.add_study(study, NOW)
    for trial in plan(study)[:5]:
        Calls(store).begin(trial, "1", MACHINE, NOW)
        Calls(store).add_epoch(trial, "1", record(trial, 1))
    hashes = [trial.hash for trial in plan(study)]
    assert list(watched.read_trials(hashes)) == store.results(study)


def test_the_list_counts_what_the_store_lists(store, watched, make_study):
    studies = [make_study(), make_study(name="other", seeds=3)]
    for study in studies:
        store.add_study(study, NOW)
    trial = plan(studies[0])[0]
    Calls(store).begin(trial, "1", MACHINE, NOW)
    Calls(store).end(trial, "1", Outcome.DIVERGED, "", NOW)
    Calls(store).begin(plan(studies[0])[1], "1", MACHINE, NOW)
    shown = {(one.label, one.trials, one.started, *one.outcomes.values()) for one in watched.listed()}
    assert shown == {(one.label, one.trials, one.started, *one.outcomes.values()) for one in store.studies()}
    assert [one.running for one in watched.listed()] == [False, False]
    with store.lock(studies[0]):
        assert {one.label: one.running for one in watched.listed()} == {studies[0].label: True, studies[1].label: False}
        assert watched.is_running(studies[0].hash)
    assert not watched.is_running(studies[0].hash)


def test_a_study_is_found_by_the_beginning_of_its_hash_until_it_is_removed(store, watched, make_study):
    study = make_study()
    store.add_study(study, NOW)
    assert watched.study(study.hash[:8]).label == watched.study(study.hash).label == study.label
    assert watched.study("f" * 64) is None
    assert watched.study("") is not None  # the only one
    store.add_study(make_study(name="other"), NOW)
    assert watched.study("") is None  # one of several
    with store.lock(study):
        store.remove(study.hash)
    assert watched.study(study.hash) is None
    assert [one.name for one in watched.listed()] == ["other"]


def test_nothing_can_be_written(watched, make_study):
    with pytest.raises((StoreError, DBAPIError)):
        watched.add_study(make_study(), NOW)


def test_nothing_is_made_where_there_is_no_store():
    with pytest.raises(StoreMissingError):
        WatchedStore("nothing.db")
    assert not Path("nothing.db").exists()


def test_a_file_that_was_removed_or_replaced_is_noticed(make_study):
    with SQLStore("store.db") as store:
        store.add_study(make_study(), NOW)
    with WatchedStore("store.db") as watched:
        before = watched.version()
        shutil.copy("store.db", "copy.db")
        Path("store.db").unlink()
        with pytest.raises(StoreMissingError, match="not there any more"):
            watched.version()
        Path("copy.db").rename("store.db")
        assert watched.version() != before


def test_a_long_read_lets_a_writer_in_between(make_study, monkeypatch):
    """A run's commit in SQLite waits for readers: reading many trials must give way after a few."""
    monkeypatch.setattr("fairtrial.store.watching.TRIALS_PER_READ", 1)
    study = make_study()
    with SQLStore("store.db", patience=0.2) as store, WatchedStore("store.db") as watched:
        store.add_study(study, NOW)
        trials = plan(study)
        for trial in trials[:3]:
            Calls(store).begin(trial, "1", MACHINE, NOW)
        reading = watched.read_trials([trial.hash for trial in trials])
        next(reading)
        Calls(store).begin(trials[3], "1", MACHINE, NOW)  # would fail after 0.2 s
        assert len(list(reading)) == 3
