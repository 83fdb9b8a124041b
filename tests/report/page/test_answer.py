"""The three sentences: made from the verdicts, in words that are true of them."""

import re
from dataclasses import replace

import pytest

from builders import make_results as made_results
from builders import make_study
from fairtrial.report.page.answer import three_sentences
from fairtrial.report.page.material import Material
from fairtrial.stats.comparison import compare
from fairtrial.stats.verdicts import Verdict
from report.page.pages import small_study


def sentences(study, results):
    material = Material.of(study, results)
    return three_sentences(study, compare(study, results), material.ended, material.planned)


@pytest.fixture(scope="module")
def three():
    arms = {
        "baseline": {},
        "high_beta1": {"mean": 0.801},
        "low_beta2": {"mean": 0.74},
        "wild": {"diverge_seeds": [0, 1, 2, 3]},
    }
    return sentences(*small_study(arms))


def test_question_answer_and_what_it_rests_on(three):
    question, answer, basis = three
    assert question == "Do high_beta1, low_beta2 and wild differ from baseline in best test accuracy?"
    assert re.search(r"low_beta2 is worse by \d\.\d points \(95% interval \d\.\d to \d\.\d\)", answer)
    assert re.search(
        r"high_beta1 is undecided, with a 95% interval from \d\.\d points worse to \d\.\d points better", answer
    )
    assert basis.startswith("This rests on up to 5 seeds an arm, compared seed by seed")


def test_an_arm_that_diverged_in_most_seeds_is_named(three):
    assert "wild diverged in 4 of 5 trials" in three[1]


def test_confidence_is_no_probability_and_undecided_is_not_nothing(three):
    text = " ".join(three)
    assert not re.search("probab|chance|likely|significan|no difference|nothing", text, re.IGNORECASE)
    assert "the 95% confidence level is that of all intervals together" in text
    assert "undecided means that these runs show neither a difference nor that there is none that matters" in text


def test_one_seed_shows_no_spread():
    _, answer, basis = sentences(*small_study({"a": {}, "b": {"mean": 0.7}}, seeds=1))
    assert answer == "b is undecided, without an interval."
    assert basis.startswith("This rests on one run an arm, which shows nothing of how far results spread")


def test_one_arm():
    question, answer, _ = sentences(*small_study({"only": {}}))
    assert question == "What best test accuracy does only reach?"
    assert answer == "The study has one arm, so there is no difference to judge."


def test_an_unfinished_study_says_so():
    study, results = small_study({"a": {}, "b": {"mean": 0.7}})
    _, _, basis = sentences(study, [result for result in results if result.seed < 3])
    assert "6 of 10 trials have ended" in basis
    question, _, basis = sentences(study, [])
    assert question == "Does b differ from a in best test accuracy?"
    assert basis.startswith("So far 0 of 10 trials have ended, and no seed has ended in every arm")


def test_of_many_arms_the_verdicts_are_counted():
    arms = {"base": {}} | {f"arm{number}": {"mean": 0.8 - number / 100} for number in range(1, 30)}
    question, answer, _ = sentences(*small_study(arms))
    assert question == "Which of 29 arms differ from base in best test accuracy?"
    assert re.match(r"\d+ are worse \(arm\d+, arm\d+, arm\d+, arm\d+ and \d+ more\); ", answer)
    assert sum(map(int, re.findall(r"(\d+) (?:is|are) ", answer))) == 29
    assert len(answer) < 400


def test_where_lower_is_better_the_words_are_turned():
    study = make_study(("a", "b"), seeds=6, evidence={"metric": "final_train_loss"})
    results = made_results(
        study, lambda arm, seed, epoch: {"train_loss": 1.0 + (arm == "b") * (1 + (seed % 3) / 50) + epoch / 1000}
    )
    assert "b is worse by 1" in sentences(study, results)[1]


def test_a_settled_interval_never_ends_at_zero():
    study = make_study(("a", "b"), seeds=3)
    row = {"mean_difference": 0.0133, "interval": (0.0004, 0.0263)}
    found = compare(study, made_results(study))
    found = replace(found, comparisons=(replace(found.comparisons[0], verdict=Verdict.BETTER, **row),))
    assert three_sentences(study, found, 6, 6)[1] == "b is better by 1.33 points (95% interval 0.04 to 2.63)."


def test_a_sequential_study_that_has_settled_is_not_open():
    study, results = small_study({"a": {}, "b": {"mean": 0.6}}, seeds={"min": 3, "max": 12})
    results = [result for result in results if result.seed < 6]
    assert "may change" not in sentences(study, results)[2]
