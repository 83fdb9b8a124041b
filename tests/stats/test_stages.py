"""Looks at trials that were looked at before: counted, at levels that together keep to alpha."""

from datetime import UTC, datetime

import numpy as np
import pytest

from fairtrial.history import History, Question, Registered
from fairtrial.stats.boundary import LookPlan, Stage
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare
from fairtrial.stats.judge import judge
from fairtrial.stats.sequential import judge_many
from fairtrial.stats.stages import Standing, standing
from fairtrial.testing import simulated_results, simulated_study

AT = datetime(2026, 1, 2, tzinfo=UTC)
ARMS = {"a": {}, "b": {"mean": 0.81}, "c": {}}
CLAIM = {"id": "1", "text": "b leads", "arm": "b", "against": "a", "direction": "higher"}


def registered(*studies):
    """The history of the last of some studies, each of which was looked at before the next."""
    stages = [
        Registered(number, Question.of(study), AT, {}, tuple(range(1, number)))
        for number, study in enumerate(studies, start=1)
    ]
    return History(stages[-1], tuple(stages[:-1]))


def stands(*studies, **options):
    return standing(studies[-1], registered(*studies), studies[-1].evidence.metric, None, **options)


def study(seeds, arms=ARMS, **evidence):
    return simulated_study(arms, seeds=seeds, evidence=evidence, claims=[CLAIM] if "b" in arms else [])


def test_a_study_without_a_history_is_the_first_look():
    assert standing(study(3), None, "best_test_acc", None) == Standing(1, pytest.approx(0.7))
    assert standing(study({"min": 3, "max": 5}), None, "best_test_acc", None) == Standing(1, 1.0)
    assert standing(study(3, final=True), None, "best_test_acc", None) == Standing(1, 1.0)


def test_each_further_look_spends_most_of_what_is_left():
    found = stands(study(3), study(5), study(8))
    assert (found.number, found.share, found.reasons) == (3, pytest.approx(1 - 0.3**3), ())
    assert [(stage.looks, stage.cells) for stage in found.earlier] == [((3,), (0, 1, 2)), ((5,), (0, 1, 2))]
    assert [stage.share for stage in found.earlier] == pytest.approx([0.7, 0.91])


@pytest.mark.parametrize("last", [study({"min": 6, "max": 12}), study(6, final=True)])
def test_a_plan_and_a_final_look_spend_the_rest(last):
    found = stands(study(3), last)
    assert (found.number, found.share, len(found.earlier)) == (2, 1.0, 1)


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (study({"min": 3, "max": 5}), "a plan of 3 to 5 seeds spent the error rate of these trials"),
        (study(3, final=True), "a final look at 3 seeds spent the error rate of these trials"),
    ],
)
def test_what_comes_after_that_has_no_error_rate_left(first, reason):
    second = study(8)
    found = stands(first, second)
    assert (found.number, found.share, found.earlier, found.reasons) == (2, 1.0, (), (reason,))
    verdict = compare(second, simulated_results(second), history=registered(first, second))
    assert (verdict.exploratory, verdict.stage, verdict.set_beforehand) == ((reason,), 2, False)
    claims = check_claims(second, simulated_results(second), history=registered(first, second))
    assert (claims.exploratory, claims.stage) == ((reason,), 2)


def test_an_arm_that_is_added_after_a_plan_has_its_own_error_rate():
    found = stands(study({"min": 3, "max": 5}, {"a": {}, "b": {"mean": 0.81}}), study(5))
    assert found.share == pytest.approx(0.7)
    assert found.reasons == ("a plan of 3 to 5 seeds spent the error rate of these trials (for b)",)


def test_another_measure_is_another_question():
    other = simulated_study(ARMS, seeds=3, evidence={"metric": "final_test_acc"})
    assert stands(other, study(5)).number == 1


def test_arms_are_numbered_from_the_plans_reference():
    turned = simulated_study({"b": ARMS["b"], "a": {}, "d": {"mean": 0.7}}, seeds=3)
    assert stands(turned, study(5)).earlier[0].cells == (1, 0, 3)  # it compared a and d with b
    assert stands(turned, study(5), base="a").earlier[0].cells == (0, 1, 3)  # its claims may have compared all with a


def test_verdicts_and_claims_are_judged_at_the_stages_level():
    first, second = study(3), study(6)
    results, history = simulated_results(second), registered(first, second)
    final = {(r.arm, r.seed): r.epochs[-1].metrics["test_acc"] for r in results}
    table = [[final[arm, seed] - final["a", seed] for arm in "bc"] for seed in range(6)]
    earlier = [Stage((3,), 0.7, (0, 1, 2))]
    expected = judge(table, looks=[6], earlier=earlier, share=1 - 0.3**2)
    found = compare(second, results, history=history)
    assert [row.interval for row in found.comparisons] == [row.interval for row in expected]
    (tested,) = check_claims(second, results, history=history).claims
    assert tested.decisive.interval == pytest.approx(expected[0].interval, rel=1e-12)


def test_a_study_that_was_extended_keeps_what_it_gave():
    first, second = study(3), study(6)
    before = compare(first, simulated_results(first), history=registered(first))
    again = compare(first, simulated_results(second)[:9], history=registered(first))
    assert before == again


EVERY = tuple(range(3, 13))


@pytest.mark.parametrize(
    ("arms", "chain"),
    [(1, (3, 5, 8, 12)), (4, (3, 5, 8, 12)), *(pytest.param(n, EVERY, marks=pytest.mark.slow) for n in (1, 4))],
)
def test_looks_taken_one_study_after_another_err_in_5_percent_together(arms, chain):
    """Separate looks at 5% each err in 14% of studies for the first chain, and in 18% for the second."""
    studies = 20_000
    cells = np.random.default_rng(1).standard_normal((studies, 12, arms + 1))
    table = (cells[..., 1:] - cells[..., :1]) / np.sqrt(2)
    wrong = np.zeros(studies, bool)
    earlier = []
    for number, seeds in enumerate(chain, start=1):
        share = 1 - 0.3**number
        plan = LookPlan.of(arms, [seeds], earlier=earlier, share=share)
        wrong |= (judge_many(table[:, :seeds], plan).finding != 0).any(axis=1)
        earlier.append(Stage((seeds,), share, tuple(range(arms + 1))))
    error = wrong.mean()
    assert error <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    assert error > 0.03 if arms == 1 else error > 0.01
