"""Simulated studies without differences: their moments say what the differences themselves say, at a bounded cost."""

import tracemalloc

import numpy as np
import pytest
from scipy import special

from fairtrial.stats import boundary, nulls
from fairtrial.stats.boundary import ALPHAS, solve
from fairtrial.stats.looks import LookPlan, Stage
from fairtrial.stats.spreads import hard_spreads
from fairtrial.stats.variance import estimate


def slow_levels(plan, spread, cells, studies):
    """The smallest level of each study, from each pattern's own differences, look by look and without any bound."""
    found = []
    for chunk in nulls.noise(plan.looks[-1], len(spread.cells), studies):
        values = np.array([spread.values(noise)[list(cells)] for noise in chunk]).transpose(2, 0, 1)
        differences = values[..., 1:] - values[..., :1]
        levels = np.full(len(differences), np.inf)
        for look, weight in zip(plan.looks, plan.weights, strict=True):
            part = differences[:, :look]
            at = estimate(part, np.ones(part.shape, bool), plan.pooling, apart=plan.alone)
            p = 2.0 * special.stdtr(at.df, -np.abs(at.mean / at.scale) * np.sqrt(look))
            levels = np.minimum(levels, p.min(axis=1) / weight)
        found.append(levels)
    return np.concatenate(found)


@pytest.mark.parametrize(
    "plan",
    [
        LookPlan.of(1, [3, 4, 9]),
        LookPlan.of(4, range(3, 9)),
        LookPlan.of(4, range(3, 9), "own"),
        LookPlan.of(4, range(3, 9), "pooled"),
        LookPlan.of(5, range(3, 7), apart=[2, 5]),
    ],
)
def test_moments_of_the_noise_say_what_every_difference_says(plan):
    spreads = boundary._spreads(plan)
    cells = range(plan.arms + 1)
    for spread, (found,) in zip(spreads, boundary._smallest(plan, spreads, 1_000), strict=True):
        np.testing.assert_allclose(found, slow_levels(plan, spread, cells, 1_000), rtol=1e-6)


def test_also_of_a_stage_with_another_reference():
    first = Stage((4, 5), 0.7, (2, 0, 1))
    plan = LookPlan.of(2, [6], earlier=[first])
    spreads = boundary._spreads(plan)
    for spread, (found, _) in zip(spreads, boundary._smallest(plan, spreads, 1_000), strict=True):
        np.testing.assert_allclose(found, slow_levels(plan.stage(0), spread, first.cells, 1_000), rtol=1e-6)


def peak(arms, looks):
    plan = LookPlan.of(arms, range(3, 3 + looks))
    spreads = boundary._spreads(plan)[:4]
    tracemalloc.start()
    boundary._smallest(plan, spreads, nulls.CHUNK)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def test_memory_does_not_grow_with_the_looks():
    assert peak(4, 120) < 1.5 * peak(4, 15)


def test_paths_of_a_long_plan_are_as_many_numbers_as_those_of_a_short_one():
    for looks in (10, 400, 900):
        means, scales = boundary._paths(1, tuple(range(3, 3 + looks)), "own")
        assert means.shape == scales.shape
        assert means.size <= boundary.STORED + looks * nulls.CHUNK  # whole chunks
        assert len(means) >= boundary.FEWEST_STUDIES


def test_most_looks_of_most_studies_are_left_out(monkeypatch):
    """Without bounds, every arm would be tested in every study at every look."""
    tested = []
    ratios = nulls._Moments._ratios
    monkeypatch.setattr(
        nulls._Moments, "_ratios", lambda self, rows, *rest: tested.append(len(rows)) or ratios(self, rows, *rest)
    )
    plan = LookPlan.of(4, range(3, 123))
    spreads = [one for one in hard_spreads(4, "guarded") if one.kind == "cells"]
    boundary._smallest(plan, spreads, nulls.CHUNK)
    assert sum(tested) < 0.25 * len(spreads) * nulls.CHUNK * len(plan.looks)


def test_a_large_plan_is_solved_from_fewer_studies_on_the_safe_side(monkeypatch):
    """Held against the error rate of other studies, under every pattern of spread."""
    plan = LookPlan.of(4, range(3, 13))
    monkeypatch.setattr(boundary, "LARGE", 0)
    simulated = []
    smallest = boundary._smallest
    monkeypatch.setattr(
        boundary,
        "_smallest",
        lambda plan, spreads, studies: simulated.append(studies) or smallest(plan, spreads, studies),
    )
    levels = solve(plan)
    assert simulated == [boundary.FEWEST_STUDIES // 2, boundary.FEWEST_STUDIES]
    usual = boundary.boundary(plan).levels
    middle = (ALPHAS > 0.02) & (ALPHAS < 0.5)
    assert (levels[middle] < usual[middle]).all()
    assert (levels[middle] > np.interp(0.6 * ALPHAS[middle], ALPHAS, usual)).all()  # as at 3% instead of 5%
    monkeypatch.setattr(nulls, "SEED", 7)
    level = np.interp(0.05, ALPHAS, levels)
    for (found,) in smallest(plan, boundary._spreads(plan), 10_000):
        assert (found <= level).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 10_000)
