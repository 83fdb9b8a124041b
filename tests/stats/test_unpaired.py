"""Verdicts from runs that share no seeds: errors by simulation, numbers against SciPy, lost runs, and odd samples."""

import math

import numpy as np
import pytest
from scipy import stats

from fairtrial.stats.unpaired import judge_unpaired
from fairtrial.stats.verdicts import Verdict
from fairtrial.stats.welch import critical

ADAM = [0.843, 0.851, 0.848, 0.846]
SGD = [0.861, 0.868, 0.866, 0.859, 0.871]


def one(arm, reference=ADAM, **kwargs):
    [found] = judge_unpaired({"adam": reference, "arm": arm}, "adam", **kwargs)
    return found


def said(row):
    return " ".join(row.caveats)


def simulated(rng, numbers, spreads, arms, studies=20_000):
    """Differences of means and half-widths, (studies, arms), of arms that are alike, and do not differ."""
    base, *parts = (rng.normal(0.0, spread, (studies, runs)) for runs, spread in zip(numbers, spreads, strict=True))
    halves, means = [], []
    for part in parts:
        squares = [one.var(axis=1, ddof=1) / one.shape[1] for one in (part, base)]
        limits = critical(part.shape[1] - 1, base.shape[1] - 1, squares[0] / sum(squares), 0.05 / arms)
        halves.append(limits * np.sqrt(sum(squares)))
        means.append(part.mean(axis=1) - base.mean(axis=1))
    return np.transpose(means), np.transpose(halves)


def test_an_interval_is_that_of_the_critical_value():
    variances = [np.var(runs, ddof=1) / len(runs) for runs in (SGD, ADAM)]
    half = float(critical(4, 3, variances[0] / sum(variances), 0.05)) * math.sqrt(sum(variances))
    mean = np.mean(SGD) - np.mean(ADAM)
    assert one(SGD).interval == pytest.approx((mean - half, mean + half))


@pytest.mark.parametrize(
    ("numbers", "spreads"),
    [((3, 3), (1, 1)), ((3, 3), (1, 5)), ((3, 8, 8), (5, 1, 1)), ((6, 3, 4, 3), (1, 10, 1, 2)), ((2, 6), (2, 1))],
)
def test_at_most_one_study_in_twenty_errs(numbers, spreads):
    """No arm differs: every interval must have zero in it, and no verdict is better or worse then."""
    means, halves = simulated(np.random.default_rng(7), numbers, spreads, len(numbers) - 1)
    missed = (np.abs(means) > halves).any(axis=1)
    assert 0 < missed.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / len(missed))


@pytest.mark.parametrize(("numbers", "spreads"), [((5, 4), (1, 1)), ((3, 12), (2, 1))])
def test_an_arm_at_the_edge_of_the_margin_is_seldom_called_equivalent(numbers, spreads):
    means, halves = simulated(np.random.default_rng(8), numbers, spreads, 1)
    found = np.abs(means + 4.0) + halves <= 4.0
    assert 0 < found.mean() <= 0.025 + 3 * math.sqrt(0.025 / len(found))


