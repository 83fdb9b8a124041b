"""Studies of many arms: reading them is work that grows as their arms, counted in calls."""

import statistics
import sys

import numpy as np
import pytest

from fairtrial import question
from fairtrial.estimate import estimate
from fairtrial.report.views import View
from fairtrial.stats import boundary
from fairtrial.stats.comparison import compare
from fairtrial.stats.judge import _Arm, _Judgment
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.summary import summarize
from fairtrial.testing import simulated_results, simulated_study


def calls_of(function, *args):
    """How many functions a call calls, with each step of a generator."""
    count = 0

    def profile(_frame, event, _arg):
        nonlocal count
        count += event in {"call", "c_call"}

    question.arm_digests.cache_clear()
    sys.setprofile(profile)
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture(scope="module")
def studies():
    """A small and a large study, with their results; both lost trials."""

    def make(arms):
        table = {f"a{n}": {"diverge_seeds": [1]} if n % 10 == 5 else {} for n in range(arms)}
        study = simulated_study(table, seeds=3, epochs=1)
        return study, simulated_results(study)

    return make(60), make(240)


@pytest.mark.parametrize(
    "read",
    [
        lambda study, results: question.arm_digests(study),
        summarize,
        lambda study, results: View(summarize(study, results)).text(100),
        lambda study, results: estimate(study, results, spread=0.01, workers=1, threads=1),
        compare,
    ],
    ids=["digests", "summary", "table", "plan", "verdicts"],
)
def test_four_times_the_arms_are_four_times_the_work(studies, read, monkeypatch):
    monkeypatch.setattr(boundary, "solve", lambda plan: np.minimum(0.1 * boundary.ALPHAS, 1.0))
    small, large = studies
    read(*large)  # imports and simulations
    assert calls_of(read, *large) < 5.0 * calls_of(read, *small)


def test_the_typical_spread_of_the_others_is_their_median():
    rng = np.random.default_rng(4)
    for _ in range(300):
        sds = rng.choice([0.0, np.nan, 1.0, 2.0, *rng.random(3)], size=rng.integers(1, 8))
        alone = rng.random(len(sds)) < 0.2
        arms = tuple(
            _Arm(str(n), bool(own), 0, 0, 0.1, 0.1, 3, 0.0, float(sd), 1.0, 1.0, 3)
            for n, (own, sd) in enumerate(zip(alone, sds, strict=True))
        )
        judgment = _Judgment(LookPlan.of(len(arms), [3]), 0.05, None, 1, 3, arms)
        for arm in arms:
            others = [one.sd for one in arms if one is not arm and one.sd > 0.0 and not one.alone]
            if not arm.alone:
                assert judgment.typical_sd(arm) == (statistics.median(others) if others else None)
