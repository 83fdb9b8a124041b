"""Looks at trials that were looked at before: counted, at levels that together keep to alpha."""

from datetime import UTC, datetime

import numpy as np
import pytest

from fairtrial.history import History, Registered
from fairtrial.question import Question
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare
from fairtrial.stats.judge import judge
from fairtrial.stats.looks import LookPlan, Stage
from fairtrial.stats.sequential import judge_many
from fairtrial.stats.stages import Standing, standing
from fairtrial.testing import simulated_results, simulated_study

EVERY = tuple(range(3, 13))
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
    assert standing(study(3), None, "best_test_acc", None) == Standing(1, (3,), pytest.approx(0.7))
    assert standing(study({"min": 3, "max": 5}), None, "best_test_acc", None) == Standing(1, (3, 4, 5), 1.0)
    assert standing(study(3, final=True), None, "best_test_acc", None) == Standing(1, (3,), 1.0)


def test_seeds_that_are_added_go_on_with_a_plan_of_every_number_up_to_a_horizon():
    first = Stage((3,), pytest.approx(0.7), (0, 1, 2))
    for chain in ((3, 4), (3, 8), (3, 5, 8), (3, 12, 9)):
        found = stands(*map(study, chain))
        assert found == Standing(len(chain), EVERY[1:], pytest.approx(0.91), (first,))
    later = stands(study(3), study(5), study(20))
    assert (later.looks, later.share) == (tuple(range(13, 37)), pytest.approx(1 - 0.3**3))
    assert later.earlier == (first, Stage(EVERY[1:], pytest.approx(0.91), (0, 1, 2)))


def test_the_same_look_again_and_a_smaller_one():
    assert stands(study(3), study(3, margin=0.01)) == Standing(2, (3,), pytest.approx(0.7))
    fewer = stands(study(5), study(3))
    assert fewer.reasons == ("these trials were looked at with more seeds before",)
    results = simulated_results(study(3))
    verdict = compare(study(3), results, history=registered(study(5), study(3)))
    assert {row.interval for row in verdict.comparisons} == {None}


FEWER = "these trials were looked at with more seeds before"
PAIR = {arm: ARMS[arm] for arm in "ab"}


@pytest.mark.parametrize(
    ("chain", "reasons"),
    [
        ((study(12), study(5, PAIR)), (FEWER,)),
        ((study(12, PAIR), study(5)), (f"{FEWER} (for b)",)),  # c is new
        ((study(6), study(6, PAIR)), ("an arm was left out after these trials were looked at",)),
        ((study(6, PAIR), study(6)), ()),
        ((study(6), study(9, PAIR)), ()),
        ((study(3), study(6), study(3, final=True)), (FEWER,)),
        ((study(3), study(9), study({"min": 3, "max": 6})), (FEWER,)),
        ((study(3), study(6), study(6, final=True)), ()),
    ],
)
def test_fewer_seeds_than_before_are_no_test(chain, reasons):
    assert stands(*chain).reasons == reasons


def test_another_reference_is_no_test():
    turned = simulated_study({"b": ARMS["b"], "a": {}, "c": {}}, seeds=3)
    assert stands(study(3), turned).reasons == ("the reference was a before",)
    assert stands(study(3), turned, study(6)).reasons == ()  # as it was first
    assert stands(turned, study(3), study(6)).reasons == ("the reference was b before",)
    without = simulated_study({"b": ARMS["b"], "c": {}}, seeds=3)
    assert stands(study(3), without).reasons == ("the reference was another arm before",)
    assert stands(study(3), turned, base="a").reasons == ()  # claims have no reference


@pytest.mark.parametrize(
    ("chain", "looks", "earlier"),
    [
        ((study(3), study({"min": 6, "max": 12})), tuple(range(4, 13)), 1),
        ((study(3), study({"min": 3, "max": 20})), tuple(range(4, 21)), 1),
        ((study(3), study(6, final=True)), tuple(range(4, 13)), 1),
        ((study(3), study(3, final=True)), (3,), 0),
        ((study(3), study(5), study({"min": 6, "max": 10})), tuple(range(4, 13)), 1),
        ((study(3), study(5), study({"min": 6, "max": 20})), tuple(range(13, 37)), 2),
    ],
)
def test_a_plan_and_a_final_look_spend_the_rest(chain, looks, earlier):
    found = stands(*chain)
    assert (found.number, found.looks, found.share, len(found.earlier)) == (len(chain), looks, 1.0, earlier)


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
    expected = judge(table, looks=range(4, 13), earlier=earlier, share=1 - 0.3**2)
    found = compare(second, results, history=history)
    assert [row.interval for row in found.comparisons] == [row.interval for row in expected]
    (tested,) = check_claims(
        second, results, history=history
    ).claims  # about one direction: each end has its side alone
    expected = judge(table, alpha=0.1, looks=range(4, 13), earlier=earlier, share=1 - 0.3**2)
    assert tested.decisive.interval == pytest.approx(expected[0].interval, rel=1e-12)


def test_a_study_that_was_extended_keeps_what_it_gave():
    first, second = study(3), study(6)
    before = compare(first, simulated_results(first), history=registered(first))
    again = compare(first, simulated_results(second)[:9], history=registered(first))
    assert before == again


@pytest.mark.parametrize("arms", [1, 4])
def test_looks_at_every_number_of_seeds_err_in_5_percent_together(arms):
    """Each at 5%, they err in 18% of studies. Who looks at some only, whichever they choose, errs less often."""
    studies = 20_000
    cells = np.random.default_rng(1).standard_normal((studies, 36, arms + 1))
    table = (cells[..., 1:] - cells[..., :1]) / np.sqrt(2)
    wrong = np.zeros(studies, bool)
    names = {f"x{number}": {} for number in range(arms + 1)}
    for seeds in (3, 12, 36):
        found = stands(*[study(number, names) for number in dict.fromkeys((3, seeds))])
        plan = LookPlan.of(arms, found.looks, earlier=found.earlier, share=found.share)
        wrong |= (judge_many(table[:, :seeds], plan).finding != 0).any(axis=1)
    assert wrong.mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    assert wrong.mean() > 0.03 if arms == 1 else wrong.mean() > 0.01
