"""What seeds can find: against statsmodels, and against what judging simulated studies finds."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from fairtrial.stats.boundary import boundary
from fairtrial.stats.looks import LookPlan, Stage
from fairtrial.stats.power import (
    MOST_SEEDS,
    detectable,
    detectable_differences,
    further_seeds,
)
from fairtrial.stats.sequential import HIGHER, UNDECIDED, judge_many

LOOKS = range(3, 13)


@pytest.mark.parametrize("seeds", [3, 5, 8, 12, 20])
@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.03, 0.9), (0.2, 0.5)])
def test_one_arm_at_one_look_is_statsmodels(seeds, alpha, power):
    found = detectable(LookPlan.of(1, [seeds]), alpha, 0, power)
    assert TTestPower().power(found, seeds, alpha) == pytest.approx(power, abs=1e-9)


@pytest.mark.parametrize(("arms", "looks"), [(1, LOOKS), (4, [5]), (4, LOOKS)])
def test_simulated_studies_find_it_as_often(arms, looks):
    plan = LookPlan.of(arms, looks)
    difference = detectable(plan, 0.05, len(plan.looks) - 1)
    cells = np.random.default_rng(5).normal(size=(8_000, plan.looks[-1], arms + 1)) / np.sqrt(2)
    differences = cells[..., 1:] - cells[..., :1]
    differences[..., 0] += difference
    found = (judge_many(differences, plan).finding[:, 0] == HIGHER).mean()
    assert found == pytest.approx(0.8, abs=0.02)


def test_the_table_of_a_plan():
    found = detectable_differences(0.01, 4, (3, 5, 8, 12, 20))
    assert list(found) == [3, 5, 8, 12, 20]
    differences = list(found.values())
    assert differences == sorted(differences, reverse=True)
    assert differences[0] == pytest.approx(0.01 * detectable(LookPlan.of(4, [3]), 0.05, 0))
    assert 0.005 < differences[-1] < differences[0] < 0.05


def test_means_of_arms_that_stopped_are_corrected_to_what_is_true_on_average():
    plan, truth = LookPlan.of(1, LOOKS), 1.0
    noise = np.random.default_rng(6).normal(size=(4_000, 12, 1))
    means = judge_many(noise + truth, plan).mean[:, 0]
    assert means.mean() > 1.05
    assert boundary(plan).corrected(0.05, means.mean()) == pytest.approx(truth, abs=0.04)
    assert boundary(plan).corrected(0.05, -means.mean()) == -boundary(plan).corrected(0.05, means.mean())
    assert boundary(LookPlan.of(1, [8])).corrected(0.05, 1.0) == pytest.approx(1.0, abs=0.02)


def test_later_looks_find_less():
    plan = LookPlan.of(2, LOOKS)
    found = [detectable(plan, 0.05, look) for look in range(len(plan.looks))]
    assert (np.diff(found) < 0).all()


def further(mean, margin=None, seeds=4, **changed):
    plan = LookPlan.of(2, LOOKS)
    how = {"missing": 0, "scale": 1.0, "df": 6, "growth": 2} | changed
    return further_seeds(plan, 0.05, seeds=seeds, mean=mean, margin=margin, **how)


def test_further_seeds_are_fewer_for_larger_differences_and_wider_margins():
    needed = [further(mean) for mean in (0.3, 0.6, 1.2, 2.4)]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > 8 > needed[-1] >= 1  # 8 are left in the plan
    assert further(0.0) > needed[0]
    assert further(0.0, margin=1.0) > further(0.0, margin=2.0)
    assert further(-1.2) == further(1.2)
    assert further(1.2, missing=1) >= further(1.2)
    assert further(0.0, seeds=400, df=800, margin=1e-9) is None


def test_beyond_the_plan_seeds_are_counted_on():
    found = further(0.2, seeds=12, df=22)
    assert 12 + found < MOST_SEEDS
    assert found > 40


@pytest.mark.parametrize("arms", [1, 4])
def test_further_seeds_have_about_an_even_chance(arms):
    """Over true differences of all sizes that a plan finds within its looks, at two early looks."""
    plan, rng = LookPlan.of(arms, LOOKS), np.random.default_rng(2)
    cells = rng.normal(size=(600, 12, arms + 1)) / np.sqrt(2)
    differences = cells[..., 1:] - cells[..., :1] + rng.uniform(0.5, 2.0, size=(600, 1, arms))
    last, settled = judge_many(differences, plan), []
    for seeds in (3, 5):
        now = judge_many(differences[:, :seeds], plan)
        for study in np.flatnonzero(now.finding[:, 0] == UNDECIDED):
            growth = int((now.finding[study] == UNDECIDED).sum())
            where = {"seeds": seeds, "missing": 0, "growth": growth, "margin": None}
            arm = {name: getattr(now, name)[study, 0].item() for name in ("mean", "scale", "df")}
            more = further_seeds(plan, 0.05, **where, **arm)
            if more is not None and seeds + more <= 12:
                found = last.finding[study, 0] != UNDECIDED
                settled.append(found and plan.looks[last.look[study, 0]] <= seeds + more)
    assert len(settled) > 300
    assert 0.45 < np.mean(settled) < 0.65


def test_further_seeds_beyond_the_plan_are_those_of_the_next_stage():
    """The chance that one more look finds it, by the tail of a normal mean around the current one."""
    first = LookPlan.of(1, [8], share=0.7)
    more = further_seeds(first, 0.05, seeds=8, missing=0, mean=0.7, scale=1.0, df=7, growth=1, margin=None)
    later = LookPlan.of(1, [8 + more], earlier=[Stage((8,), 0.7, (0, 1))], share=0.91)
    critical = later.critical(boundary(later).level(0.05), 0, np.array([7 + more]))
    assert critical[0] / np.sqrt(8 + more) == pytest.approx(0.7, rel=0.1)
    new = further_seeds(LookPlan.of(1, [8]), 0.05, seeds=8, missing=0, mean=0.7, scale=1.0, df=7, growth=1, margin=None)
    assert new < more


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"sd": 0.0, "seeds": [3]}, "sd = 0.0: must be a positive number"),
        ({"sd": np.nan, "seeds": [3]}, "sd = nan"),
        ({"sd": 1.0, "seeds": [1]}, "each at least 2"),
    ],
)
def test_what_makes_no_sense_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        detectable_differences(arms=1, **how)


def test_no_further_seeds_are_counted_beyond_the_most():
    """A study of a thousand seeds ended in a traceback: there was no look left to try."""
    plan = LookPlan.of(1, [MOST_SEEDS])
    how = {"missing": 0, "mean": 0.01, "scale": 1.0, "df": MOST_SEEDS - 1, "growth": 1, "margin": None}
    assert further_seeds(plan, 0.05, seeds=MOST_SEEDS, **how) is None
