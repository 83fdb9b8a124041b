"""From a study to its trials, and how long a list of jobs takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairtrial.plan import makespan, plan


def test_whole_seeds_finish_first(make_study):
    assert [(t.seed, t.arm) for t in plan(make_study())] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_trials_hash_is_of_configuration_arm_and_seed(make_study):
    trials = [*plan(make_study()), *plan(make_study(training={"epochs": 4, "loop": "loops:good"}))]
    renamed = plan(make_study(reference="c", arms={"c": {}, "b": {"params": {"pace": 2}}}))[0]
    assert len({trial.hash for trial in [*trials, renamed]}) == 9
    assert plan(make_study(name="other", seeds=5))[0].hash == trials[0].hash  # neither name nor seeds of the study


@pytest.mark.parametrize(
    ("seconds", "workers", "expected"),
    [([], 2, 0), ([3, 3, 3], 1, 9), ([3, 3, 3], 2, 6), ([1, 5, 1, 1], 2, 5), ([1, 2], 8, 2)],
)
def test_makespan(seconds, workers, expected):
    assert makespan(seconds, workers) == expected


@given(st.lists(st.floats(0, 100), min_size=1), st.integers(1, 8))
def test_makespan_lies_between_its_bounds(seconds, workers):
    bound = max(sum(seconds) / workers, *seconds)
    assert bound * (1 - 1e-9) <= makespan(seconds, workers) <= sum(seconds) / workers + max(seconds) + 1e-9
