"""Confirmation: the arm that led, and the reference, on seeds that nobody has seen."""

from datetime import UTC, datetime

import pytest

from fairtrial.errors import StudyError
from fairtrial.history import History, Registered
from fairtrial.question import Question
from fairtrial.scheduler import plan
from fairtrial.stats.comparison import compare
from fairtrial.stats.confirmation import confirmation
from fairtrial.testing import simulated_results, simulated_study

ARMS = {"ref": {}, "near": {"mean": 0.805}, "up": {"mean": 0.83}, "broken": {"mean": 0.95, "diverge_seeds": [1]}}


def confirm(arms=ARMS, seeds=5, **sections):
    study = simulated_study(arms, seeds=seeds, **sections)
    return study, confirmation(study, simulated_results(study))


def test_it_is_a_study_of_its_own_of_the_leading_arm_and_the_reference():
    evidence = {"metric": "final_test_acc", "margin": 0.01, "also": ["seconds"], "pairs": "all", "best": True}
    claim = {"id": "1", "text": "x", "arm": "near", "against": "ref", "direction": "higher"}
    study, again = confirm(seeds={"min": 3, "max": 6}, evidence=evidence, claims=[claim])
    assert [arm.name for arm in again.arms] == ["ref", "up"]
    assert (again.name, again.reference, again.min_seeds, again.seeds) == ("simulated-confirmation", "ref", 3, 6)
    assert again.arm("up").settings == study.arm("up").settings
    assert (again.evidence.margin, again.question_alpha, again.claims) == (0.01, 0.05, ())


def test_no_trial_of_it_was_seen_before():
    study, again = confirm()
    before, fresh = ({trial.hash for trial in plan(one)} for one in (study, again))
    assert before.isdisjoint(fresh)
    assert [trial.weights_seed for trial in plan(again) if trial.arm == "up"] == [1000, 1001, 1002, 1003, 1004]
    assert [trial.order_seed for trial in plan(again) if trial.arm == "up"] == [1000, 1001, 1002, 1003, 1004]
    assert confirmation(again, simulated_results(again)).noise.first_seed == 2000
    numbers = [compare(one, simulated_results(one)).comparisons[-1].mean_difference for one in (study, again)]
    assert numbers[0] != numbers[1]


def test_its_seeds_are_past_those_of_all_studies_of_these_arms():
    study = simulated_study(ARMS, seeds=20, noise={"first_seed": 990})
    results = simulated_results(study)
    again = confirmation(study, results)
    assert again.noise.first_seed == 2000  # 990 to 1009 were used
    other = simulated_study(ARMS, seeds=3, noise={"first_seed": 2010})

    def known(*studies):
        asked = [Question.of(one) for one in (study, *studies)]
        return History(Registered(1, asked[0], datetime(2026, 1, 2, tzinfo=UTC), {}), asked=tuple(asked))

    assert confirmation(study, results, history=known(other)).noise.first_seed == 3000
    assert confirmation(study, results, history=known(again)) == again  # it goes on


def test_a_reference_that_leads_is_compared_with_the_next_arm():
    _, again = confirm({"ref": {"mean": 0.9}, "low": {"mean": 0.7}, "next": {"mean": 0.8}})
    assert [arm.name for arm in again.arms] == ["ref", "next"]
    _, again = confirm(evidence={"metric": "final_train_loss"})
    assert [arm.name for arm in again.arms] == ["ref", "up"]


def test_without_results_there_is_nothing_to_confirm():
    study = simulated_study(ARMS, seeds=3)
    with pytest.raises(StudyError, match="has no results yet that tell which arm leads"):
        confirmation(study, ())
    with pytest.raises(StudyError, match="has no results yet"):
        confirm({"ref": {}, "broken": {"diverge_rate": 1.0}})
