"""What a study set when: read from the stages that were registered before it."""

from datetime import UTC, datetime

import pytest

from builders import make_study
from fairtrial import sources
from fairtrial.history import History, Registered
from fairtrial.question import Question, arm_digests, planned_looks

AT = datetime(2026, 1, 2, tzinfo=UTC)
CLAIM = {"id": "1", "text": "b beats a", "arm": "b", "against": "a", "metric": "best_test_acc", "direction": "higher"}


def stage(study, ended=0, number=1, earlier=()):
    """A registered stage, with so many trials of each arm ended."""
    question = Question.of(study)
    return Registered(number, question, AT, {arm: ended for arm in question.arms if ended}, earlier)


def history(*stages, beside=()):
    *before, own = stages
    return History(own, tuple(before), beside=tuple(beside))


def ab(**sections):
    return make_study(("a", "b"), **sections)


def test_a_question_survives_json():
    study = make_study(seeds={"min": 3, "max": 5}, evidence={"margin": 0.01}, noise={"initial_weights": 1})
    question = Question.of(study)
    assert Question.from_json(question.to_json()) == question
    assert question.looks == (3, 4, 5)


def test_names_and_their_order_are_no_part_of_a_question():
    one = {"ref": {}, "x": {"optimizer": {"eps": 1e-6}}}
    two = {"base": {}, "other": {"optimizer": {"eps": 1e-6}}}
    assert Question.of(make_study(one)).key == Question.of(make_study(two)).key
    assert Question.of(make_study(one)).key != Question.of(make_study(one, seeds=5)).key


def test_questions_share_arms_over_the_same_seeds():
    whole, part, alone = (Question.of(make_study(arms)) for arms in (("a", "b", "c"), ("a", "b"), ("a",)))
    assert whole.shares_arms(part)
    assert part.shares_arms(whole)
    assert not whole.shares_arms(alone)
    assert not whole.shares_arms(Question.of(make_study(("a", "b"), noise={"batch_orders": 1})))


def test_looks():
    assert [planned_looks(*seeds) for seeds in ((1, 1), (1, 3), (4, 4), (3, 5))] == [(), (2, 3), (4,), (3, 4, 5)]


def test_what_was_set_before_any_trial_ended_is_no_reason():
    study = ab(evidence={"margin": 0.01})
    assert history(stage(study)).set_afterwards(study) == ()
    longer = ab(seeds=8, evidence={"margin": 0.01})
    assert history(stage(study), stage(longer, 3)).set_afterwards(longer) == ()


@pytest.mark.parametrize(
    ("evidence", "reasons"),
    [
        ({"margin": 0.02}, ("the margin 0.02 was set after 6 trials had ended",)),
        ({"metric": "final_test_acc"}, ("the measure final_test_acc was set after 6 trials had ended",)),
        ({"alpha": 0.1, "margin": 0.01}, ("alpha 0.1 was set after 6 trials had ended",)),
        ({"margin": 0.01, "lost_below": 0.2}, ("lost_below 0.2 was set after 6 trials had ended",)),
        ({"margin": 0.01, "pooling": "own"}, ("pooling own was set after 6 trials had ended",)),
        (
            {"margin": 0.01, "against": 0.79},
            ("the comparison with the constant 0.79 was set after 6 trials had ended",),
        ),
        (
            {"margin": 0.01, "also": ["final_test_acc", "best_train_acc"]},
            ("the further measure final_test_acc and best_train_acc was set after 6 trials had ended",),
        ),
        ({"margin": 0.01, "best": True}, ("the search for the best arm was set after 6 trials had ended",)),
        ({"margin": 0.01, "best": False}, ("the search for the best arm was removed after 6 trials had ended",)),
        ({"margin": 0.01, "alpha": 0.05 / 3}, ("alpha 0.0166667 was set after 6 trials had ended",)),
        ({}, ()),  # without its margin, a study has one kind of verdict less
    ],
)
def test_what_was_set_after_trials_had_ended_is_said(evidence, reasons):
    first, second = ab(evidence={"margin": 0.01}), ab(evidence=evidence)
    assert history(stage(first), stage(second, 3)).set_afterwards(second) == reasons


