"""Verdicts as users get them: classical where they should be, symmetric, and never a NaN."""

import math
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

import fairtrial
from fairtrial import Verdict, judge
from fairtrial.stats.looks import Stage

EFFECTS = np.array([4.0, -4.0, 0.0, 0.7])


def study(seed=0, seeds=12, effects=EFFECTS):
    cells = np.random.default_rng(seed).normal(size=(seeds, len(effects) + 1)) / np.sqrt(2)
    return cells[:, 1:] - cells[:, :1] + effects


@pytest.mark.parametrize("seed", range(20))
def test_one_arm_at_one_look_is_scipys_paired_t_test(seed):
    rng = np.random.default_rng(seed)
    seeds, alpha = int(rng.integers(2, 15)), rng.choice([0.01, 0.05, 0.2])
    arm, reference = rng.normal(size=(2, seeds)) + np.array([[rng.normal()], [0.0]])
    (found,) = judge((arm - reference)[:, None], alpha=alpha, looks=[seeds])
    expected = stats.ttest_rel(arm, reference)
    assert found.p_adjusted == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(1 - alpha)), rel=1e-9)
    assert found.verdict.settled == (expected.pvalue < alpha)
    if seeds == 2:
        assert found.effect_size is None
    else:  # the factor's approximation in Hedges 1981, equation 6f, is within 1% for 3 degrees of freedom or more
        factor = 1 - 3 / (4 * (seeds - 1) - 1)
        assert found.effect_size == pytest.approx(factor * expected.statistic / math.sqrt(seeds), rel=0.02)
    assert found.sd == pytest.approx(np.std(arm - reference, ddof=1))


@pytest.mark.parametrize("seed", range(30))
def test_one_arm_at_one_look_is_equivalent_where_statsmodels_two_one_sided_tests_say_so(seed):
    rng = np.random.default_rng(seed)
    arm, reference = rng.normal(size=(2, 12))
    margin = rng.uniform(0.5, 1.5)
    (found,) = judge((arm - reference)[:, None], margin, looks=[12])
    # The interval of confidence 95% holds two one-sided tests of 2.5%.
    assert (found.verdict is Verdict.EQUIVALENT) == (ttost_paired(arm, reference, -margin, margin)[0] <= 0.025)


def test_a_whole_study():
    found = judge(study(), margin=2.0, arms=["up", "down", "same", "near"])
    assert [one.arm for one in found] == ["up", "down", "same", "near"]
    assert [one.verdict for one in found] == [Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT, Verdict.EQUIVALENT]
    up, down, same, _ = found
    assert up.seeds == down.seeds == 3
    assert 3 < same.seeds <= 12
    assert up.interval[0] > 0 > down.interval[1]
    assert -2 < same.interval[0] < same.mean_difference < same.interval[1] < 2
    assert up.p_adjusted < 0.05 < same.p_adjusted
    assert up.probability_better > 0.9
    assert down.probability_better < 0.1
    assert up.mean_difference == pytest.approx(study()[:3, 0].mean())
    assert all(one.more_seeds is None for one in found)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(3, 12), st.permutations(range(4)), st.sampled_from([1e-6, 0.01, 3.0, 1e8]))
def test_units_signs_and_the_order_of_arms_do_not_matter(seed, seeds, order, unit):
    differences = study(seed, seeds)
    found = judge(differences, margin=1.5)
    for mine, other in zip((found[arm] for arm in order), judge(differences[:, order] * unit, 1.5 * unit), strict=True):
        assert (other.verdict, other.seeds, other.more_seeds) == (mine.verdict, mine.seeds, mine.more_seeds)
        assert other.p_adjusted == pytest.approx(mine.p_adjusted, rel=1e-6)
        assert np.array(other.interval) / unit == pytest.approx(np.array(mine.interval), rel=1e-6, abs=1e-9)
    turned = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    for mine, other in zip(found, judge(-differences, 1.5), strict=True):
        assert other.verdict == turned.get(mine.verdict, mine.verdict)
        assert other.interval == pytest.approx((-mine.interval[1], -mine.interval[0]))
    for mine, other in zip(found, judge(differences, 1.5, larger_is_better=False), strict=True):
        assert other.verdict == turned.get(mine.verdict, mine.verdict)
        assert (other.interval, other.mean_difference) == (mine.interval, mine.mean_difference)
        assert other.effect_size == -mine.effect_size
        assert other.probability_better == pytest.approx(1 - mine.probability_better)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(3, 12), st.sampled_from([0.01, 0.05, 0.3]))
def test_interval_verdict_and_adjusted_p_agree(seed, seeds, alpha):
    for one in judge(study(seed, seeds, EFFECTS / 2), alpha=alpha):
        apart = one.interval[0] > 0 or one.interval[1] < 0
        assert apart == one.verdict.settled == (one.p_adjusted <= alpha)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, 12), st.sampled_from(["guarded", "own"]))
