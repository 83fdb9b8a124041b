"""Replaying looks: what settles stays, and errors are what is promised."""

import numpy as np
import pytest

from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sequential import EQUIVALENT, HIGHER, LOWER, UNDECIDED, judge_many

PLAN = LookPlan.of(4, range(3, 13))
EFFECTS = np.array([0.0, 0.5, 1.5, 4.0])


def paired(noise, studies, seed, arms=4):
    """Differences of unit variance without true differences."""
    rng = np.random.default_rng(seed)
    draw = {
        "normal": rng.standard_normal,
        "t3": lambda shape: rng.standard_t(3, shape) / np.sqrt(3),
        "exponential": lambda shape: rng.exponential(size=shape) - 1,
        "lognormal": lambda shape: (rng.lognormal(size=shape) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1)),
    }[noise]
    cells = draw((studies, 12, arms + 1))
    return (cells[..., 1:] - cells[..., :1]) / np.sqrt(2)


def at_most(rate, bound, studies):
    """Whether a simulated rate goes with a true one within the bound: three standard errors."""
    return rate <= bound + 3 * np.sqrt(bound * (1 - bound) / studies)


NOISES = ["normal", "t3", "exponential", "lognormal"]


@pytest.mark.parametrize("noise", NOISES)
def test_false_verdicts_over_all_arms_and_looks_are_rare(noise):
    found = judge_many(paired(noise, 8_000, seed=11), PLAN)
    rate = (found.finding != UNDECIDED).any(axis=1).mean()
    assert at_most(rate, 0.05, 8_000)
    assert rate > 0.005  # or the test would hold for a rule that never speaks


@pytest.mark.parametrize("noise", NOISES)
def test_all_reported_intervals_cover_together_though_arms_stop_early(noise):
    found = judge_many(paired(noise, 8_000, seed=12) + EFFECTS, PLAN, margin=1.0)
    missed = (np.abs(found.mean - EFFECTS) > found.half_width).any(axis=1).mean()
    assert at_most(missed, 0.05, 8_000)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("margin", [1.0, 2.0])
def test_arms_at_the_margins_edge_are_rarely_called_equivalent(noise, margin):
    found = judge_many(paired(noise, 8_000, seed=13) - margin, PLAN, margin=margin)
    assert at_most((found.finding == EQUIVALENT).any(axis=1).mean(), 0.025, 8_000)


def test_one_and_ten_arms_keep_the_promise_too():
    for arms in (1, 10):
        found = judge_many(paired("normal", 8_000, seed=14, arms=arms), LookPlan.of(arms, range(3, 13)))
        assert at_most((found.finding != UNDECIDED).any(axis=1).mean(), 0.05, 8_000)


def test_missing_values_and_arms_that_settle_early_keep_the_promise():
    differences = paired("normal", 8_000, seed=20)
    differences[np.random.default_rng(0).random(differences.shape) < 0.2] = np.nan
    found = judge_many(differences, PLAN)
    assert at_most((found.finding != UNDECIDED).any(axis=1).mean(), 0.05, 8_000)
    found = judge_many(paired("normal", 8_000, seed=21) + np.array([0.0, 5.0, 5.0, 5.0]), PLAN)
    assert (found.finding[:, 1:] == HIGHER).mean() > 0.99
    assert at_most((found.finding[:, 0] != UNDECIDED).mean(), 0.025, 8_000)


SPREADS = {  # of the reference, then of each arm, up to 1 : 10; "scaled" multiplies whole differences
    "one arm": ("cells", 4, (1, 9)),
    "two arms": ("cells", 4, (1, 3, 3)),
    "the reference": ("cells", 4, (3,)),
    "the reference, much": ("cells", 4, (10,)),
    "a quiet arm": ("cells", 4, (1, 1 / 10)),
    "all but one": ("cells", 4, (10, 10, 10, 10)),
    "scaled, two of four": ("scaled", 4, (1, 10, 10)),
    "scaled, one of two": ("scaled", 2, (1, 3)),
    "the reference of two": ("cells", 2, (5,)),
    "five of ten": ("scaled", 10, (1, *(3,) * 5)),
    "the reference of ten": ("cells", 10, (3,)),
}


def spread(cells, kind, numbers):
    scale = np.array([*numbers, *(1,) * (cells.shape[2] - len(numbers))])
    if kind == "scaled":
        return (cells[..., 1:] - cells[..., :1]) * scale[1:] / np.sqrt(2)
    cells = cells * scale
    return (cells[..., 1:] - cells[..., :1]) / np.sqrt(2)


