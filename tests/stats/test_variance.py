"""The estimates of spread, against least squares done the long way and against the textbook."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairtrial.stats.variance import CAUTION, GAMMA, Running, _shared, estimate

KINDS = ["own", "pooled", "guarded"]


def least_squares(differences, seen):
    """Residual variance of y = arm + seed, times 2, and its degrees of freedom; the reference's value is 0."""
    seeds, arms = differences.shape
    rows, values = [], []
    for seed in range(seeds):
        for arm in range(-1, arms):
            if arm >= 0 and not seen[seed, arm]:
                continue
            if arm < 0 and not seen[seed].any():
                continue
            row = np.zeros(seeds + arms)
            row[seed] = 1
            if arm >= 0:
                row[seeds + arm] = 1
            rows.append(row)
            values.append(0.0 if arm < 0 else differences[seed, arm])
    design, values = np.array(rows), np.array(values)
    effects, _, rank, _ = np.linalg.lstsq(design, values)
    df = len(values) - rank
    return 2 * ((values - design @ effects) ** 2).sum() / df, df


@pytest.mark.parametrize("trial", range(40))
def test_the_pooled_spread_is_that_of_the_two_way_layout_whatever_is_missing(trial):
    rng = np.random.default_rng(trial)
    shape = (int(rng.integers(4, 9)), int(rng.integers(2, 6)))
    differences, seen = rng.normal(size=shape), rng.random(shape) < 0.8
    found = estimate(differences[None], seen[None], "pooled")
    variance, df = least_squares(differences, seen)
    assert found.pooled[0, 0] ** 2 == pytest.approx(variance, rel=1e-9)
    assert set(found.df[0][found.count[0] > 1]) == {df}