def test_a_standard_that_was_dropped_afterwards_is_said():
    first, second = ab(evidence={"lost_below": 0.2}), ab()
    assert history(stage(first), stage(second, 3)).set_afterwards(second) == (
        "lost_below was removed after 6 trials had ended",
    )


def test_a_study_of_trials_that_were_there_before_is_exploratory():
    study = ab(evidence={"margin": 0.01})
    assert history(stage(study, 3)).set_afterwards(study) == (
        "the measure best_test_acc was set after 6 trials had ended",
    )


def test_one_arm_alone_shows_no_difference():
    study = ab(evidence={"margin": 0.01})
    reference = arm_digests(study)["a"]
    assert history(Registered(1, Question.of(study), AT, {reference: 3})).set_afterwards(study) == ()


def test_an_arm_that_is_added_was_not_asked_about_before():
    first = ab(evidence={"margin": 0.01})
    more = make_study(("a", "b", "c"), evidence={"margin": 0.02})
    counts = {digest: 3 for arm, digest in arm_digests(more).items() if arm != "c"}
    own = Registered(2, Question.of(more), AT, counts)
    assert history(stage(first), own).set_afterwards(more) == (
        "the margin 0.02 was set after 6 trials had ended (for b)",
    )
    assert history(own).set_afterwards(more) == ("the measure best_test_acc was set after 6 trials had ended (for b)",)


def test_claims_that_were_made_or_withdrawn_afterwards_are_said():
    other = CLAIM | {"id": "2", "direction": "lower"}
    without, one, both = ab(), ab(claims=[CLAIM]), ab(claims=[CLAIM, other])
    assert history(stage(one)).claimed_afterwards(one) == ()
    assert history(stage(without), stage(one, 3)).claimed_afterwards(one) == (
        "claim 1 was made after 6 trials had ended",
    )
    assert history(stage(one), stage(both, 3)).claimed_afterwards(both) == (
        "claim 2 was made after 6 trials had ended",
    )
    assert history(stage(both), stage(one, 3)).claimed_afterwards(one) == (
        "other claims were withdrawn after 6 trials had ended",
    )
    renamed = ab(claims=[CLAIM | {"id": "x", "text": "said otherwise"}])
    assert history(stage(one), stage(renamed, 3)).claimed_afterwards(renamed) == ()


AGAINST = {"against": 0.8}


def test_one_arm_that_is_compared_with_a_constant_goes_on_by_itself():
    one, more, other = (make_study(("a",), seeds=seeds, evidence=AGAINST) for seeds in (3, 6, 6))
    assert Question.of(one).shares_arms(Question.of(more))
    assert not Question.of(one).shares_arms(Question.of(make_study(("a",), seeds=6)))
    assert history(stage(one), stage(more, 3)).set_afterwards(more) == ()
    other = make_study(("a",), evidence={"against": 0.9})
    assert history(stage(one), stage(other, 3)).set_afterwards(other) == (
        "the comparison with the constant 0.9 was set after 3 trials had ended",
    )
    assert history(stage(one, 3)).set_afterwards(one) == ("the measure best_test_acc was set after 3 trials had ended",)


def test_of_measures_that_were_registered_before_any_trial_the_first_is_the_test():
    first, second = ab(evidence={"margin": 0.01}), ab(evidence={"metric": "final_test_acc"})
    asked = "another measure was asked of these trials first (best_test_acc); ask both in one study with also"
    looked = stage(second, number=2, earlier=(1,))
    assert history(stage(first), looked).set_afterwards(second) == (asked,)
    assert history(stage(first), stage(second, number=2)).set_afterwards(second) == ()  # nobody has seen the first
    longer = ab(seeds=8, evidence={"margin": 0.01})
    assert history(stage(first), looked, stage(longer, 3, 3, (1, 2))).set_afterwards(longer) == ()
    both = ab(evidence={"also": ["final_test_acc"]})
    assert history(stage(both), looked).set_afterwards(second) == ()


