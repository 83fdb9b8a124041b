"""Critical values for unpaired samples: against SciPy, statsmodels, an independent integral, and plain simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestIndPower

from fairtrial.stats.welch import SLACK, critical, detectable, level, p_value, satterthwaite


def error_at(first, second, alpha, ratio):
    """The error at a ratio of the true squared standard errors, by the midpoint rule over the beta variable's angle."""
    angles, share = (np.arange(4_000) + 0.5) * math.pi / 8_000, ratio / (1 + ratio)
    ours, theirs = share * np.sin(angles) ** 2 / first, (1 - share) * np.cos(angles) ** 2 / second
    limits = critical(first, second, ours / (ours + theirs), alpha) * np.sqrt((first + second) * (ours + theirs))
    density = np.sin(angles) ** (first - 1) * np.cos(angles) ** (second - 1)  # of sin^2, without its singularities
    constant = math.gamma((first + second) / 2) / math.gamma(first / 2) / math.gamma(second / 2)
    return constant * math.pi * float(np.mean(density * 2 * stats.t.sf(limits, first + second)))


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 2), (2, 4), (11, 2), (4, 9)])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_error_is_at_most_alpha_at_any_ratio(first, second, alpha):
    errors = [error_at(first, second, alpha, 10.0**power) for power in np.arange(-5, 5.1, 0.5)]
    assert max(errors) <= alpha * 1.002
    assert max(errors) >= 0.97 * alpha  # at some ratio it is used


@pytest.mark.parametrize(
    ("runs", "spreads"), [((3, 3), (1, 3)), ((3, 12), (2, 1)), ((12, 3), (1, 1)), ((2, 5), (1, 1))]
)
def test_the_error_is_that_of_simulated_samples(runs, spreads):
    rng = np.random.default_rng(1)
    parts = [rng.normal(scale=spread, size=(100_000, n)) for n, spread in zip(runs, spreads, strict=True)]
    squares = [part.var(axis=1, ddof=1) / part.shape[1] for part in parts]
    statistic = np.abs(parts[0].mean(axis=1) - parts[1].mean(axis=1)) / np.sqrt(sum(squares))
    first, second = runs[0] - 1, runs[1] - 1
    found = (statistic > critical(first, second, squares[0] / sum(squares), 0.05)).mean()
    ratio = (spreads[0] ** 2 / runs[0]) / (spreads[1] ** 2 / runs[1])
    assert found == pytest.approx(error_at(first, second, 0.05, ratio), abs=4 * math.sqrt(0.05 / 100_000))
    assert found < 0.051


def test_at_the_ends_it_is_students_quantile_of_one_sample():
    for share, df in ((0.0, 7), (1.0, 3)):
        assert critical(3, 7, share, 0.05) == pytest.approx(stats.t.isf(0.025 * (1 - SLACK), df), rel=1e-9)


def test_of_many_runs_it_is_scipys_welch_test():
    rng = np.random.default_rng(2)
    ours, theirs = rng.normal(0.3, 2.0, 150), rng.normal(0.0, 1.0, 80)
    parts = ours.var(ddof=1) / 150, theirs.var(ddof=1) / 80
    share, scipys = parts[0] / sum(parts), stats.ttest_ind(ours, theirs, equal_var=False)
    assert satterthwaite(149, 79, share) == pytest.approx(scipys.df)
    assert critical(149, 79, share, 0.05) == pytest.approx(stats.t.isf(0.025, scipys.df), rel=1e-3)
    assert p_value(149, 79, share, abs(scipys.statistic), 0.05) == pytest.approx(scipys.pvalue, rel=0.01)


def test_a_lower_level_than_welchs_is_needed_at_few_runs():
    levels = [level(df, df, 0.05) for df in (1, 2, 4, 9, 49)]
    assert levels == sorted(levels)
    assert levels[0] < 0.03
    assert levels[-1] == pytest.approx(0.05, rel=2e-3)


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 4), (2, 11)])
def test_critical_values_fall_as_alpha_rises(first, second):
    shares = np.linspace(0, 1, 11)
    found = np.array([critical(first, second, shares, alpha) for alpha in (1e-6, 1e-3, 0.01, 0.05, 0.2, 0.7)])
    assert (np.diff(found, axis=0) < 0).all()


@pytest.mark.parametrize(("first", "second", "share"), [(2, 2, 0.5), (1, 6, 0.9), (4, 4, 0.2)])
def test_p_is_below_alpha_exactly_if_the_critical_value_is_exceeded(first, second, share):
    for alpha in (0.05, 0.05 / 3, 0.001):
        limit = float(critical(first, second, share, alpha))
        assert (
            p_value(first, second, share, limit * 1.001, alpha)
            < alpha
            < p_value(first, second, share, limit * 0.999, alpha)
        )


@pytest.mark.parametrize("statistic", [0.0, 0.4, 1.5, 3.0, 9.0])
def test_p_is_the_alpha_whose_critical_value_it_is(statistic):
    p = p_value(3, 5, 0.4, statistic, 0.05)
    assert 0 < p <= 1
    if 1e-6 < p < 0.9:
        assert critical(3, 5, 0.4, p) == pytest.approx(statistic, rel=0.01)
    assert p_value(3, 5, 0.4, 1e9, 0.05) <= 1e-11


def test_what_is_detectable_is_statsmodels_at_many_runs():
    effect = TTestIndPower().solve_power(nobs1=60, alpha=0.05, power=0.8)
    assert detectable(59, 59, 0.5, 0.05) == pytest.approx(effect / math.sqrt(2 / 60), rel=3e-3)


@pytest.mark.parametrize(("runs", "spread", "alpha"), [((3, 3), 1.0, 0.05), ((3, 8), 2.0, 0.05), ((5, 5), 1.0, 0.01)])
def test_simulated_samples_find_it_as_often(runs, spread, alpha):
    parts = spread**2 / runs[0], 1 / runs[1]
    share = parts[0] / sum(parts)
    difference = detectable(runs[0] - 1, runs[1] - 1, share, alpha) * math.sqrt(sum(parts))
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(difference, spread, (20_000, runs[0])), rng.normal(size=(20_000, runs[1]))
    squares = ours.var(axis=1, ddof=1) / runs[0], theirs.var(axis=1, ddof=1) / runs[1]
    statistic = np.abs(ours.mean(axis=1) - theirs.mean(axis=1)) / np.sqrt(sum(squares))
    limits = critical(runs[0] - 1, runs[1] - 1, squares[0] / sum(squares), alpha)
    assert (statistic > limits).mean() == pytest.approx(0.8, abs=0.012)
