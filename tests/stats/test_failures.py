"""Failures as a comparison of their own: exact, at any number of looks, and without a cost to other verdicts."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from fairtrial.stats.failures import _ratio, compare_failures, compare_rates, could_settle, failure_caveats
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.paired import PairedData
from fairtrial.stats.sequential import judge_many
from fairtrial.stats.verdicts import Failures, Verdict


def losing(arm, reference, seeds=12):
    """Data of two arms that lost these seeds."""
    lost = {("wild", seed): "diverged" for seed in arm} | {("a", seed): "failed" for seed in reference}
    keys = [(name, seed) for name in ("wild", "a") for seed in range(seeds)]
    return PairedData({key: 0.5 for key in keys if key not in lost}, lost, frozenset(), frozenset())


def found(arm, reference=(), seeds=12, arms=1):
    return compare_failures(losing(arm, reference, seeds), "wild", "a", seeds, arms)


@pytest.mark.parametrize(("lost", "number"), [(0, 1), (1, 1), (3, 8), (8, 8), (20, 30), (0, 12)])
def test_the_likelihood_ratio_is_the_integral_that_its_formula_says(lost, number):
    uniform, _ = integrate.quad(lambda p: 2.0 * p**lost * (1 - p) ** (number - lost), 0.5, 1.0)
    expected = 2.0**number * (0.25 * uniform + 0.75 * (lost == number))
    assert _ratio(lost, number) == pytest.approx(expected)


def test_it_is_a_martingale_where_both_fail_equally_often():
    """The mean over all sequences of ten informative seeds is 1, and few ever exceed 1 / p, whenever one looks."""
    paths = [list(itertools.accumulate(path)) for path in itertools.product((0, 1), repeat=10)]
    ratios = np.array([[_ratio(lost, number) for number, lost in enumerate(path, start=1)] for path in paths])
    assert ratios.mean(axis=0) == pytest.approx(np.ones(10))
    for p in (0.2, 0.05, 0.025, 0.01):
        assert (ratios.max(axis=1) >= 1 / p).mean() <= p


def test_twelve_of_twelve_against_none_is_found_and_so_are_eight_beside_three_other_arms():
    assert found(range(12), arms=4).verdict(0.05) is Verdict.WORSE
    assert found(range(8), arms=4).verdict(0.05) is Verdict.WORSE
    assert found(range(7), arms=4).verdict(0.05) is Verdict.UNDECIDED
    assert found((), range(6)).verdict(0.05) is Verdict.BETTER
    assert found(range(5)).verdict(0.05) is Verdict.UNDECIDED


def test_seeds_that_both_lost_or_that_only_one_has_ended_say_nothing():
    assert found(range(12), range(12)).p_adjusted == 1.0
    assert found(range(6), [8, 9]).p_adjusted == found([*range(6), 8], [8, 9, 10]).p_adjusted
    data = losing(range(12), ())
    cut = PairedData(
        {key: value for key, value in data.values.items() if key[1] < 3}, data.lost, frozenset(), frozenset()
    )
    assert compare_failures(cut, "wild", "a", 12, 1).seeds == 3


def test_failures_so_far_and_to_come_tell_whether_they_could_settle_an_arm():
    assert could_settle(found(range(3), seeds=3), 3, 1, 0.05)
    assert not could_settle(found(range(3), seeds=3), 2, 1, 0.05)
    assert not could_settle(found(range(3), range(3), seeds=3), 3, 1, 0.05)


def test_without_a_failure_the_rate_that_would_not_have_shown_is_said():
    """Of n runs that all work: 1 - 0.05^(1/n)."""
    assert found((), seeds=6).highest_rate == pytest.approx(1 - 0.05 ** (1 / 6))
    assert found(range(2)).highest_rate == pytest.approx(stats.binomtest(2, 12).proportion_ci(0.9).high)


@pytest.mark.parametrize("arms", [1, 4])
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.5, 0.9])
def test_it_takes_no_alpha_from_other_verdicts(arms, rate):
    """All arms are equal and fail equally often: verdicts by means and by failures together err in at most 5%."""
    studies, looks = 2_000, range(3, 25)
    rng = np.random.default_rng([7, arms, int(100 * rate)])
    values = rng.standard_normal((studies, looks[-1], arms + 1))
    lost = rng.random(values.shape) < rate
    ours, theirs = lost[..., 1:], lost[..., :1]
    judged = judge_many(np.where(ours | theirs, np.nan, values[..., 1:] - values[..., :1]), LookPlan.of(arms, looks))
    ratio = np.array([[_ratio(x, n) if n > 0 and x <= n else 1.0 for x in range(25)] for n in range(25)])
    only = np.stack([ours & ~theirs, theirs & ~ours]).cumsum(axis=2)
    e_values = np.maximum.accumulate(ratio[only.sum(axis=0), only].max(axis=0), axis=1)
    last = (np.array(looks)[np.maximum(judged.look, 0)] - 1)[:, None]  # an arm that settled gets no more seeds
    failed = np.take_along_axis(e_values, last, axis=1)[:, 0] >= 2 * arms / 0.05
    lost_ours, lost_theirs = (np.take_along_axis(counts, last, axis=1)[:, 0] > 0 for counts in only)
    by_mean = ((judged.finding == 1) & ~lost_ours) | ((judged.finding == -1) & ~lost_theirs)
    assert (failed | by_mean).any(axis=1).mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.parametrize(
    ("lost", "p", "said"),
    [
        ((3, 2), 0.58, "the failure rates can't be told apart (p = 0.58, over all arms and looks)."),
        ((8, 0), 0.0001, "the failure rates differ (p < 0.001, over all arms and looks)."),
        ((8, 8), 1.0, None),
    ],
)
def test_failures_are_compared_in_a_sentence_where_there_is_something_to_compare(lost, p, said):
    failures = Failures(8, *lost, *lost, p, side="arm", highest_rate=1.0)
    whole = () if said is None else (f"Of 8 seeds it lost {lost[0]} and a {lost[1]}: {said}",)
    assert tuple(failure_caveats(failures, "a", Verdict.UNDECIDED, 0.05)) == whole


@pytest.mark.parametrize("counts", [(5, 6, 0, 6), (1, 3, 4, 9), (0, 4, 3, 3), (2, 5, 2, 5), (0, 3, 0, 3)])
def test_rates_of_unpaired_runs_are_compared_by_fishers_test(counts):
    lost, runs, other_lost, other_runs = counts
    table = [[lost, runs - lost], [other_lost, other_runs - other_lost]]
    tails = {side: stats.fisher_exact(table, alternative=side).pvalue for side in ("greater", "less")}
    found = compare_rates(*counts, arms=1)
    assert found.p_adjusted == pytest.approx(min(2 * min(tails.values()), 1.0))
    assert (found.side == "arm") == (tails["greater"] < tails["less"])
    assert compare_rates(*counts, arms=3).p_adjusted == pytest.approx(min(3 * 2 * min(tails.values()), 1.0))
    assert (found.seeds, found.arm, found.reference, found.reference_runs) == (runs, lost, other_lost, other_runs)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.7])
@pytest.mark.parametrize("runs", [(4, 4), (3, 12), (10, 6)])
def test_means_and_failures_of_unpaired_runs_err_together_in_at_most_alpha(rate, runs):
    """Exactly, over all numbers of lost runs of two arms that do not differ; means err in at most alpha."""
    alpha, total = 0.05, 0.0
    for lost in range(runs[0] + 1):
        for other in range(runs[1] + 1):
            chance = stats.binom.pmf(lost, runs[0], rate) * stats.binom.pmf(other, runs[1], rate)
            failed = compare_rates(lost, runs[0], other, runs[1], arms=1).verdict(alpha).settled
            by_means = alpha if not lost and not other else 0.0 if lost and other else alpha / 2
            total += chance * (1.0 if failed else by_means)
    assert total <= alpha


def test_failures_of_unpaired_runs_are_told_in_runs():
    found = compare_rates(2, 5, 0, 6, arms=1)
    assert tuple(failure_caveats(found, "a", Verdict.UNDECIDED, 0.05)) == (
        "It lost 2 of 5 runs, and a 0 of 6: the failure rates can't be told apart (p = 0.36, over all arms).",
    )
    assert tuple(failure_caveats(compare_rates(3, 3, 6, 6, arms=1), "a", Verdict.UNDECIDED, 0.05)) == ()
    [said] = failure_caveats(compare_rates(0, 5, 0, 6, arms=1), "a", Verdict.BETTER, 0.05)
    assert said.startswith("No run of it failed in 5 runs, but a failure rate of up to 45% would not have shown")
