"""Decisions, and the promise that each wrong one has at most probability alpha."""

import numpy as np
import pytest
from scipy import stats

from fairtrial import judge
from fairtrial.spec.evidence import both_sides
from fairtrial.stats.gate import Decision, alpha_for, decide, false_alarms
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sequential import ABOVE, BELOW, EQUIVALENT, HIGHER, LOWER, UNDECIDED, judge_many
from fairtrial.stats.verdicts import Verdict

LOOKS, GATES = range(3, 13), 4_000


def one(values, **options):
    (row,) = judge(np.array(values)[:, None], 0.01, looks=[len(values)], one_sided=True, alpha=0.1, **options)
    return row


@pytest.mark.parametrize("mean", [-0.02, -0.011, -0.006, -0.004, 0.0, 0.02])
@pytest.mark.parametrize("larger_is_better", [True, False])
def test_decisions_are_those_of_one_sided_t_tests(mean, larger_is_better):
    sign = 1 if larger_is_better else -1
    values = sign * (mean + 0.003 * np.random.default_rng(1).standard_normal(6))
    row = one(values, larger_is_better=larger_is_better)
    passes = stats.ttest_1samp(sign * values, -0.01, alternative="greater").pvalue < 0.05
    worse = stats.ttest_1samp(sign * values, 0.0, alternative="less").pvalue < 0.05
    expected = Decision.PASSED if passes else Decision.WORSE if worse else Decision.UNDECIDED
    assert decide(row) is expected


def test_a_small_loss_that_is_real_passes_within_the_margin():
    row = one([-0.004, -0.0041, -0.0039, -0.004])
    assert row.interval[1] < 0.0
    assert row.verdict is Verdict.NON_INFERIOR
    assert "The difference is real, since the interval excludes zero, but it is within the margin." in row.caveats


def test_a_gain_passes_without_that_remark():
    row = one([0.04, 0.041, 0.039, 0.04])
    assert row.verdict is Verdict.NON_INFERIOR
    assert not any("within the margin" in line for line in row.caveats)


def test_an_undecided_gate_knows_how_many_seeds_it_needs():
    near = one([-0.004, 0.004, -0.012, 0.006])
    assert decide(near) is Decision.UNDECIDED
    assert near.more_seeds > 0


def rates(differences, alpha, margin=1.0):
    arms = differences.shape[2]
    plan = LookPlan.of(arms, LOOKS)
    found = judge_many(differences, plan, both_sides(alpha, arms), margin, ABOVE).finding
    passed = (found == EQUIVALENT) | (found == HIGHER)
    return passed.any(axis=1).mean(), (found == LOWER).any(axis=1).mean(), (found == UNDECIDED).any(axis=1).mean()


@pytest.mark.parametrize("arms", [1, 4])
@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_each_wrong_answer_has_at_most_probability_alpha(arms, sd, alpha):
    """At any moment of stopping; three standard errors are allowed for the simulation."""
    noise = np.random.default_rng([arms, int(sd * 2)]).standard_normal((GATES, LOOKS[-1], arms + 1)) * sd / np.sqrt(2)
    differences = noise[..., 1:] - noise[..., :1]
    most = alpha + 3 * np.sqrt(alpha * (1 - alpha) / GATES)
    assert rates(differences, alpha)[1] <= most  # alarms for changes that cost nothing
    assert rates(differences - 1.0, alpha)[0] <= most  # passes of changes that cost the margin


def test_harmful_changes_are_caught_and_harmless_ones_pass():
    noise = 0.5 * np.random.default_rng(0).standard_normal((GATES, LOOKS[-1], 1))
    assert rates(noise, 0.05)[0] > 0.95
    assert rates(noise - 1.0, 0.05)[1] > 0.95


def test_the_side_turns_with_the_direction():
    differences = np.random.default_rng(0).standard_normal((500, LOOKS[-1], 2))
    plan = LookPlan.of(2, LOOKS)
    above, below = (judge_many(sign * differences, plan, 0.1, 1.0, side) for sign, side in ((1, ABOVE), (-1, BELOW)))
    turned = np.where(np.isin(below.finding, (HIGHER, LOWER)), -below.finding, below.finding)
    np.testing.assert_array_equal(above.finding, turned)
    np.testing.assert_array_equal(above.look, below.look)


def test_a_month_of_gates():
    assert false_alarms(0.05, 20) == (1.0, pytest.approx(stats.binom.sf(0, 20, 0.05)))
    assert false_alarms(alpha_for(0.05, 20), 20)[1] == pytest.approx(0.05)