def test_own_spread_and_mean_are_numpys():
    differences = np.random.default_rng(0).normal(5.0, 2.0, size=(7, 5, 3))
    found = estimate(differences, np.ones(differences.shape, bool), "own")
    np.testing.assert_allclose(found.sd, differences.std(axis=1, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(found.scale, found.sd, rtol=0)
    np.testing.assert_allclose(found.mean, differences.mean(axis=1), rtol=1e-12)
    assert (found.df == 4).all()


def guard(differences, settled=1.0):
    """The guarded variances by hand, with the first arm's own entering the mean as so much at least."""
    own = differences.var(axis=1, ddof=1)
    arms, seeds = differences.shape[2], differences.shape[1]
    rows = differences - differences.mean(axis=1, keepdims=True)
    residual = (rows**2).sum(axis=(1, 2)) - (rows.sum(axis=2) ** 2).sum(axis=1) / (arms + 1)
    pooled = 2 * residual / ((seeds - 1) * arms)
    shared = differences.mean(axis=2).var(axis=1, ddof=1) * 2 / (1 + 1 / arms)
    entering = np.column_stack([np.maximum(own[:, 0], settled), own[:, 1:]])
    typical = np.exp(np.log(entering).mean(axis=1))
    caution = 1 + CAUTION * (1 / (seeds - 1) - 1 / ((seeds - 1) * arms))
    return np.maximum(np.maximum(pooled, caution * shared)[:, None], own * (own / typical[:, None]) ** GAMMA)


@pytest.mark.parametrize("settled", [0.0, 1.5])
def test_the_guard_takes_the_largest_of_three(settled):
    differences = np.random.default_rng(1).normal(size=(50, 4, 3)) * [1.0, 1.0, 3.0]
    floor = np.array([settled, 0.0, 0.0]) * np.ones((50, 1))
    found = estimate(differences, np.ones(differences.shape, bool), floor=floor)
    np.testing.assert_allclose(found.scale**2, guard(differences, settled), rtol=1e-9)


def test_the_variance_of_the_seeds_means_is_unbiased_where_values_are_missing():
    """Simulated: its mean over many studies, for one pattern of missing values at a time."""
    rng = np.random.default_rng(4)
    cells = rng.normal(size=(20_000, 6, 5)) / np.sqrt(2)
    differences = cells[..., 1:] - cells[..., :1]
    for _ in range(4):
        seen = np.broadcast_to(rng.random((6, 4)) < 0.6, differences.shape)
        mean = np.where(seen, differences, 0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
        shared, _ = _shared(np.where(seen, differences - mean[:, None], 0.0), seen)
        assert shared.mean() == pytest.approx(1.0, abs=4 * shared.std() / np.sqrt(len(shared)))


def test_arms_apart_have_their_own_spread_and_do_not_touch_that_of_others():
    differences = np.random.default_rng(8).normal(size=(5, 6, 4)) * [1.0, 50.0, 1.0, 1.0]
    seen = np.random.default_rng(9).random(differences.shape) < 0.9
    apart = np.array([False, True, False, False])
    found = estimate(differences, seen, apart=apart)
    others = estimate(differences[..., ~apart], seen[..., ~apart])
    alone = estimate(differences[..., apart], seen[..., apart], "own")
    for name in ("count", "mean", "sd", "scale", "df", "pooled"):
        np.testing.assert_array_equal(getattr(found, name)[:, ~apart], getattr(others, name))
        np.testing.assert_array_equal(getattr(found, name)[:, apart], getattr(alone, name))
    everyone = estimate(differences, seen, apart=np.ones(4, bool))
    np.testing.assert_array_equal(everyone.scale, estimate(differences, seen, "own").scale)


@pytest.mark.parametrize("kind", KINDS)
def test_one_arm_has_only_its_own_spread(kind):
    differences = np.random.default_rng(2).normal(size=(20, 6, 1))
    seen = np.random.default_rng(3).random(differences.shape) < 0.9
    found = estimate(differences, seen, kind)
    expected = [values[here].std(ddof=1) for values, here in zip(differences[..., 0], seen[..., 0], strict=True)]
    np.testing.assert_allclose(found.scale[:, 0], expected, rtol=1e-9)
    assert (found.df == found.count - 1).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("arms", [1, 2, 4])
def test_running_sums_give_the_same(kind, arms):
    differences, running = np.random.default_rng(4).normal(size=(30, 9, arms)), Running(kind)
    for seed in range(9):
        running.add(differences[:, seed].T)
        if seed > 1:
            means, scales = running.estimate()
            found = estimate(differences[:, : seed + 1], np.ones((30, seed + 1, arms), bool), kind)
            np.testing.assert_allclose(means.T, found.mean, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(scales.T, found.scale, rtol=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.floats(-1e3, 1e3), st.integers(2, 6), st.sampled_from(KINDS))
def test_equal_differences_have_no_spread_at_all(value, seeds, kind):
    differences = np.full((1, seeds, 2), value)
    found = estimate(differences, np.ones(differences.shape, bool), kind)
    assert (found.sd == 0).all()
    assert (found.scale == 0).all()


def test_what_is_not_seen_does_not_count():
    differences = np.random.default_rng(5).normal(size=(3, 6, 3))
    seen = np.random.default_rng(6).random(differences.shape) < 0.7
    absurd = np.where(seen, differences, 1e300)
    for one, other in zip(estimate(differences, seen), estimate(absurd, seen), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_arm_without_pairs_has_nothing_and_takes_nothing():
    differences = np.random.default_rng(7).normal(size=(1, 5, 3))
    seen = np.ones(differences.shape, bool)
    seen[..., 1] = False
    found = estimate(differences, seen)
    alone = estimate(differences[..., [0, 2]], seen[..., [0, 2]])
    assert (found.count[0, 1], found.df[0, 1]) == (0, 0)
    assert np.isnan([found.mean[0, 1], found.sd[0, 1], found.scale[0, 1]]).all()
    np.testing.assert_allclose(found.scale[0, [0, 2]], alone.scale[0], rtol=1e-12)
