"""What seeds can find: against statsmodels, and against what judging simulated studies finds."""

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from fairtrial.stats.boundary import LookPlan
from fairtrial.stats.power import (
    MOST_SEEDS,
    detectable,
    detectable_differences,
    further_seeds,
)
from fairtrial.stats.sequential import HIGHER, judge_many

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
    assert further(0.0) is None
    assert further(0.0, margin=1.0) > further(0.0, margin=2.0)
    assert further(-1.2) == further(1.2)
    assert further(1.2, missing=1) >= further(1.2)
    assert further(1e-9, seeds=12) is None


def test_beyond_the_plan_seeds_are_counted_on():
    found = further(0.2, seeds=12, df=22)
    assert 12 + found < MOST_SEEDS
    assert found > 100


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