@pytest.mark.parametrize("name", SPREADS)
def test_unequal_spread_does_not_break_the_promise(name):
    kind, arms, numbers = SPREADS[name]
    differences = spread(np.random.default_rng(15).normal(size=(8_000, 12, arms + 1)), kind, numbers)
    found = judge_many(differences, LookPlan.of(arms, range(3, 13)))
    assert at_most((found.finding != UNDECIDED).any(axis=1).mean(), 0.05, 8_000)


def test_pooling_without_a_guard_breaks_it():
    differences = spread(np.random.default_rng(15).normal(size=(8_000, 12, 5)), "scaled", (1, 3))
    found = judge_many(differences, LookPlan.of(4, range(3, 13), "pooled"))
    assert (found.finding != UNDECIDED).any(axis=1).mean() > 0.09


def test_arms_that_settled_early_do_not_make_others_look_noisy_or_quiet():
    """Arms with a true difference settle early when their spread came out small."""
    noise = spread(np.random.default_rng(16).normal(size=(8_000, 12, 5)), "cells", (1, 2))
    found = judge_many(noise + np.array([0.0, 2.0, 2.0, 2.0]), PLAN)
    assert at_most((found.finding[:, 0] != UNDECIDED).mean(), 0.05, 8_000)


@pytest.mark.parametrize("ratio", [1, 10])
def test_arms_apart_keep_the_promise(ratio):
    differences = spread(np.random.default_rng(17).normal(size=(8_000, 12, 5)), "cells", (1, 1, ratio, 1, ratio))
    found = judge_many(differences, LookPlan.of(4, range(3, 13), apart=[2, 4]))
    rate = (found.finding != UNDECIDED).any(axis=1).mean()
    assert at_most(rate, 0.05, 8_000)
    assert rate > 0.03
    assert (found.df[:, [1, 3]] == found.count[:, [1, 3]] - 1).all()


def test_large_effects_are_found_with_few_seeds():
    found = judge_many(paired("normal", 2_000, seed=16) + np.array([4.0, -4.0, 2.0, -2.0]), PLAN)
    assert (found.finding == [HIGHER, LOWER, HIGHER, LOWER]).mean() > 0.99
    seeds = found.look.mean(axis=0) + 3
    assert (seeds[:2] < 4).all()
    assert (seeds[2:] < 6).all()


def test_a_settled_arm_keeps_its_verdict_whatever_comes_later():
    differences = paired("normal", 300, seed=17) + EFFECTS
    whole = judge_many(differences, PLAN, margin=1.0)
    rng = np.random.default_rng(0)
    stopped = np.where(whole.finding != UNDECIDED, np.array(PLAN.looks)[whole.look], 12)
    after = np.arange(12)[None, :, None] >= stopped[:, None, :]
    assert after.any()
    for later in (np.nan, 1e6 * rng.normal(size=differences.shape)):
        again = judge_many(np.where(after, later, differences), PLAN, margin=1.0)
        np.testing.assert_array_equal(again.finding, whole.finding)
        np.testing.assert_array_equal(again.half_width, whole.half_width)


def test_fewer_seeds_are_the_same_study_earlier():
    differences = paired("normal", 300, seed=18) + EFFECTS
    whole = judge_many(differences, PLAN)
    for seeds in (3, 6, 9):
        early = judge_many(differences[:, :seeds], PLAN)
        settled = early.finding != UNDECIDED
        np.testing.assert_array_equal(early.finding[settled], whole.finding[settled])
        np.testing.assert_array_equal(early.look[settled], whole.look[settled])
        assert (early.look[~settled] == seeds - 3).all()


def test_a_study_is_judged_the_same_alone_and_among_others():
    differences = paired("normal", 50, seed=19) + EFFECTS
    many = judge_many(differences, PLAN, margin=1.0)
    for index, study in enumerate(differences):
        alone = judge_many(study[None], PLAN, margin=1.0)
        np.testing.assert_array_equal(alone.finding[0], many.finding[index])
        np.testing.assert_allclose(alone.half_width[0], many.half_width[index], rtol=1e-9)
        np.testing.assert_allclose(alone.level[0], many.level[index], rtol=1e-6)


def test_before_the_first_look_nothing_is_said():
    found = judge_many(np.full((2, 2, 4), 7.0), PLAN)
    assert (found.look == -1).all()
    assert (found.finding == UNDECIDED).all()
    assert np.isnan(found.half_width).all()
