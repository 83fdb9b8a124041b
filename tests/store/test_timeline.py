"""What merged stores have registered: as if all had been asked in one store, so that no look is lost."""

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairtrial.history import NOT_COUNTED
from fairtrial.maintenance import merge_stores
from fairtrial.scheduler import plan
from fairtrial.store.sql import SQLStore
from fairtrial.trial import EpochRecord, Machine, Outcome

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
MACHINE = Machine({}, "processor", "cpu", 1, "system")


def end(writer, trials, at):
    for trial in trials:
        writer.begin(trial, f"{at}", MACHINE, at)
        writer.add_epoch(trial, f"{at}", EpochRecord(trial.arm, trial.seed, 1, {"test_acc": 0.5 + trial.seed / 100}))
        writer.end(trial, f"{at}", Outcome.FINISHED, "", at)


def begin(store, study, at):
    store.add_study(study, at)


def finish(store, study, at, part=1.0):
    """End the missing trials of a study, or the first of them."""
    trials = plan(study)
    missing = [one for one in trials[: int(part * len(trials))] if store.outcomes([one])[one.hash] is None]
    store.write(partial(end, trials=missing, at=at))
    if part == 1:
        store.register(study, at)


def run(store, study, at, part=1.0):
    """Run a study within some minutes, or a part of it."""
    begin(store, study, at)
    finish(store, study, at + 10 * MINUTE, part)


def told(store, study):
    """What a store says of the looks before a study's; stages are named by what they asked."""
    history = store.history(study)
    names = {stage.number: stage.question.key for stage in (*history.before, history.own)}
    return {
        "registered": history.registered,
        "looks before": {names[number] for number in history.own.earlier},
        "asked before": {stage.question.key for stage in history.before},
        "afterwards": history.set_afterwards(study),
    }


@pytest.fixture
def studies(make_study):
    """Studies of the same arms: by their seeds and margins; and one with an arm more, and one of another arm."""
    return [
        make_study(name="one"),
        make_study(name="margin", evidence={"margin": 0.01}),
        make_study(name="more", seeds=3, evidence={"margin": 0.01}),
        make_study(name="third", arms={"a": {}, "b": {"params": {"pace": 2}}, "c": {"params": {"pace": 3}}}),
        make_study(name="range", seeds={"min": 2, "max": 4}, evidence={"margin": 0.02}),
        make_study(name="other", arms={"a": {}, "c": {"params": {"pace": 3}}}),
    ]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(runs=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.sampled_from([0.5, 1.0])), max_size=5))
def test_merged_stores_tell_what_one_store_would_have_told(studies, runs):
    with SQLStore(":memory:") as one, SQLStore(":memory:") as merged, SQLStore(":memory:") as turned:
        parts = [SQLStore(":memory:") for _ in range(3)]
        for hour, (study, part, share) in enumerate(runs):
            for store in (one, parts[part]):
                run(store, studies[study], NOW + hour * HOUR, share)
        for store in parts:
            merge_stores(store, store=merged)
        merge_stores(*parts[::-1], store=turned)
        for study in {study for study, _, share in runs if share == 1}:  # of others nobody has seen a verdict
            expected = told(one, studies[study])
            assert told(merged, studies[study]) == expected
            assert told(turned, studies[study]) == expected
        assert merged.check() == turned.check() == ""
        for store in parts:
            store.__exit__()


def test_a_look_in_another_store_counts(make_study):
    """Who looked at three seeds there, and at four here, has looked twice."""
    first, second = make_study(seeds=3), make_study(seeds=4)
    with SQLStore("a.db") as a, SQLStore("b.db") as b:
        run(a, first, NOW)
        run(b, second, NOW + HOUR)
        assert b.history(second).own.earlier == ()
        merge_stores(a, store=b)
        assert [b.history(study).own.earlier for study in (first, second)] == [(), (1,)]


def test_a_margin_that_was_set_after_the_trials_of_another_store_is_said(make_study):
    first, second = make_study(evidence={"margin": 0.01}), make_study(evidence={"margin": 0.02})
    with SQLStore("a.db") as a, SQLStore("b.db") as b:
        run(a, first, NOW)
        run(b, second, NOW + HOUR)
        assert b.history(second).set_afterwards(second) == ()
        merge_stores(a, store=b)
        assert b.history(second).set_afterwards(second) == ("the margin 0.02 was set after 4 trials had ended",)
        assert b.history(first).set_afterwards(first) == ()


def test_of_runs_at_the_same_time_the_one_that_was_passed_over_looks_last(make_study):
    """As in one store: what was registered first but looked at last comes after what was looked at meanwhile."""
    first, second = make_study(seeds=3), make_study(seeds=4)
    with SQLStore("a.db") as a, SQLStore("b.db") as b:
        begin(a, first, NOW)
        run(b, second, NOW + MINUTE)
        finish(a, first, NOW + HOUR)
        merge_stores(a, store=b)
        history = b.history(first)
        assert (history.registered, history.own.number, history.own.earlier) == (True, 3, (2,))
        assert history.own.at == NOW + HOUR
        assert history.set_afterwards(first) == ()
        assert b.history(second).own.earlier == ()


def test_what_a_store_registered_about_its_own_stages_stays(make_study):
    """Clocks of workers and of the runner differ a little; what was registered is what counts."""
    first, second = make_study(seeds=3), make_study(seeds=4)
    with SQLStore("a.db") as a, SQLStore("b.db") as b:
        begin(a, first, NOW)
        begin(a, second, NOW + MINUTE)  # none of first has ended, says the store
        finish(a, first, NOW)  # but by their clocks its trials had
        finish(a, second, NOW + HOUR)
        before = [told(a, study) for study in (first, second)]
        run(b, make_study(name="unlike", arms={"a": {}, "c": {"params": {"pace": 3}}}), NOW)
        for _ in range(2):
            merge_stores(b, store=a)
            merge_stores(a, store=b)
            for store in (a, b):
                assert [told(store, study) for study in (first, second)] == before


def test_to_merge_what_is_there_changes_nothing(make_study):
    first, second = make_study(seeds=3), make_study(seeds=4)
    with SQLStore("a.db") as a:
        begin(a, first, NOW)
        run(a, second, NOW + MINUTE)
        finish(a, first, NOW + HOUR)
    with SQLStore("a.db", create=False) as a:
        merge_stores(a, store="b.db")
    files = [Path(name).read_bytes() for name in ("a.db", "b.db")]
    merge_stores("b.db", store="a.db")
    merge_stores("a.db", store="b.db")
    assert [Path(name).read_bytes() for name in ("a.db", "b.db")] == files


def test_an_unfinished_study_that_was_passed_over_is_not_counted_before_it_runs_again(make_study):
    first, second = make_study(seeds=3), make_study(seeds=4)
    with SQLStore("a.db") as a, SQLStore("b.db") as b:
        run(a, first, NOW, part=0.5)
        run(b, second, NOW + HOUR, part=0.5)
        merge_stores(a, store=b)
        assert b.history(first).set_afterwards(first) == (NOT_COUNTED,)
        run(b, first, NOW + 2 * HOUR)
        assert b.history(first).set_afterwards(first) == ()
