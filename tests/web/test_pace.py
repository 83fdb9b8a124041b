"""How far a study is and how long it takes yet, against cases that can be counted by hand."""

from datetime import UTC, datetime, timedelta

import pytest

from fairtrial.store.watching import Mark
from fairtrial.trial import Outcome
from fairtrial.web.pace import progress, seconds_left

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EPOCHS = {"a": 10, "b": 10}


def mark(arm, seed, outcome=None, *, began=None, took=None, epochs=0):
    """A trial that began so many seconds ago, and took so many."""
    started = None if began is None else NOW - timedelta(seconds=began)
    ended = None if took is None else started + timedelta(seconds=took)
    return Mark(f"{arm}{seed}", arm, seed, "x", None if began is None else "1", outcome, started, ended, epochs)


def test_a_study_is_counted_by_trial_and_by_epoch():
    marks = [
        mark("a", 0, "finished", began=100, took=50, epochs=10),
        mark("b", 0, "diverged", began=100, took=25, epochs=5),
        mark("a", 1, began=10, epochs=5),
        mark("b", 1),
    ]
    found = progress(marks, EPOCHS, {})
    assert (found.trials, found.ended, found.open, found.waiting) == (4, 2, 1, 1)
    assert (found.epochs, found.all_epochs, found.fraction) == (25, 40, 0.625)
    assert not found.complete
    assert [(arm.arm, arm.trials, arm.running, arm.waiting) for arm in found.arms] == [("a", 2, 1, 0), ("b", 2, 0, 1)]
    assert found.outcomes == {Outcome.FINISHED: 1, Outcome.DIVERGED: 1, Outcome.FAILED: 0}


def test_what_stopped_arms_never_began_is_not_wanted():
    marks = [mark("a", 0, "finished", began=9, took=5, epochs=10), mark("b", 0, "finished", began=9, took=5, epochs=10)]
    marks += [mark("a", 1), mark("b", 1)]
    found = progress(marks, EPOCHS, {"a": "settled", "b": "settled"})
    assert found.complete
    assert found.trials == 2
    assert [arm.stopped for arm in found.arms] == ["settled", "settled"]
    assert seconds_left(marks, EPOCHS, NOW, stopped={"a", "b"}) == 0.0


def test_a_plan_without_trials_is_not_complete():
    found = progress([], EPOCHS, {})
    assert (found.complete, found.fraction) == (False, 0.0)


def test_no_pace_no_estimate():
    assert seconds_left([mark("a", 0, began=3), mark("b", 0)], EPOCHS, NOW) is None


def test_the_rest_goes_to_as_many_workers_as_there_are():
    done = [mark("a", seed, "finished", began=900, took=100, epochs=10) for seed in range(3)]  # 10 s an epoch
    running = [mark("b", 0, began=1), mark("b", 1, began=1)]
    waiting = [mark("b", 2), mark("b", 3), mark("b", 4)]
    assert seconds_left(done + running + waiting, EPOCHS, NOW) == pytest.approx(99 + 200)
    assert seconds_left(done + running[:1] + waiting, EPOCHS, NOW) == pytest.approx(99 + 300)


def test_the_pace_is_a_median_so_that_one_long_break_counts_little():
    done = [mark("a", seed, "finished", began=90_000, took=100, epochs=10) for seed in range(4)]
    done.append(mark("a", 4, "finished", began=90_000, took=80_000, epochs=10))
    assert seconds_left([*done, mark("b", 0, began=0)], EPOCHS, NOW) == pytest.approx(100)


def test_before_a_trial_has_ended_the_running_ones_tell_the_pace():
    running = [mark("a", 0, began=45, epochs=4), mark("b", 0, began=45, epochs=4)]  # 4.5 epochs on average
    assert seconds_left(running, EPOCHS, NOW) == pytest.approx(55)


def test_a_clock_that_went_back_gives_no_negative_time():
    broken = [mark("a", 0, "finished", began=100, took=-50, epochs=10), mark("b", 0, began=10)]
    assert seconds_left(broken, EPOCHS, NOW) is None
