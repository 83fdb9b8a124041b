"""What goes with a study that is removed, and what stays; in each kind of store."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from fairtrial.errors import StoreError
from fairtrial.history import NOT_COUNTED
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
MACHINE = Machine({}, "processor", "cpu", 1, "system")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request):
    place = "store.db" if request.param == "sqlite" else request.getfixturevalue("postgresql")
    with SQLStore(place) as opened:
        yield opened


def end(writer, trials):
    for trial in trials:
        writer.begin(trial, "1", MACHINE, NOW)
        for epoch in (1, 2):
            writer.add_epoch(
                trial, "1", EpochRecord(trial.arm, trial.seed, epoch, {"test_acc": 0.5 + trial.seed / 100})
            )
        writer.add_snapshot(trial, "1", Snapshot(trial.arm, trial.seed, 2, 7, {"eps_1": 0.5}))
        writer.end(trial, "1", Outcome.FINISHED, "", NOW)


def run(store, *studies):
    for hour, study in enumerate(studies):
        store.add_study(study, NOW + hour * HOUR)
        missing = [trial for trial in plan(study) if store.outcomes([trial])[trial.hash] is None]
        store.write(partial(end, trials=missing))


def test_a_study_goes_with_the_trials_that_no_other_shares(store, make_study):
    small, large = make_study(seeds=2), make_study(name="large", seeds=5)
    run(store, small, large)
    shared = store.results(small)
    found = store.would_remove(large.hash)
    assert (len(found.trials), found.begun, found.records, found.shared) == (6, 6, 12, 4)
    assert found.sharing == (small.label,)
    assert store.remove(large.hash) == found
    assert [one.name for one in store.studies()] == ["small"]
    assert store.results(large) == store.results(small) == shared
    assert {*store.snapshots([one.hash for one in plan(large)])} == {one.hash for one in plan(small)}
    assert store.check() == ""
    with pytest.raises(StoreError, match=f"study {large.hash[:8]} is not in this store any more"):
        store.remove(large.hash)


def test_looks_are_never_removed(store, make_study):
    """Whoever removes a study that disappoints and asks anew, at the same arms and seeds, has looked before."""
    first, second, third = make_study(seeds=3), make_study(seeds=4), make_study(seeds=3, evidence={"margin": 0.01})
    run(store, first, second)
    before = store.history(second)
    store.remove(first.hash)
    assert store.history(second) == before
    store.remove(second.hash)
    assert store.studies() == []
    assert store.outcomes(plan(second)) == dict.fromkeys([one.hash for one in plan(second)])
    assert store.history(third).own.earlier == (1, 2)
    assert store.history(third).set_afterwards(third) == (NOT_COUNTED,)
    run(store, third)
    assert store.history(third).own.earlier == (1, 2)
    assert store.history(third).set_afterwards(third) == ("the margin 0.01 was set after 8 trials had ended",)


def test_a_study_that_was_removed_can_be_run_again_and_stands_as_before(store, make_study):
    first, second = make_study(seeds=3), make_study(seeds=4)
    run(store, first, second)
    expected, before = store.results(first), store.history(first)
    for study in (first, second):
        store.remove(study.hash)
    assert store.results(first) == []
    run(store, first)
    assert store.results(first) == expected
    assert store.history(first).own == before.own
    assert [one.label for one in store.studies()] == [first.label]
    assert store.check() == ""


def test_trials_that_no_study_plans_are_found(store, make_study):
    run(store, make_study())
    assert store.orphans() == ([], 0)
    other = make_study(name="other", seeds=3)
    run(store, other)

    def cut(connection):  # as another program would
        connection.exec_driver_sql("DELETE FROM study_trials WHERE position > 3")

    store._write(cut)
    hashes, size = store.orphans()
    assert len(hashes) == 2
    assert size > 500
    store.without_runs(lambda wanted: None)
    assert store.orphans() == ([], 0)
