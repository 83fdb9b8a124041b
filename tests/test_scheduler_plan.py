"""From a study to its trials, and how long a list of jobs takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fairtrial
from fairtrial.scheduler import makespan, plan


def test_whole_seeds_finish_first(make_study):
    assert [(t.seed, t.arm) for t in plan(make_study())] == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]


def test_a_trials_hash_is_of_configuration_arm_and_seed(make_study):
    trials = [*plan(make_study()), *plan(make_study(training={"epochs": 4, "loop": "loops:good"}))]
    renamed = plan(make_study(reference="c", arms={"c": {}, "b": {"params": {"pace": 2}}}))[0]
    assert len({trial.hash for trial in [*trials, renamed]}) == 9
    assert plan(make_study(name="other", seeds=5))[0].hash == trials[0].hash  # neither name nor seeds of the study


def test_a_trials_hash_is_what_it_was_in_earlier_releases():
    """Recorded: a change here means that no trial of any study is found again, and asks for a new `spec.FORMAT`."""
    assert plan(fairtrial.load("paper"))[0].hash.startswith("fb3e61768d779d89")


def test_all_seeds_of_a_sequential_study_are_planned(make_study):
    assert plan(make_study(seeds={"min": 1, "max": 2})) == plan(make_study(seeds=2))


def test_seeds_of_weights_and_order_are_the_trials_own_unless_told_otherwise(make_study):
    assert {(t.seed, t.weights_seed, t.order_seed) for t in plan(make_study())} == {(0, 0, 0), (1, 1, 1)}
    fixed = plan(make_study(seeds=3, noise={"batch_orders": 1}))
    assert {(t.seed, t.weights_seed, t.order_seed) for t in fixed} == {(0, 0, 0), (1, 1, 0), (2, 2, 0)}


def test_studies_share_trials_whose_noise_is_the_same(make_study):
    plain, fixed = (plan(make_study(seeds=2, **noise)) for noise in ({}, {"noise": {"batch_orders": 1}}))
    crossed = plan(make_study(seeds=4, noise={"initial_weights": 2, "batch_orders": 2}))
    assert [t.hash for t in fixed[:2]] == [t.hash for t in plain[:2]]
    assert not {t.hash for t in fixed[2:]} & {t.hash for t in plain}
    assert [t.hash for t in crossed[:4]] == [t.hash for t in plain]
    assert [(t.weights_seed, t.order_seed) for t in crossed[::2]] == [(0, 0), (1, 1), (0, 1), (1, 0)]
    assert len({t.hash for t in crossed}) == 8


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
