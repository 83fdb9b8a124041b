"""Noise components: on a study's grid, against an analysis of variance, and by simulated coverage."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from builders import make_results, make_study
from fairtrial.stats.noise import noise_components, split_noise
from fairtrial.testing import simulated_results, simulated_study

GRID = {"initial_weights": 3, "batch_orders": 4}


def test_a_plain_study_splits_nothing():
    study = make_study(("a", "b"))
    assert split_noise(study, make_results(study)) == ()


def test_runs_find_their_place_on_the_grid():
    study = simulated_study({"a": {}, "b": {}}, seeds=None, noise=GRID)
    results = simulated_results(study)
    grid = np.empty((3, 4))
    for result in results:
        if result.arm == "b":
            grid[study.noise.of(result.seed)] = result.epochs[-1].metrics["test_acc"]
    second = split_noise(study, results)[1]
    assert (second.arm, second.runs, second.left_out) == ("b", 12, 0)
    assert second.components == noise_components(grid)


def test_a_hole_costs_the_row_or_column_that_is_shorter():
    study = simulated_study({"a": {"diverge_seeds": [5]}}, seeds=None, noise=GRID)
    (arm,) = split_noise(study, simulated_results(study))
    assert (arm.runs, arm.left_out) == (9, 2)


def test_one_source_alone():
    study = simulated_study({"a": {}}, seeds=5, noise={"batch_orders": 1})
    (arm,) = split_noise(study, simulated_results(study))
    assert arm.components.order is None
    assert arm.components.init.share == 1.0


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_runs_have_nothing_to_split(count):
    study = simulated_study({"a": {}}, seeds=None, noise=GRID)
    (arm,) = split_noise(study, simulated_results(study)[:count])
    assert (arm.components, arm.runs, arm.left_out) == (None, 0, count)


def grids(count, shape, variances, seed=0):
    """Grids of runs, with variances of initial weights, order and rest."""
    rng = np.random.default_rng(seed)
    init, order, rest = np.sqrt(variances)
    effects = init * rng.normal(size=(count, shape[0], 1)) + order * rng.normal(size=(count, 1, shape[1]))
    return 5.0 + effects + rest * rng.normal(size=(count, *shape))


def test_mean_squares_are_statsmodels():
    grid = grids(1, (4, 6), (4.0, 1.0, 0.5))[0]
    long = pd.DataFrame([(i, j, grid[i, j]) for i in range(4) for j in range(6)], columns=["init", "order", "value"])
    table = anova_lm(ols("value ~ C(init) + C(order)", long).fit())
    squares = table["sum_sq"] / table["df"]
    found = noise_components(grid)
    assert found.rest.variance == pytest.approx(squares["Residual"], rel=1e-9)
    assert found.init.variance == pytest.approx((squares["C(init)"] - squares["Residual"]) / 6, rel=1e-9)
    assert found.order.variance == pytest.approx((squares["C(order)"] - squares["Residual"]) / 4, rel=1e-9)
    assert found.total == pytest.approx(found.init.variance + found.order.variance + found.rest.variance)
    assert found.init.share + found.order.share + found.rest.share == pytest.approx(1.0)
    assert (found.runs, found.mean) == (24, pytest.approx(grid.mean()))


@pytest.mark.parametrize(
    ("shape", "variances"),
    [((3, 3), (1.0, 1.0, 1.0)), ((6, 4), (0.0, 2.0, 1.0)), ((5, 5), (1.0, 0.2, 0.1)), ((3, 3), (0.1, 0.0, 1.0))],
)
def test_intervals_cover_and_estimates_are_right_on_average(shape, variances):
    found = [noise_components(grid) for grid in grids(1_000, shape, variances)]
    for name, variance in zip(("init", "order", "rest"), variances, strict=True):
        parts = [getattr(one, name) for one in found]
        covered = np.mean([part.interval[0] <= variance <= part.interval[1] for part in parts])
        assert covered > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 1_000)
        estimates = np.array([part.variance for part in parts])
        error = estimates.std() / np.sqrt(len(estimates))
        assert estimates.mean() == pytest.approx(variance, abs=4 * error)


@pytest.mark.parametrize("varied", ["init", "order"])
def test_with_one_of_the_two_held_fixed_its_variance_is_the_samples(varied):
    values = np.random.default_rng(3).normal(size=8)
    found = noise_components(values[:, None] if varied == "init" else values[None])
    part, other = (found.init, found.order) if varied == "init" else (found.order, found.init)
    assert other is None
    assert found.rest is None
    assert part.variance == pytest.approx(values.var(ddof=1))
    low, high = 7 * values.var(ddof=1) / stats.chi2.ppf([0.975, 0.025], 7)
    assert part.interval == pytest.approx((low, high), rel=1e-9)
    assert "held fixed" in found.caveats[0]


def test_a_negative_estimate_is_kept_and_said():
    grid = np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.5], [2.0, 3.1, 1.0]])
    found = noise_components(grid)
    assert found.init.variance < 0.0 == found.init.interval[0] == found.init.share
    assert "The estimate for the initial weights came out negative: it is small." in found.caveats


@pytest.mark.parametrize("shape", [(3, 3), (1, 4), (4, 1)])
def test_equal_runs_have_nothing_to_split(shape):
    found = noise_components(np.full(shape, 0.1))
    assert found.total == 0.0
    assert all(part is None or part.share is None for part in (found.init, found.order, found.rest))
    assert "All runs are equal: there is no variance to split." in found.caveats


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"values have shape \(2,\)"),
        ([[1.0]], "two runs or more"),
        ([[1.0, np.nan], [2.0, 3.0]], "init seed 0 and order seed 1 has no finite value"),
    ],
)
def test_what_makes_no_grid_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        noise_components(values)
    with pytest.raises(ValueError, match="confidence = 95"):
        noise_components([[1.0, 2.0]], confidence=95)