def on_seeds(first, number=1, arms="ab", **evidence):
    """The stage of a study whose seeds of noise begin with this one; arms of the same letter are the same."""
    changes = {arm: {"optimizer": {"eps": 1e-8 * ord(arm)}} for arm in arms}
    return stage(make_study(changes, noise={"first_seed": first} if first else {}, evidence=evidence), number=number)


def repeated(own, *beside):
    return history(own, beside=beside).repeated(own.question.measures[0])


def test_the_same_question_on_other_seeds_is_exploratory_but_for_one_confirmation():
    first, second = on_seeds(0), on_seeds(1000, 2)
    assert repeated(first, second) == ()  # it was asked first
    assert repeated(second, first) == ()
    assert repeated(on_seeds(2000, 3), first, second) == ("2 other sets of seeds were asked the same before",)
    assert repeated(on_seeds(5, 2), first) == ("1 other set of seeds was asked the same before",)
    assert repeated(on_seeds(1000, 2, "abc"), first) == ("1 other set of seeds was asked the same before",)
    assert repeated(on_seeds(2, 2), first) == ("these seeds of noise overlap those of an earlier study",)
    assert repeated(on_seeds(2, 2), on_seeds(0, metric="seconds")) == ()
    assert repeated(on_seeds(2, 2), on_seeds(0, arms="ac")) == ()


def tuned(rates, first=0, number=1):
    """The stage of a study whose arms a and b were tuned to these rates."""
    found = {arm: {"optimizer.lr": rate} for arm, rate in zip("ab", rates, strict=True)}
    arms = {arm: {"optimizer": {"eps": 1e-8 * ord(arm), "lr": rate}} for arm, rate in zip("ab", rates, strict=True)}
    tuning = {"trials": 2, "space": {"optimizer": {"lr": {"log": [1e-4, 1.0]}}}, "found": found}
    sections = {"data": {"name": "digits", "validation": 100}, "noise": {"first_seed": first} if first else {}}
    return stage(make_study(arms, tuning=tuning, **sections), number=number)


def test_arms_that_are_tuned_again_after_a_look_are_the_same_question():
    first = tuned([0.1, 0.01])
    assert Question.from_json(first.question.to_json()) == first.question
    other = ("these arms were tuned to other values, and compared, before",)
    assert repeated(tuned([0.1, 0.02], number=2), first) == other
    assert repeated(tuned([0.3, 0.02], number=2), first) == other
    assert repeated(first, tuned([0.1, 0.02], number=2)) == ()  # it was asked first
    assert repeated(tuned([0.3, 0.02], 5, 2), first) == ("1 other set of seeds was asked the same before",)
    again = tuned([0.3, 0.02], 1000, 2)
    assert repeated(again, first) == ()
    assert "Another set of seeds was asked the same before" in "".join(
        history(again, beside=[first]).alerts("a", again.question.measures[0])
    )
    assert repeated(tuned([0.3, 0.02], 2000, 3), first, again) == ("2 other sets of seeds were asked the same before",)


def test_a_list_of_seeds_that_gets_more_at_its_end_is_the_same_plan_and_any_other_list_is_not():
    def listed(seeds):
        return Question.of(ab(seeds=seeds))

    first = listed([3, 17, 42])
    assert first.shares_arms(listed([3, 17, 42, 5]))
    assert listed([0, 1, 2, 9]).shares_arms(listed(3))
    for other in ([3, 17, 5], [17, 3, 42], [17, 42, 3, 5], 4):
        assert not first.shares_arms(listed(other))