def test_the_numbers():
    row = one(SGD)
    a, b = np.array(SGD), np.array(ADAM)
    welch = stats.ttest_ind(a, b, equal_var=False)
    low, high = welch.confidence_interval(0.95)
    assert row.verdict is Verdict.BETTER
    assert (row.seeds, row.mean_difference) == (5, pytest.approx(a.mean() - b.mean()))
    assert row.sd == pytest.approx(math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    assert row.interval[0] < low < high < row.interval[1]  # a little wider than Welch's
    assert row.interval[1] - row.interval[0] < 1.15 * (high - low)
    assert welch.pvalue < row.p_adjusted < 8 * welch.pvalue
    assert 0.7 < row.effect_size / (row.mean_difference / row.sd) < 1
    assert row.probability_better > 0.95
    assert 0 < row.smallest_detectable < row.mean_difference
    assert row.more_seeds is None


def test_effect_sizes_and_chances_are_right_on_average():
    rng = np.random.default_rng(9)
    rows = [one(rng.normal(1.0, 2.0, 4), rng.normal(0.0, 1.0, 7)) for _ in range(600)]
    assert np.mean([row.effect_size for row in rows]) == pytest.approx(1 / math.sqrt(2.5), abs=0.05)
    beats = rng.normal(1.0, 2.0, 10_000) > rng.normal(0.0, 1.0, 10_000)
    assert np.mean([row.probability_better for row in rows]) == pytest.approx(beats.mean(), abs=0.05)


def test_more_runs_settle_about_half():
    """Undecided studies are continued from the truth that they came from."""
    rng, settled = np.random.default_rng(10), []
    for _ in range(250):
        truth = rng.normal(0.0, 2.0)
        arm, reference = rng.normal(truth, 1.0, 5), rng.normal(0.0, 1.0, 4)
        more = one(arm, reference).more_seeds
        if more is not None and more < 16:
            longer = [np.append(part, rng.normal(mean, 1.0, more)) for part, mean in ((arm, truth), (reference, 0.0))]
            settled.append(one(*longer).verdict.settled)
    assert len(settled) > 50
    assert 0.35 < np.mean(settled) < 0.7


def test_lower_is_better_turns_verdicts_and_no_differences():
    higher, lower = one(SGD), one(SGD, larger_is_better=False)
    assert (higher.verdict, lower.verdict) == (Verdict.BETTER, Verdict.WORSE)
    assert lower.interval == higher.interval
    assert lower.effect_size == -higher.effect_size
    assert lower.probability_better == pytest.approx(1 - higher.probability_better)


def test_arms_share_alpha():
    many = judge_unpaired({"adam": ADAM, "sgd": SGD} | {f"other{i}": ADAM for i in range(9)}, "adam")
    assert many[0].interval == one(SGD, alpha=0.005).interval
    assert many[0].p_adjusted == pytest.approx(10 * one(SGD, alpha=0.005).p_adjusted)
    assert many[1].p_adjusted == 1.0
    assert judge_unpaired({"adam": ADAM}, "adam") == ()


def test_a_margin_comes_first():
    row = one(SGD, margin=0.05)
    assert row.verdict is Verdict.EQUIVALENT
    assert "The difference is real, since the interval excludes zero, but it is within the margin." in row.caveats
    assert one(SGD, margin=0.001).verdict is Verdict.BETTER
    assert one([0.845, 0.85, 0.847], margin=0.004).more_seeds > 2


def test_an_arm_that_lost_runs_can_be_found_worse_at_best():
    row = one([*SGD, math.nan])
    assert (row.verdict, row.seeds, row.more_seeds) == (Verdict.UNDECIDED, 5, None)
    assert row.mean_difference == one(SGD).mean_difference
    assert "Runs without a result count against it." in row.caveats
    assert "The runs with a result say better, but the lost runs leave it undecided." in row.caveats
    assert "It lost 1 of 6 runs, and adam 0 of 4: the failure rates can't be told apart (p = 1, over all arms)." in (
        row.caveats
    )
    assert one([*SGD, math.nan], larger_is_better=False).verdict is Verdict.WORSE


def test_where_the_reference_lost_runs_an_arm_can_be_found_better_at_best():
    assert one(SGD, [*ADAM, math.nan]).verdict is Verdict.BETTER
    row = one(SGD, [*ADAM, math.nan], larger_is_better=False)
    assert row.verdict is Verdict.UNDECIDED
    assert "Runs of adam without a result count for it." in row.caveats
    assert one([*SGD, math.nan], [*ADAM, math.nan]).verdict is Verdict.UNDECIDED


def test_failures_alone_can_decide():
    row = one([0.85] + [math.nan] * 7, [*ADAM, *ADAM])
    assert (row.verdict, row.by_failures) == (Verdict.WORSE, True)
    assert (row.failures.arm, row.failures.seeds, row.failures.reference_runs) == (7, 8, 8)
    row = one([*SGD, *SGD], [0.85, 0.84, *[math.nan] * 7])
    assert (row.verdict, row.by_failures) == (Verdict.BETTER, False) or row.by_failures


def test_too_few_runs_have_no_interval():
    for runs, why in (([0.9], "It has one run"), ([], "It has no run"), ([math.nan], "It has no run")):
        row = one(runs)
        assert (row.verdict, row.interval, row.p_adjusted, row.more_seeds) == (Verdict.UNDECIDED, None, None, None)
        assert f"{why} with a result, which shows no spread, so there is no interval." in row.caveats
    assert one([]).mean_difference is None
    assert "adam has one run with a result" in said(one(SGD, [0.8]))


def test_two_runs_say_how_little_they_find():
    assert "Two runs find only differences of " in said(one([0.9, 0.91]))
    assert "Its 2 runs, against 4, make up 90% of the squared standard error: more runs of adam would" in said(
        one([0.9, 0.91])
    )


def test_runs_that_are_all_equal():
    row = one([0.1 + 0.2, 0.3, 0.3])
    assert row.interval is not None
    assert "All 3 runs have the same value: the interval uses the spread of adam alone." in row.caveats
    assert "All 4 runs of adam have the same value: the interval uses the spread of its own runs alone." in (
        one(SGD, [0.8] * 4).caveats
    )
    row = one([0.9] * 3, [0.8] * 3)
    assert (row.verdict, row.interval, row.sd) == (Verdict.UNDECIDED, None, 0.0)
    assert "without spread there is no interval and no verdict." in said(row)


def test_unequal_spreads_are_named():
    wide = [0.2, 0.9, 0.5, 0.7]
    assert "Its runs spread 89 times as much as those of adam." in said(one(wide))
    assert "The runs of adam spread 89 times as much as its own." in said(one(ADAM, wide))
    assert "spread" not in said(one(SGD))


def test_what_is_out_of_range_is_refused():
    for values, reference, kwargs, why in (
        ({"a": ADAM}, "b", {}, "reference = 'b': must be among a"),
        ({"a": ADAM, "b": [ADAM]}, "a", {}, r"values\['b'\] have shape \(1, 4\)"),
        ({"a": ADAM, "b": [math.inf, 1.0]}, "a", {}, r"values\['b'\] exceed"),
        ({"a": ADAM}, "a", {"margin": 0.0}, "margin = 0.0: must be a positive number"),
        ({"a": ADAM}, "a", {"alpha": 1.0}, "alpha = 1.0: must be between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=why):
            judge_unpaired(values, reference, **kwargs)


def test_numbers_do_not_depend_on_the_unit():
    row, scaled = one(SGD), one([1e6 * value for value in SGD], [1e6 * value for value in ADAM])
    assert scaled.interval == pytest.approx([1e6 * end for end in row.interval])
    assert (scaled.verdict, scaled.p_adjusted) == (row.verdict, pytest.approx(row.p_adjusted))


def test_two_hundred_arms():
    rng = np.random.default_rng(11)
    values = {f"arm{index}": rng.normal(size=5) for index in range(201)}
    rows = judge_unpaired(values, "arm0")
    assert len(rows) == 200
    assert not any(row.verdict.settled for row in rows)
