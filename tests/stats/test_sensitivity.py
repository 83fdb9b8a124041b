"""How a measure depends on a setting: the curve against SciPy's, its band by simulation, levels and ranges."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import make_smoothing_spline

from fairtrial.report.sensitivity import sensitivity_grid
from fairtrial.spec import Study
from fairtrial.stats.comparison import compare
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sensitivity import (
    on_scale,
    project,
    scale_of,
    sensitivities,
    smoothing,
    spline_weights,
)
from fairtrial.stats.sequential import judge_many
from fairtrial.testing import simulated_results
from fairtrial.trial import Outcome

PLACES = np.array([0.0, 0.5, 1.0, 1.7, 2.0, 3.0, 4.0])
FINE = np.linspace(0.0, 4.0, 41)


def make(values=(0.7, 0.75, 0.79, 0.81), key="mean", reference=0.8, arms=None, seeds=6, **more):
    """A study whose arms have these means, and the verdicts on it."""
    grid = {"params": {key: list(values)}}
    params = {"mean": 0.8, "noise_sd": 0.002, key: reference}
    table = {"name": "s", "reference": "default", "seeds": seeds, "params": params, "grid": grid, **more}
    table |= {"training": {"loop": "fairtrial.testing:simulate", "epochs": 2}, "arms": {"default": {}, **(arms or {})}}
    study = Study.from_dict(table)
    return study, compare(study, simulated_results(study))


@pytest.mark.parametrize("amount", [1e-3, 0.1, 1.0, 30.0])
def test_the_curve_is_scipys_smoothing_spline(amount):
    values = np.random.default_rng(1).normal(size=len(PLACES))
    found = spline_weights(PLACES, FINE, amount) @ values
    np.testing.assert_allclose(found, make_smoothing_spline(PLACES, values, lam=amount)(FINE), atol=1e-10)


def test_no_smoothing_passes_through_all_values_and_endless_smoothing_is_the_straight_line_of_least_squares():
    values = np.random.default_rng(2).normal(size=len(PLACES))
    np.testing.assert_allclose(spline_weights(PLACES, PLACES, 0.0), np.eye(len(PLACES)), atol=1e-12)
    line = np.polynomial.Polynomial.fit(PLACES, values, 1)
    np.testing.assert_allclose(spline_weights(PLACES, FINE, np.inf) @ values, line(FINE), atol=1e-10)


def test_the_amount_of_smoothing_has_the_smallest_c_p():
    """Against the definition, with the trace from curves of unit vectors."""
    rng, units = np.random.default_rng(3), np.eye(len(PLACES))

    def c_p(values, noise, amount):
        matrix = np.stack([make_smoothing_spline(PLACES, unit, lam=amount)(PLACES) for unit in units], axis=1)
        return ((values - matrix @ values) ** 2).sum() / noise + 2 * np.trace(matrix) - len(PLACES)

    for noise in (0.01, 0.3, 3.0):
        values = np.sin(PLACES) + rng.normal(scale=np.sqrt(noise), size=len(PLACES))
        chosen = smoothing(PLACES, values, noise)
        least = min(c_p(values, noise, amount) for amount in np.geomspace(1e-4, 1e3, 15))
        assert c_p(values, noise, min(max(chosen, 1e-8), 1e8)) <= least + 1e-6
    assert smoothing(PLACES, values, 0.0) == 0.0


def test_the_band_is_all_that_curves_within_the_intervals_can_be():
    rng = np.random.default_rng(4)
    intervals = np.sort(rng.normal(size=(7, 2)), axis=1)
    weights = spline_weights(PLACES, FINE, 0.2)
    corners = np.array([weights @ np.array(corner) for corner in itertools.product(*intervals)])
    low, high = project(weights, intervals)
    np.testing.assert_allclose(low, corners.min(axis=0))
    np.testing.assert_allclose(high, corners.max(axis=0))


TRUTHS = {
    "flat": lambda x: 0.0 * x,
    "hump": lambda x: -0.5 * (x - 2.0) ** 2,
    "cliff": lambda x: -4.0 / (1.0 + np.exp(-4.0 * (x - 3.0))),
}


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("unequal", [False, True])
def test_the_band_holds_for_all_values_at_once(truth, unequal):
    """Five seeds, seven values; with `unequal`, the last is three times as noisy as the others."""
    studies, seeds, rng = 1_000, 5, np.random.default_rng(5)
    spread = np.where(unequal & (PLACES[-1] == PLACES), 3.0, 1.0)
    runs = TRUTHS[truth](PLACES) + spread * rng.standard_normal((studies, seeds, len(PLACES)))
    judged = judge_many(runs[..., 1:] - runs[..., :1], LookPlan.of(len(PLACES) - 1, [seeds]), 0.05)
    means, halves = (np.insert(array, 0, 0.0, axis=1) for array in (judged.mean, judged.half_width))
    true = TRUTHS[truth](PLACES) - TRUTHS[truth](PLACES[:1])
    missed = 0
    for mean, half, sd in zip(means, halves, judged.sd, strict=True):
        amount = smoothing(PLACES, mean, float(np.mean(sd**2)) / seeds / 2)
        weights = spline_weights(PLACES, FINE, amount)
        low, high = project(weights, np.stack([mean - half, mean + half], axis=-1))
        missed += bool(((weights @ true < low - 1e-9) | (weights @ true > high + 1e-9)).any())
    assert missed / studies <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / studies)


def test_levels_are_the_verdicts():
    study, found = make(evidence={"margin": 0.02})
    (mean,) = sensitivities(study, found)
    rows = {row.arm: row for row in found.comparisons}
    assert (mean.key, mean.name, mean.scale) == ("params.mean", "mean", "linear")
    assert [level.value for level in mean.levels] == [0.7, 0.75, 0.79, 0.8, 0.81]
    assert [level.verdict for level in mean.levels] == ["worse", "worse", "equivalent", "reference", "equivalent"]
    for level in mean.levels:
        if level.arm != "default":
            row = rows[level.arm]
            assert (level.difference, level.interval) == (row.mean_difference, row.interval)
    assert [level.value for level in mean.candidates] == [0.81]
    assert mean.at_the_edge
    ends = np.array([level.interval for level in mean.levels])
    assert mean.spread == pytest.approx((ends[:, 0].max() - ends[:, 1].min(), ends[:, 1].max() - ends[:, 0].min()))
    assert mean.spread[0] < 0.11 < mean.spread[1]


def test_of_a_loss_the_best_is_the_lowest():
    study, found = make(evidence={"metric": "final_test_loss"})
    assert [level.value for level in sensitivities(study, found)[0].candidates] == [0.81]
    study, found = make(evidence={"metric": "final_test_loss"}, values=(0.8, 0.85, 0.9), reference=0.9)
    assert [level.value for level in sensitivities(study, found)[0].candidates] == [0.9]


def test_a_value_that_lost_trials_is_shown_and_in_no_curve():
    wild = {"mean_0p75": {"params": {"mean": 0.75}}}
    study, _ = make(arms=wild)
    results = [
        replace(one, epochs=one.epochs[:1], outcome=Outcome.DIVERGED)
        if (one.arm, one.seed) == ("mean_0p75", 1)
        else one
        for one in simulated_results(study)
    ]
    (mean,) = sensitivities(study, compare(study, results))
    assert [(level.value, dict(level.lost)) for level in mean.levels if level.lost] == [(0.75, {"diverged": 1})]
    others = [level.interval for level in mean.levels if not level.lost]
    assert mean.spread[1] == pytest.approx(max(high for _, high in others) - min(low for low, _ in others))
    assert "mean_0p75" not in mean.best


def test_a_reference_that_lost_trials_is_shown_and_in_no_curve():
    study, _ = make()
    results = [
        replace(one, epochs=one.epochs[:1], outcome=Outcome.DIVERGED) if (one.arm, one.seed) == ("default", 1) else one
        for one in simulated_results(study)
    ]
    found = compare(study, results)
    (mean,) = sensitivities(study, found)
    assert [(level.value, dict(level.lost)) for level in mean.levels if level.lost] == [(0.8, {"diverged": 1})]
    assert "default" not in mean.best
    (said,) = sensitivity_grid(found, [mean]).lead
    assert "reference (1 diverged) at 0.8" in said


def test_without_intervals_there_is_no_curve_and_with_two_values_no_sensitivity():
    study, found = make(seeds=1)
    (mean,) = sensitivities(study, found)
    assert (mean.curve, mean.spread, mean.best, mean.at_the_edge) == (None, None, (), False)
    study, found = make(values=(0.7, 0.8))
    assert sensitivities(study, found) == ()


def test_arms_that_differ_in_more_than_one_setting_are_on_no_axis():
    study, found = make(arms={"other": {"params": {"mean": 0.6, "noise_sd": 0.001}}, "named": {"params": {"arm": "n"}}})
    (mean,) = sensitivities(study, found)
    assert 0.6 not in [level.value for level in mean.levels]


def test_the_betas_are_settings_of_their_own():
    grid = {"design": "one_at_a_time", "optimizer": {"beta2": [0.9, 0.99, 0.9999], "beta1": [0.8, 0.95]}}
    loop = {"loop": "fairtrial.testing:simulate", "epochs": 1}
    study = Study(name="s", reference="default", seeds=3, training=loop, arms={"default": {}}, grid=grid)
    found = sensitivities(study, compare(study, simulated_results(study)))
    assert [(one.key, one.scale, [level.value for level in one.levels]) for one in found] == [
        ("optimizer.beta2", "log below one", [0.9, 0.99, 0.999, 0.9999]),
        ("optimizer.beta1", "linear", [0.8, 0.9, 0.95]),
    ]


def test_the_band_is_around_the_curve_and_meets_the_reference_there():
    study, found = make()
    (mean,) = sensitivities(study, found)
    values, middle, low, high = map(np.array, vars(mean.curve).values())
    assert (np.diff(values) > 0).all()
    assert (values[0], values[-1]) == pytest.approx((0.7, 0.81))
    assert ((low <= middle) & (middle <= high)).all()
    json.dumps(vars(mean.curve))


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-4, 3e-4, 1e-3], "log"),
        ([0.9, 0.97, 0.99, 0.997, 0.999], "log below one"),
        ([0.1, 0.2, 0.3], "linear"),
        ([0.8, 0.9, 0.95], "linear"),
        ([16, 32, 64, 128], "log"),
        ([0.0, 1e-4, 1e-2], "linear"),
        ([-1.0, 0.0, 1.0], "linear"),
    ],
)
def test_a_scale_is_the_one_on_which_values_are_evenly_spread(values, scale):
    assert scale_of(values) == scale
    assert (np.diff(on_scale(values, scale)) > 0).all()