def test_what_no_error_rate_covers_is_an_alert():
    def alerts(own, *beside):
        return [*history(own, beside=beside).alerts("a", own.question.measures[0])]

    one, *others = [on_seeds(0, number, arms) for number, arms in enumerate(("ab", "ac", "ade", "fa"), start=1)]
    said = "compared with these trials of a in other studies of this store; no error rate covers all of them together."
    assert alerts(one, *others) == [f"4 other arms were {said}"]
    assert alerts(on_seeds(0, 5, "abc"), on_seeds(0, arms="af")) == [f"1 other arm was {said}"]
    assert alerts(one, on_seeds(0, arms="ac", metric="seconds"), on_seeds(50, arms="ac"), on_seeds(0, arms="bd")) == []
    assert alerts(on_seeds(1000, 2), one) == [
        "Another set of seeds was asked the same before: the error rate is that of these seeds alone, from 1000 on."
    ]
    assert alerts(on_seeds(2000, 3), one, on_seeds(1000, 2)) == []  # it is exploratory


def test_the_code_of_a_measure_is_a_part_of_the_question(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "measure_in_question.py"
    source = "from fairtrial.measures import PLAIN, Measure\nmine = Measure('m', 'm', PLAIN, 'higher', lambda _: {})\n"
    study = None

    def written(number, ended):
        nonlocal study
        file.write_text(source.format(number))
        sources.forget()
        study = ab(evidence={"metric": "measure_in_question:mine"})
        return stage(study, ended)

    first, changed = written(1.0, 0), written(2.0, 3)
    assert Question.from_json(changed.question.to_json()) == changed.question
    said = "the code of measure measure_in_question:mine was changed after 6 trials had ended"
    assert history(first, changed).set_afterwards(study) == (said,)
    claimed = ab(claims=[CLAIM | {"metric": "measure_in_question:mine"}])
    assert history(first, stage(claimed, 3)).claimed_afterwards(claimed) == (said,)
    assert history(first, written(3.0, 0)).set_afterwards(study) == ()  # changed before any trial ended
    assert history(written(1.0, 0)).set_afterwards(study) == ()
    assert Question.of(ab()).code == {}


def test_keys_that_only_add_evaluations_are_no_part_of_an_arm():
    plain = ab()
    for training in ({"ema": 0.999}, {"recalibrate_batch_norm": True}, {"evaluations_last_epoch": 3}):
        assert [*arm_digests(ab(training=training)).values()] == [*arm_digests(plain).values()]
    assert arm_digests(ab(training={"batch_size": 32})) != arm_digests(plain)
    both = make_study({"a": {}, "b": {"training": {"ema": 0.999}}})
    first, second = arm_digests(both).values()
    assert first == arm_digests(plain)["a"]
    assert "+" not in second  # where arms differ in nothing else, it counts


def test_looks_at_the_same_measure_count():
    first, other, third = ab(seeds=3), ab(seeds=3, evidence={"metric": "seconds"}), ab(seeds=5)
    one, two = stage(first), stage(other, 3, number=2)
    own = stage(third, 3, number=3, earlier=(1, 2))
    (measure,) = own.question.measures
    assert history(one, two, own).looked_at(measure) == (one,)
    assert history(one, two, stage(third, number=3)).looked_at(measure) == ()


def test_that_runs_are_not_paired_is_a_standard_of_its_own():
    paired, unpaired = ab(), ab(evidence={"paired": False})
    said = "the comparison of unpaired runs was {} after 6 trials had ended"
    assert history(stage(paired), stage(unpaired, 3, 2)).set_afterwards(unpaired) == (said.format("set"),)
    assert history(stage(unpaired), stage(paired, 3, 2)).set_afterwards(paired) == (said.format("removed"),)
    assert history(stage(unpaired), stage(unpaired, 3, 2)).set_afterwards(unpaired) == ()