def test_the_interval_contains_the_mean(seed, seeds, pooling):
    for one in judge(study(seed, seeds), margin=1.0, pooling=pooling):
        assert one.interval is None or one.interval[0] <= one.mean_difference <= one.interval[1]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.sampled_from([3, 8]), st.floats(-100, 100))
def test_a_shift_of_all_differences_moves_means_and_intervals_by_as_much(seed, seeds, shift):
    differences = study(seed, seeds)
    for mine, other in zip(judge(differences, looks=[seeds]), judge(differences + shift, looks=[seeds]), strict=True):
        assert other.mean_difference == pytest.approx(mine.mean_difference + shift, abs=1e-9)
        assert other.interval == pytest.approx(tuple(np.array(mine.interval) + shift), abs=1e-6)
        assert other.sd == pytest.approx(mine.sd)


ODD = st.sampled_from([0.0, 0.01, 0.02, -0.01, 1e-300, 1e99, math.nan])


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 3).flatmap(lambda arms: st.lists(st.lists(ODD, min_size=arms, max_size=arms), max_size=8)))
def test_whatever_is_there_no_nan_comes_out(rows):
    differences = np.array(rows, dtype=float).reshape(len(rows), -1 if rows else 2)
    for one in judge(differences, margin=0.05):
        numbers = [value for value in astuple(replace(one, interval=None)) if isinstance(value, float)]
        assert all(math.isfinite(value) for value in [*numbers, *(one.interval or ())])
        assert one.caveats or None not in astuple(replace(one, more_seeds=0))[:11]


def test_one_seed_two_seeds_none():
    for seeds in (0, 1, 2):
        for one in judge(study(seeds=seeds), margin=0.1):
            assert (one.verdict, one.seeds, one.interval, one.p_adjusted) == (Verdict.UNDECIDED, seeds, None, None)
            assert (one.mean_difference is None) == (seeds == 0)
            assert (one.sd is None) == (seeds < 2)
            assert "The first look is planned after 3 seeds" in " ".join(one.caveats)


@pytest.mark.parametrize(("value", "what"), [(0.0, "All differences are zero"), (0.1, "All differences are equal")])
def test_ties_are_said_and_not_divided_by(value, what):
    for one in judge(np.full((5, 2), value), margin=1.0):
        assert (one.verdict, one.interval, one.p_adjusted, one.sd) == (Verdict.UNDECIDED, None, None, 0.0)
        assert any(what in caveat for caveat in one.caveats)
    differences = study(seeds=5)
    differences[:, 2] = value
    tied = judge(differences)[2]
    assert tied.interval is not None
    assert tied.effect_size is None
    assert f"{what}: the interval uses the spread of the other arms alone." in tied.caveats


def test_a_whole_arm_missing_leaves_the_others_as_they_are_but_for_their_allowance():
    differences = study(seeds=6)
    differences[:, 1] = np.nan
    found = judge(differences)
    assert (found[1].verdict, found[1].seeds, found[1].mean_difference) == (Verdict.UNDECIDED, 0, None)
    assert "6 of 6 seeds have no pair in this arm." in found[1].caveats
    assert found[0].verdict is Verdict.BETTER


def test_a_missing_value_is_left_out_and_said():
    differences = study(seeds=6)
    differences[1, 2] = np.nan
    one = judge(differences)[2]
    assert one.seeds == 5
    assert one.mean_difference == pytest.approx(np.nanmean(differences[:, 2]))
    assert "1 of 6 seeds has no pair in this arm." in one.caveats


def test_ten_arms():
    found = judge(study(effects=np.r_[5.0, np.zeros(9)]))
    assert found[0].verdict is Verdict.BETTER
    assert len(found) == 10


def test_a_wild_arm_is_told_from_quiet_ones():
    differences = study(seed=3, effects=np.zeros(4))
    differences[:, 0] *= 8
    wild, *quiet = judge(differences)
    assert any("times as much as other arms', which widens its interval" in caveat for caveat in wild.caveats)
    assert all(any("Noisier arms widen its interval" in caveat for caveat in one.caveats) for one in quiet)
    _, *own = judge(differences, pooling="own")
    assert not any("Noisier" in caveat for one in own for caveat in one.caveats)
    assert all(mine.smallest_detectable < other.smallest_detectable for mine, other in zip(own, quiet, strict=True))


@pytest.mark.parametrize("arms", [1, 3])
def test_effect_sizes_are_unbiased_with_few_seeds(arms):
    cells = np.random.default_rng(1).normal(size=(3_000, 4, arms + 1)) / np.sqrt(2)
    found = [judge(one[:, 1:] - one[:, :1] + 2.0, looks=[4])[0].effect_size for one in cells]
    assert np.mean(found) == pytest.approx(2.0, abs=4 * np.std(found) / np.sqrt(len(found)))


