"""Critical values: exact where they are classical, against SciPy where it knows them, else by simulation."""

import numpy as np
import pytest
from scipy import stats

from fairtrial.stats.boundary import ALPHAS, _tabulated, boundary, solve, table_key
from fairtrial.stats.looks import LookPlan, Stage

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
    edge = found.level(ALPHAS[0])
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


@pytest.mark.parametrize("looks", [(3,), (3, 4, 5)])
def test_the_table_of_levels_has_what_solving_gives(looks):
    plan = LookPlan.of(2, looks)
    assert table_key(2, looks) in _tabulated()
    np.testing.assert_allclose(boundary(plan).levels, solve(plan, studies=60_000), rtol=1.1e-4)  # rounded down


@pytest.mark.parametrize(("arms", "looks"), [(1, range(3, 7)), (3, [20]), (12, range(3, 6))])
def test_plans_that_were_tabulated_later_keep_the_levels_that_they_had(arms, looks):
    plan = LookPlan.of(arms, looks)
    assert table_key(arms, plan.looks) in _tabulated()
    np.testing.assert_allclose(boundary(plan).levels, solve(plan), rtol=1.1e-7)  # rounded down


def test_no_simulation_is_run_for_usual_plans(monkeypatch):
    monkeypatch.setattr("fairtrial.stats.boundary.solve", lambda plan: pytest.fail(f"{plan} is not in the table"))
    for arms in range(1, 11):
        for least, most in ((3, 5), (3, 10), (3, 15), (3, 20), (3, 30), (3, 50), (3, 100), (2, 10), (5, 20), (5, 50)):
            assert 0.0 < boundary(LookPlan.of(arms, range(least, most + 1))).level(0.05) < 0.05
        for seeds in (2, 3, 5, 10, 20, 30, 100):
            assert 0.0 < boundary(LookPlan.of(arms, [seeds], share=0.7)).level(0.05) < 0.05


def test_a_plan_that_is_not_tabulated_is_solved_from_fewer_studies_on_the_safe_side():
    plan = LookPlan.of(2, [4])
    for alpha, fewer in zip(ALPHAS, solve(plan), strict=True):
        if alpha > 0.01:
            assert 0.8 * boundary(plan).level(alpha) < fewer < 1.05 * boundary(plan).level(alpha)


def test_one_arm_at_one_look_may_spend_a_share():
    found = boundary(LookPlan.of(1, [5], share=0.7))
    assert found.level(0.05) == 0.7 * 0.05
    assert found.family_wise(0.7 * 0.05) == pytest.approx(0.05)


def significant(differences, plan, level):
    """Which studies a stage calls significant at its level, look by look with SciPy's scalar tests."""
    hit = np.zeros(len(differences), bool)
    for look in plan.looks:
        p = stats.ttest_1samp(differences[:, :look], 0.0, axis=1).pvalue
        hit |= (p <= level * look / plan.looks[-1]).any(axis=1)
    return hit


@pytest.mark.parametrize("arms", [1, 3])
def test_stages_err_no_more_together_than_their_shares(arms):
    """A user who adds seeds whenever nothing shows."""
    cells = np.random.default_rng(7).normal(size=(40_000, 8, arms + 1))
    differences, earlier, erred = cells[..., 1:] - cells[..., :1], (), np.zeros(len(cells), bool)
    for seeds, share in ((3, 0.7), (5, 0.91), (8, 1.0)):
        plan = LookPlan.of(arms, [seeds], "own", earlier=earlier, share=share)
        erred |= significant(differences, plan, boundary(plan).level(0.05))
        assert 0.9 * share * 0.05 < erred.mean() < share * 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(cells))
        earlier = (*earlier, Stage((seeds,), share, tuple(range(arms + 1)), "own"))


def test_stages_may_have_other_arms_and_another_reference():
    cells = np.random.default_rng(8).normal(size=(40_000, 6, 4))
    first = Stage((3, 4), 0.6, (2, 3), "own")  # arm 2 against arm 3, which the plan does not have
    second = Stage((5,), 0.9, (1, 0, 2), "own")  # arm 1 was the reference
    plan = LookPlan.of(2, [6], "own", earlier=[first, second])
    erred = np.zeros(len(cells), bool)
    for part, order in ((plan.stage(0), first.cells), (plan.stage(1), second.cells), (plan, (0, 1, 2))):
        own = cells[..., order]
        erred |= significant(own[..., 1:] - own[..., :1], part, boundary(part).level(0.05))
    assert 0.045 < erred.mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / len(cells))


def test_a_stage_keeps_the_level_that_it_had():
    first, second = Stage((3,), 0.7, (0, 1, 2)), Stage((3, 5), 0.91, (2, 0, 1))
    plan = LookPlan.of(3, [8], earlier=[first, second])
    assert plan.stage(0) == LookPlan.of(2, [3], share=0.7)
    then = LookPlan.of(2, [3, 5], earlier=[Stage((3,), 0.7, (1, 2, 0))], share=0.91)
    assert plan.stage(1) == then
    assert boundary(plan).level(0.05) < boundary(then).level(0.05) < boundary(plan.stage(0)).level(0.05)


@pytest.mark.parametrize(
    ("earlier", "share", "message"),
    [
        ((), 0.0, r"shares = \[0.0\]: must ascend"),
        ((), 1.5, "at most 1"),
        ([Stage((3,), 0.7, (0, 1))], 0.7, "must ascend"),
        ([Stage((), 0.7, (0, 1))], 1.0, r"looks = \[\]"),
        ([Stage((3,), 0.7, (0,))], 1.0, r"cells = \[0\]"),
        ([Stage((3,), 0.7, (0, 0))], 1.0, "each named once"),
    ],
)
def test_impossible_stages_are_refused(earlier, share, message):
    with pytest.raises(ValueError, match=message):
        LookPlan.of(1, [5], earlier=earlier, share=share)


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
