"""The time that is left, for trials one after another and side by side."""

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.report.forecast import Forecast
from fairtrial.scheduler import plan


@pytest.fixture
def trials(make_study):
    return lambda count, epochs=4: plan(make_study(seeds=count, arms={"a": {}}, training={"epochs": epochs}))


def simulate(trials, workers, pace):
    """Run trials at a steady pace; give the forecast, and what truly is left, after every epoch of every trial."""
    forecast, queue, running, seen = Forecast(trials, workers), list(trials), [], []
    free = [(0.0, place) for place in range(workers)]
    for trial in queue:
        begin, place = heapq.heappop(free)
        running.append((trial, begin))
        heapq.heappush(free, (begin + trial.epochs * pace, place))
    end = max(moment for moment, _ in free)
    events = []
    for trial, begin in running:
        events.append((begin, 1, lambda now, t=trial: forecast.began(t, now)))
        events += [
            (begin + epoch * pace, 0, lambda now, t=trial, e=epoch: forecast.reached(t, e, now))
            for epoch in range(1, trial.epochs + 1)
        ]
        events.append((begin + trial.epochs * pace, 0.5, lambda now, t=trial: forecast.ended(t, now)))
    for now in sorted({event[0] for event in events}):
        for _, _, happen in sorted((e for e in events if e[0] == now), key=lambda e: e[1]):
            happen(now)
        seen.append((forecast.seconds_left(now), end - now))
    return seen


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_at_a_steady_pace_it_is_right_as_soon_as_it_says_anything(trials, workers, count):
    seen = simulate(trials(count), workers, pace=10.0)
    known = [(guess, truth) for guess, truth in seen if guess is not None]
    assert len(known) >= len(seen) - 2  # nothing at the start, and after the first epoch
    for guess, truth in known:
        assert guess == pytest.approx(truth)


def timed(trial, forecast, began=0.0, start_up=0.0, pace=10.0, epochs=4):
    """Run a trial that reports after each epoch; return when it ends."""
    forecast.began(trial, began)
    for epoch in range(1, epochs + 1):
        forecast.reached(trial, epoch, began + start_up + epoch * pace)
    return began + start_up + epochs * pace


def test_start_up_is_no_training(trials):
    first, second, third = trials(3)
    forecast = Forecast([first, second, third])
    now = timed(first, forecast, start_up=60.0)
    forecast.ended(first, now)
    forecast.began(second, now)
    assert forecast.seconds_left(now) == pytest.approx(2 * (60 + 40))
    assert forecast.seconds_left(now + 30) == pytest.approx(2 * (60 + 40) - 30)


def test_during_the_first_epoch_a_short_study_is_not_told_to_be_long(trials):
    """Ten seconds of start-up before trials of a second: no multiple of ten seconds is ever said."""
    first, *others = trials(10, epochs=2)
    forecast = Forecast([first, *others], workers=2)
    forecast.began(first, 0.0)
    said = []
    for batch in range(1, 21):
        forecast.reached(first, batch / 10, 10.0 + batch / 20)
        said.append(forecast.seconds_left(10.0 + batch / 20))
    assert said[0] is None
    assert all(seconds is None or seconds < 5 * (10 + 1) + 1 for seconds in said)


def test_what_a_checkpoint_spared_is_no_training(trials):
    first, second = trials(2)
    forecast = Forecast([first, second])
    forecast.began(first, 0.0)
    forecast.reached(first, 3.0, 5.0)  # it goes on from its third epoch
    assert forecast.seconds_left(5.0) is None
    forecast.reached(first, 4.0, 15.0)
    forecast.ended(first, 15.0)
    assert forecast.seconds_left(15.0) == pytest.approx(40.0)


def test_while_a_trial_runs_there_is_something_left(trials):
    (trial,) = trials(1)
    forecast = Forecast([trial])
    now = timed(trial, forecast)
    assert forecast.seconds_left(now) > 0
    assert forecast.seconds_left(now + 3) > 0
    forecast.ended(trial, now + 5)
    assert forecast.seconds_left(now + 5) == 0


def test_a_loop_that_reports_once_is_judged_by_whole_trials(trials):
    first, second = trials(2, epochs=1)
    forecast = Forecast([first, second])
    now = timed(first, forecast, epochs=1)
    assert forecast.seconds_left(now) is None
    forecast.ended(first, now)
    assert forecast.seconds_left(now) == pytest.approx(10.0)


def test_the_last_trial_runs_alone(trials):
    first, second, third = trials(3)
    forecast = Forecast([first, second, third], workers=2)
    for trial in (first, second):
        timed(trial, forecast, began=100.0, epochs=2)
    assert forecast.seconds_left(now=120.0) == pytest.approx(2 * 10 + 4 * 10)


def test_parts_of_an_epoch_count(trials):
    (trial,) = trials(1)
    forecast = Forecast([trial])
    forecast.began(trial, now=0.0)
    forecast.reached(trial, 0.1, now=1.0)
    forecast.reached(trial, 0.5, now=5.0)
    assert forecast.seconds_left(now=5.0) == pytest.approx(35.0)
    assert forecast.fraction == pytest.approx(0.125)


def test_a_trial_that_ends_early_is_no_more_work_and_does_not_quicken_the_pace(trials):
    first, second = trials(2)
    forecast = Forecast([first, second])
    now = timed(first, forecast, epochs=2)
    forecast.ended(first, now)
    assert forecast.fraction == 0.5
    assert forecast.seconds_left(now) == pytest.approx(40.0)


def test_nothing_to_do_is_done():
    assert Forecast([]).fraction == 1.0


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 4), st.booleans()), max_size=30))
def test_it_is_never_negative_whatever_comes(steps):
    from fairtrial.spec import Study

    table = {"name": "s", "reference": "a", "seeds": 4, "training": {"epochs": 4}, "arms": {"a": {}}}
    trials = plan(Study.from_dict(table))
    forecast = Forecast(trials, workers=2)
    for now, (number, epochs, ends) in enumerate(steps):
        forecast.began(trials[number], float(now))
        forecast.reached(trials[number], epochs, float(now))
        if ends:
            forecast.ended(trials[number], float(now))
        assert 0 <= forecast.fraction <= 1
        left = forecast.seconds_left(float(now))
        assert left is None or left >= 0


def test_a_trial_that_is_spared_is_no_work(trials):
    first, second, third = trials(3)
    forecast = Forecast([first, second, third])
    timed(first, forecast, pace=1.0, epochs=2)
    forecast.cancel(third)
    assert forecast.fraction == pytest.approx(2 / 8)
    assert forecast.seconds_left(now=2.0) == pytest.approx(6.0)
    forecast.cancel(first)  # it runs already
    assert forecast.fraction == pytest.approx(2 / 8)
