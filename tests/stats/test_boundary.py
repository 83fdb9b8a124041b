"""Critical values: exact where they are classical, against SciPy where it knows them, else by simulation."""

import numpy as np
import pytest
from scipy import stats

from fairtrial.stats.boundary import COUNTABLE, STUDIES, LookPlan, boundary

LOOKS = range(3, 13)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 0.001])
@pytest.mark.parametrize("seeds", [2, 5, 30])
def test_one_arm_at_one_look_has_students_t(alpha, seeds):
    found = boundary(LookPlan.of(1, [seeds]))
    critical = found.plan.critical(found.level(alpha), 0, np.array([seeds - 1]))
    assert critical == pytest.approx(stats.t.isf(alpha / 2, seeds - 1), rel=1e-10)
    assert found.family_wise(alpha) == alpha


@pytest.mark.parametrize(("arms", "seeds"), [(2, 5), (4, 3), (4, 12)])
def test_pooled_arms_at_one_look_err_as_scipys_multivariate_t_says(arms, seeds):
    """Dunnett's two-sided comparisons: arms that share a reference correlate by one half."""
    df = (seeds - 1) * arms
    found = boundary(LookPlan.of(arms, [seeds], "pooled"))
    critical = np.full(arms, found.plan.critical(found.level(0.05), 0, np.array([df]))[0])
    joint = stats.multivariate_t(shape=np.full((arms, arms), 0.5) + 0.5 * np.eye(arms), df=df, seed=0)
    assert 0.048 < 1 - joint.cdf(critical, lower_limit=-critical) < 0.0505


def test_looks_are_paid_for_as_slow_scalar_t_tests_say():
    """Another program for the same question: SciPy's t test look by look, other random numbers."""
    found = boundary(LookPlan.of(1, [3, 5, 8]))
    level = found.level(0.05)
    noise = np.random.default_rng(99).normal(size=(40_000, 8))
    hit = np.zeros(len(noise), bool)
    for seeds in (3, 5, 8):
        hit |= stats.ttest_1samp(noise[:, :seeds], 0.0, axis=1).pvalue <= level * seeds / 8
    assert hit.mean() == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / len(noise)))


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.01, 0.0005])
def test_a_level_costs_no_more_than_its_alpha(alpha):
    found = boundary(LookPlan.of(2, [3, 6]))
    assert 0.98 * alpha < found.family_wise(found.level(alpha)) <= alpha * (1 + 1e-12)


def test_adjusted_significance_rises_with_the_level_also_where_the_tail_begins():
    found = boundary(LookPlan.of(2, [3, 6]))
    edge = found.null[COUNTABLE - 1]
    levels = np.sort(np.concatenate([np.geomspace(1e-12, 2.0, 300), edge * np.linspace(0.9, 1.1, 100)]))
    costs = [found.family_wise(level) for level in levels]
    assert (np.diff(costs) >= 0).all()
    assert costs[-1] == 1.0
    assert found.family_wise(edge * (1 - 1e-9)) == pytest.approx(found.family_wise(edge), rel=1e-6)


@pytest.mark.parametrize(
    ("fewer", "more"), [((1, LOOKS), (4, LOOKS)), ((4, [12]), (4, LOOKS)), ((4, [3, 12]), (4, LOOKS))]
)
def test_more_arms_and_more_looks_cost_more(fewer, more):
    one, other = boundary(LookPlan.of(*fewer)), boundary(LookPlan.of(*more))
    assert one.level(0.05) > other.level(0.05)


def test_levels_are_those_at_which_critical_values_are_met():
    plan = LookPlan.of(3, [3, 4, 9])
    df = np.array([[2, 6, 16]])
    critical = plan.critical(0.013, 1, df)
    np.testing.assert_allclose(plan.levels(critical, 1, df), 0.013, rtol=1e-9)
    assert plan.critical(0.013, 1, np.array([0]))[0] == np.inf


def test_the_same_plan_gives_the_same_numbers():
    plan = LookPlan.of(2, [3, 4])
    first = boundary(plan)
    boundary.cache_clear()
    again = boundary(plan)
    assert again is not first
    assert again.level(0.05) == first.level(0.05)
    assert len(first.null) == STUDIES


@pytest.mark.parametrize(
    ("arms", "looks", "pooling", "message"),
    [
        (0, [3], "own", "arms = 0: must be at least 1"),
        (1, [], "own", r"looks = \[\]: must be ascending"),
        (1, [1, 2], "own", "each at least 2"),
        (1, [3, 3], "own", "must be ascending"),
        (1, [5, 3], "own", "must be ascending"),
        (1, [3], "some", "pooling = 'some'"),
    ],
)
def test_an_impossible_plan_is_refused(arms, looks, pooling, message):
    with pytest.raises(ValueError, match=message):
        LookPlan.of(arms, looks, pooling)
