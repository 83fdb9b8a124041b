"""The textbook's answers against SciPy's and statsmodels'."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from fairtrial.stats.classical import equivalence_p, holm, paired_test


@pytest.mark.parametrize("seed", range(20))
def test_paired_test_is_scipys(seed):
    rng = np.random.default_rng(seed)
    arm, reference = rng.normal(rng.normal(), 1.0, size=(2, int(rng.integers(2, 15))))
    found = paired_test(arm - reference, alpha=0.1)
    expected = stats.ttest_rel(arm, reference)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.9)), rel=1e-9)
    assert found.mean_difference == pytest.approx(float(np.mean(arm - reference)))
    assert found.seeds == len(arm)


@pytest.mark.parametrize("seed", range(20))
def test_equivalence_is_statsmodels_two_one_sided_tests(seed):
    rng = np.random.default_rng(seed)
    arm, reference = rng.normal(size=(2, int(rng.integers(3, 15))))
    margin = rng.uniform(0.2, 3.0)
    expected = ttost_paired(arm, reference, -margin, margin)[0]
    assert equivalence_p(arm - reference, margin) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_holm_is_statsmodels(seed):
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=int(rng.integers(1, 12))) ** 3
    p[: len(p) // 3] = p[0]  # ties
    np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-9)


@pytest.mark.parametrize("differences", [[], [1.0], [1.0, 1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_no_test_without_spread(differences):
    with pytest.raises(ValueError, match=r"at least two finite differences|all differences are equal"):
        paired_test(differences)


def test_margins_and_p_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match="margin = 0"):
        equivalence_p([1.0, 2.0], margin=0)
    for p in ([0.5, 1.5], [-0.1], [np.nan], [[0.5]]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            holm(p)