def test_an_arm_apart_is_judged_by_its_own_spread_and_leaves_the_others_alone():
    differences = study(seed=3, effects=np.zeros(4))
    differences[:, 0] *= 50
    apart = judge(differences, apart=["arm_1"])
    assert apart[0].sd == pytest.approx(np.std(differences[:, 0], ddof=1))
    wild = apart[0].interval[1] - apart[0].interval[0]
    differences[:, 0] /= 50
    again = judge(differences, apart=["arm_1"])
    assert wild == pytest.approx(50 * (again[0].interval[1] - again[0].interval[0]))
    assert [one.interval for one in again[1:]] == [one.interval for one in apart[1:]]
    with pytest.raises(ValueError, match=r"apart = \['b'\]: must be among the arms arm_1"):
        judge(differences, apart=["b"])


def test_two_seeds_say_what_they_can_not_find():
    for one in judge(study(seeds=2), looks=[2]):
        assert any(line.startswith("Two seeds find only differences of ") for line in one.caveats)


def test_a_difference_that_stopped_early_is_said_to_be_too_large():
    line = "It stopped when the difference was clear: such a mean is too large on average, here by "
    assert any(one.startswith(line) for one in judge(study())[0].caveats)
    assert not any(one.startswith(line) for one in judge(study(seeds=3), looks=[3])[0].caveats)


def test_looks_that_a_share_of_alpha_is_left_for_may_be_extended():
    differences = study(seeds=6, effects=np.full(1, 0.2))
    (one,) = judge(differences, looks=[6], share=0.7)
    line = f"With about {6 + one.more_seeds} seeds in all there is about an even chance of a verdict; further"
    assert f"{line} looks are allowed for." in one.caveats
    assert not any("final" in caveat for caveat in one.caveats)
    (after,) = judge(differences, looks=[6], share=0.91, earlier=[Stage((3,), 0.7, (0, 1))])
    assert after.interval[0] < one.interval[0]


def test_a_real_but_small_difference_is_equivalent_with_a_caveat():
    (one,) = judge([[0.020], [0.021], [0.019], [0.020]], margin=0.1, looks=[4])
    assert one.verdict is Verdict.EQUIVALENT
    assert "The difference is real, since the interval excludes zero, but it is within the margin." in one.caveats


def test_the_last_look_is_final():
    differences = study(seeds=14, effects=np.zeros(1))
    last = judge(differences[:12])[0]
    later = judge(differences)[0]
    assert last.verdict is Verdict.UNDECIDED
    assert "This was the last look planned, after 12 seeds." in last.caveats
    assert (later.interval, later.verdict, later.seeds) == (last.interval, last.verdict, 12)
    assert "The last planned look so far was after 12 seeds; later seeds are not used." in later.caveats
    assert last.more_seeds > 0
    assert (
        f"A new study of about {12 + last.more_seeds} seeds would have about an even chance of a verdict."
        in last.caveats
    )


def test_more_seeds_are_within_the_plan_for_an_arm_that_goes_on_as_it_began():
    differences = np.resize([[0.5], [1.5], [1.0]], (12, 1))
    early = judge(differences[:3])[0]
    assert early.verdict is Verdict.UNDECIDED
    assert 3 < 3 + early.more_seeds <= 12
    assert judge(differences)[0].verdict is Verdict.BETTER


def test_seeds_between_looks_wait_for_the_next():
    differences = study(seeds=5, effects=np.zeros(2))
    found = judge(differences, looks=[3, 6])[0]
    assert found.seeds == 3
    assert "The last planned look so far was after 3 seeds; later seeds are not used." in found.caveats


@pytest.mark.parametrize(
    ("differences", "how", "message"),
    [
        ([[[1.0]]], {}, r"differences have shape \(1, 1, 1\): must be \(seeds, arms\)"),
        (np.zeros((3, 0)), {}, "arms = 0: must be at least 1"),
        ([[math.inf]], {}, r"differences exceed ±1e\+100"),
        (np.zeros((3, 1)), {"margin": 0.0}, "margin = 0.0: must be a positive number, or None"),
        (np.zeros((3, 1)), {"margin": math.nan}, "margin = nan"),
        (np.zeros((3, 1)), {"alpha": 1.0}, "alpha = 1.0: must be between 0 and 1"),
        (np.zeros((3, 1)), {"looks": []}, "looks = "),
        (np.zeros((3, 2)), {"arms": ["a"]}, "1 names of arms for 2 columns"),
        (np.zeros((3, 2)), {"pooling": "all"}, "pooling = 'all'"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(differences, how, message):
    with pytest.raises(ValueError, match=message) as error:
        judge(differences, **how)
    assert "\n" not in str(error.value)


def test_results_are_frozen_and_public():
    (one,) = judge(np.zeros((1, 1)))
    assert isinstance(one, fairtrial.Comparison)
    with pytest.raises(AttributeError):
        one.verdict = Verdict.BETTER
    assert str(Verdict.BETTER) == "better"
    assert [verdict.settled for verdict in Verdict] == [True, True, True, True, False]


def test_one_arm_may_be_a_plain_list():
    differences = [0.021, 0.019, 0.022]
    assert judge(differences, margin=0.01) == judge([[value] for value in differences], margin=0.01)
