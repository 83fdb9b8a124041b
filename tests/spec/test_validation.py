"""Seeds, noise, evidence, claims, reported figures: read, written back, and every error's wording."""

import math
import re

import pytest

import fairtrial
from fairtrial.errors import StudyError
from fairtrial.registry import MEASURES
from fairtrial.scheduler import plan
from fairtrial.spec import Claim, Evidence, Noise, Study, Target, override, parse_toml

CLAIM = {"id": "1", "text": "b beats a", "arm": "b", "against": "a", "direction": "higher"}
JOINT = {"id": "3", "text": "both", "all": ["1", "two"]}
TARGET = {"metric": "test_acc", "value": 0.6}


def table(**changes):
    """A small valid study; keywords replace top-level keys."""
    base = {"name": "s", "reference": "a", "seeds": 2, "arms": {"a": {}, "b": {"optimizer": {"eps": 1e-6}}}}
    return base | changes


FULL = {
    "seeds": {"min": 3, "max": 12},
    "evidence": {"metric": "epochs_to_target", "margin": 1, "alpha": 0.1, "target": TARGET},
    "claims": [
        CLAIM,
        CLAIM | {"id": "two", "against": "all others", "metric": "seconds", "within": 0.1, "relative": True},
    ],
    "reported": {"a": {"best_test_acc": 0.8, "seconds": 725}},
}


def test_all_of_it_is_read():
    study = Study.from_dict(table(**FULL))
    assert (study.min_seeds, study.seeds, study.sequential) == (3, 12, True)
    assert study.evidence == Evidence(
        metric="epochs_to_target", margin=1.0, alpha=0.1, target=Target(metric="test_acc", value=0.6)
    )
    assert [claim.metric for claim in study.claims] == ["epochs_to_target", "seconds"]
    assert study.claims[0] == Claim(**CLAIM, metric="epochs_to_target")
    assert study.reported == {"a": {"best_test_acc": 0.8, "seconds": 725.0}}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        FULL,
        *({key: value} for key, value in FULL.items() if key != "claims"),
        {"claims": [CLAIM]},
        {"evidence": {"also": ["seconds", {"metric": "final_test_acc", "margin": 0.01}], "best": True}},
        {"evidence": {"against": 0.9}},
        {"evidence": {"against": {"value": 0.9, "one_sided": True}}},
        {"claims": [CLAIM, CLAIM | {"id": "two"}], "joint_claims": [JOINT]},
        {"seeds": 6, "noise": {"initial_weights": 2, "batch_orders": 3}},
        {"noise": {"batch_orders": 1}},
    ],
)
def test_what_is_asked_survives_toml(changes):
    study = Study.from_dict(table(**changes))
    assert Study.from_toml(study.to_toml()) == study
    assert Study.from_toml(study.to_toml()).hash == study.hash


def test_a_study_that_asks_nothing_gets_the_defaults():
    study = Study.from_dict(table())
    assert study.evidence == Evidence(metric="best_test_acc", margin=None, alpha=0.05)
    assert (study.claims, study.reported, study.noise) == ((), {}, Noise())
    assert (study.min_seeds, study.seeds, study.sequential) == (2, 2, False)


def test_a_range_of_one_number_is_that_number():
    assert Study.from_dict(table(seeds={"min": 2, "max": 2})) == Study.from_dict(table())


def test_a_crossed_design_has_its_own_number_of_seeds():
    crossed = table(noise={"initial_weights": 2, "batch_orders": 3})
    del crossed["seeds"]
    assert Study.from_dict(crossed).seeds == 6
    larger = override(parse_toml(Study.from_dict(crossed).to_toml()), ["noise.batch_orders=4"])
    assert Study.from_dict(larger).seeds == 8


def test_what_is_asked_changes_the_studys_hash_and_no_trials():
    base = Study.from_dict(table())
    asked = [
        {"evidence": {"margin": 0.01}},
        {"claims": [CLAIM]},
        {"reported": FULL["reported"]},
        {"evidence": {"alpha": 0.1}},
    ]
    studies = [Study.from_dict(table(**changes)) for changes in asked]
    assert len({study.hash for study in [base, *studies]}) == len(asked) + 1
    assert {tuple(trial.hash for trial in plan(study)) for study in [base, *studies]} == {
        tuple(trial.hash for trial in plan(base))
    }
    assert Study.from_dict(table(evidence={"alpha": 0.05})).hash == base.hash


def test_a_figure_is_the_papers_or_follows_from_it():
    reported = {"a": {"best_test_acc": 0.75, "best_train_acc": 1.0}, "b": {"best_test_acc": 0.5}}
    study = Study.from_dict(table(reported=reported))
    assert study.figure("a", "best_test_acc") == 0.75
    assert study.figure("a", "generalisation_gap") == 0.25
    assert study.figure("b", "generalisation_gap") is None
    assert study.figure("b", "seconds") is None
    reported["a"]["generalisation_gap"] = 0.2
    assert Study.from_dict(table(reported=reported)).figure("a", "generalisation_gap") == 0.2


def test_the_papers_study_has_its_claims_and_its_table():
    paper = fairtrial.load("paper")
    assert [claim.id for claim in paper.claims] == ["1", "2", "3", "4", "5", "6", "7", "8"]
    assert paper.evidence.margin == 0.01
    assert {arm: tuple(figures.values()) for arm, figures in paper.reported.items()} == {
        "baseline": (0.8152, 0.8410, 725.0),
        "high_beta1": (0.8095, 0.8520, 718.5),
        "low_beta2": (0.7820, 0.8850, 722.0),
        "large_eps": (0.7580, 0.7690, 730.0),
        "very_high_smoothing": (0.5714, 0.6451, 721.2),
    }


def test_the_papers_claims_are_true_of_the_papers_own_table():
    """All but the fourth, for which its table has no figure: so each says what the paper says, the right way round."""
    paper = fairtrial.load("paper")
    for claim in paper.claims:
        others = (
            [arm.name for arm in paper.arms if arm.name != claim.arm]
            if claim.against == "all others"
            else [claim.against]
        )
        for other in others:
            ours, theirs = paper.figure(claim.arm, claim.metric), paper.figure(other, claim.metric)
            if claim.id == "4":
                assert ours is theirs is None
                continue
            difference = (ours - theirs) / (theirs if claim.relative else 1)
            low, high = claim.region
            assert low < difference < high, (claim.id, other)


LOOP = {"training": {"loop": "m:f"}}
SEEDS = (
    "must be an integer of at least 1, a range such as {min = 3, max = 12} or {first = 100, count = 5}, or a list such "
    "as [3, 17, 42]"
)
ERRORS = {
    "seeds as text": ({"seeds": "3"}, f'seeds = "3": {SEEDS}'),
    "one end": ({"seeds": {"max": 3}}, "seeds.min: is missing"),
    "an end that is none": ({"seeds": {"min": 0, "max": 3}}, "seeds.min = 0: must be an integer of at least 1"),
    "another end": (
        {"seeds": {"min": 1, "maximum": 3}},
        "seeds.max: is missing; unknown key `maximum` in [seeds]: did you mean `max`?",
    ),
    "ends the wrong way round": (
        {"seeds": {"min": 4, "max": 3}},
        "seeds: min = 4 must not exceed max = 3; give both, such as {min = 3, max = 12}",
    ),
    "noise": ({"noise": {"weights": 1}}, "unknown key `weights` in [noise]: did you mean `initial_weights`?"),
    "noise of one number": (
        {"noise": {"initial_weights": 3}},
        "noise: initial_weights = 3: needs batch_orders too, for a crossed design; 1 fixes it at that of seed 0",
    ),
    "no noise": (
        {"noise": {"initial_weights": 1, "batch_orders": 1}},
        "noise: initial_weights = 1 and batch_orders = 1 leave nothing that varies",
    ),
    "seeds of a crossed design": (
        {"noise": {"initial_weights": 3, "batch_orders": 2}},
        "seeds = 2: the crossed design in [noise] has 3 times 2 = 6 seeds; leave seeds out",
    ),
    "range of a crossed design": (
        {"seeds": {"min": 3, "max": 6}, "noise": {"initial_weights": 3, "batch_orders": 2}},
        "seeds = {min = 3, max = 6}: the crossed design in [noise] has 3 times 2 = 6 seeds; leave seeds out",
    ),
    "evidence no table": ({"evidence": 3}, "evidence = 3: must be a table"),
    "evidence's key": ({"evidence": {"margn": 1}}, "unknown key `margn` in [evidence]: did you mean `margin`?"),
    "target's key": (
        {"evidence": {"target": TARGET | {"valeu": 1}}},
        "unknown key `valeu` in [evidence.target]: did you mean `value`?",
    ),
    "margin": ({"evidence": {"margin": 0}}, "evidence.margin = 0: must be in (0, inf)"),
    "floor": ({"evidence": {"lost_below": "luck"}}, 'evidence.lost_below = "luck": must be a number, or "chance"'),
    "floor in percent": (
        {"evidence": {"lost_below": 15.0}},
        "evidence.lost_below = 15.0: accuracies are fractions; write 0.15",
    ),
    "floor on the better side": (
        {"evidence": {"lost_above": 0.9}},
        "evidence.lost_above = 0.9: best_test_acc is better higher; write lost_below",
    ),
    "chance of a loss": (
        {"evidence": {"metric": "generalization_gap", "lost_below": "chance"}},
        'evidence.lost_below = "chance": generalization_gap is better lower; write lost_above',
    ),
    "pooling": (
        {"evidence": {"pooling": "all"}},
        'evidence.pooling = "all": must be "guarded", "pooled" or "own"',
    ),
    "alpha": ({"evidence": {"alpha": 1.0}}, "evidence.alpha = 1.0: must be in (0, 1)"),
    "metric": (
        {"evidence": {"metric": "best_tst_acc"}},
        'evidence.metric = "best_tst_acc": did you mean `best_test_acc`?',
    ),
    "validation": (
        {"evidence": {"metric": "test_acc_at_best_val"}},
        'evidence.metric = "test_acc_at_best_val": is recorded only with data.validation',
    ),
    "averaged weights": (
        {"evidence": {"metric": "final_ema_test_acc"}},
        'evidence.metric = "final_ema_test_acc": is recorded only with training.ema',
    ),
    "more epochs than there are": (
        {"evidence": {"metric": "mean_last11_test_acc"}},
        'evidence.metric = "mean_last11_test_acc": needs 11 epochs; training.epochs = 10',
    ),
    "one evaluation in the last epoch": (
        {"evidence": {"metric": "mean_last_epoch_test_acc"}},
        'evidence.metric = "mean_last_epoch_test_acc": is recorded only with training.evaluations_last_epoch',
    ),
    "decay": ({"training": {"ema": 1.0}}, "training.ema = 1.0: must be in (0, 1)"),
    "too many evaluations": (
        {"training": {"evaluations_last_epoch": 783}},
        "training.evaluations_last_epoch = 783: must not exceed the 782 batches of an epoch",
    ),
    "evaluations of a user's loop": (
        {"training": {"loop": "m:f", "recalibrate_batch_norm": True}},
        "training.recalibrate_batch_norm: only fairtrial's own training loop has it; see params",
    ),
    "two margins": (
        {"evidence": {"margin": 0.01, "not_worse_than": 0.01}},
        "evidence.not_worse_than: is the study's only question; leave out evidence.margin",
    ),
    "a gate with even odds": (
        {"evidence": {"not_worse_than": 0.01, "alpha": 0.5}},
        "evidence.alpha = 0.5: must be below 0.5 with evidence.not_worse_than",
    ),
    "a gate in points": (
        {"evidence": {"not_worse_than": 1}},
        "evidence.not_worse_than = 1: must be below 1: best_test_acc is a fraction; write 0.01 for 1 point",
    ),
    "code that is no digest": (
        {"training": {"code": "a b"}},
        'training.code = "a b": must be a name of letters, digits, `_`, `-` and `.`',
    ),
    "no parameter": (
        {"training": {"loop": "m:f"}, "params": {"rate": float("nan")}},
        "params.rate = nan: must be a finite number, text, true or false, or a list of these",
    ),
    "metric of a user's loop": (
        LOOP | {"evidence": {"metric": "grad_norm"}},
        (
            f'evidence.metric = "grad_norm": known: {", ".join(f"`{name}`" for name in MEASURES.names())}; '
            "NAME is a metric that the training loop yields, K a number of epochs"
        ),
    ),
    "a mean of epochs, misspelt": (
        {"evidence": {"metric": "mean_last_3_test_acc"}},
        'evidence.metric = "mean_last_3_test_acc": did you mean `mean_last3_test_acc`?',
    ),
    "a mean of epochs of a user's loop, misspelt": (
        LOOP | {"evidence": {"metric": "mean_last_12_f1"}},
        'evidence.metric = "mean_last_12_f1": did you mean `mean_last12_f1`?',
    ),
    "almost a pattern": (
        LOOP | {"evidence": {"metric": "finalNAME"}},
        (
            'evidence.metric = "finalNAME": did you mean `final_NAME`? NAME is a metric that the training loop '
            "yields, K a number of epochs"
        ),
    ),
    "a metric of whole epochs": (
        {"evidence": {"metric": "mean_last_epoch_train_acc"}},
        'evidence.metric = "mean_last_epoch_train_acc": train_acc is not evaluated within an epoch',
    ),
    "no direction": (
        LOOP | {"evidence": {"metric": "final_grad_norm"}},
        'evidence.direction: is missing; say whether final_grad_norm is better "higher" or "lower"',
    ),
    "the wrong direction": (
        {"evidence": {"direction": "lower"}},
        'evidence.direction = "lower": best_test_acc is better higher; leave it out',
    ),
    "no target": (
        {"evidence": {"metric": "epochs_to_target"}},
        'evidence.target: is missing; epochs_to_target needs one, such as {metric = "test_acc", value = 0.6}',
    ),
    "target's metric": (
        {"evidence": {"target": {"metric": "test_accu", "value": 1.0}}},
        'evidence.target.metric = "test_accu": did you mean `test_acc`?',
    ),
    "target's direction": (
        LOOP | {"evidence": {"target": {"metric": "f", "value": 1.0}}},
        'evidence.target.direction: is missing; say whether f is better "higher" or "lower"',
    ),
    "claims no list": ({"claims": CLAIM}, "claims: must be a list of tables, each under [[claims]]"),
    "claim's key": (
        {"claims": [CLAIM | {"atleast": 1}]},
        "unknown key `atleast` in [claims[0]]: did you mean `at_least`?",
    ),
    "claim's id": ({"claims": [CLAIM, CLAIM]}, 'claims[1].id = "1": another claim has that id'),
    "claim's arm": (
        {"claims": [CLAIM | {"arm": "bb"}]},
        'claims[0].arm = "bb": no arm has that name; did you mean `b`?',
    ),
    "claim's other": (
        {"claims": [CLAIM | {"against": "all other"}]},
        'claims[0].against = "all other": no arm has that name; did you mean `all others`?',
    ),
    "claim's metric": (
        {"claims": [CLAIM | {"metric": "best_tst_acc"}]},
        'claims[0].metric = "best_tst_acc": did you mean `best_test_acc`?',
    ),
    "claim against itself": ({"claims": [CLAIM | {"against": "b"}]}, "claims[0]: arm and against are the same"),
    "claim of nothing": (
        {"claims": [{key: CLAIM[key] for key in ("id", "text", "arm", "against")}]},
        'claims[0]: needs direction = "higher" or "lower", or within = ...',
    ),
    "claim of an empty range": (
        {"claims": [CLAIM | {"at_least": 0.2, "within": 0.2}]},
        "claims[0]: at_least must be below within",
    ),
    "claim without a way": (
        {"claims": [{k: v for k, v in CLAIM.items() if k != "direction"} | {"at_least": 0.1, "within": 0.2}]},
        "claims[0]: at_least needs a direction",
    ),
    "claim's missing key": (
        {"claims": [{k: v for k, v in CLAIM.items() if k != "text"}]},
        "claims[0].text: is missing",
    ),
    "claim's target": (
        {"claims": [CLAIM | {"metric": "seconds_to_target"}]},
        'claims[0].target: is missing; seconds_to_target needs one, such as {metric = "test_acc", value = 0.6}',
    ),
    "unpaired runs of a sequential study": (
        {"seeds": {"min": 3, "max": 9}, "evidence": {"paired": False}},
        "evidence.paired = false: has one look; instead of a range of seeds, write a fixed number, such as seeds = 9",
    ),
    "unpaired runs of a crossed design": (
        {"seeds": 4, "noise": {"initial_weights": 2, "batch_orders": 2}, "evidence": {"paired": False}},
        "evidence.paired = false: a crossed design in [noise] is made of shared seeds; leave one out",
    ),
    "unpaired runs that are looked at again": (
        {"evidence": {"paired": False, "final": False}},
        "evidence.paired = false: its one look spends all of alpha; leave out final = false",
    ),
    **{
        f"{key} of unpaired runs": (
            {"evidence": {"paired": False, key: value}},
            f"evidence.paired = false: evidence.{key} needs runs that are paired by seed; leave out one of the two",
        )
        for key, value in {"also": ["seconds"], "against": 0.8, "best": True, "pooling": "own"}.items()
    },
    "a claim of unpaired runs": (
        {"evidence": {"paired": False}, "claims": [CLAIM]},
        "evidence.paired = false: [[claims]] needs runs that are paired by seed; leave out one of the two",
    ),
    "a measure twice": (
        {"evidence": {"metric": "seconds", "also": ["final_test_acc", "seconds"]}},
        'evidence.also[1].metric = "seconds": is named twice in [evidence]',
    ),
    "no further measure": (
        {"evidence": {"also": ["final_tst_acc"]}},
        'evidence.also[0].metric = "final_tst_acc": did you mean `final_test_acc`?',
    ),
    "a further measure's key": (
        {"evidence": {"also": [{"metric": "seconds", "margn": 3.0}]}},
        "unknown key `margn` in [evidence.also[0]]: did you mean `margin`?",
    ),
    "a further measure's margin": (
        {"evidence": {"also": [{"metric": "final_test_acc", "margin": 2}]}},
        "evidence.also[0].margin = 2: must be below 1: final_test_acc is a fraction; write 0.02 for 2 points",
    ),
    "no constant": (
        {"evidence": {"against": "b"}},
        'evidence.against = "b": must be a number, or a table such as { value = 0.9 }',
    ),
    "a constant in percent": (
        {"evidence": {"against": 85}},
        "evidence.against = 85.0: accuracies are fractions; write 0.85",
    ),
    "a constant in percent, as a table": (
        {"evidence": {"against": {"value": 85.5}}},
        "evidence.against = 85.5: accuracies are fractions; write 0.855",
    ),
    "a target in percent": (
        {"evidence": {"metric": "epochs_to_target", "target": {"metric": "test_acc", "value": 60.0}}},
        "evidence.target.value = 60.0: accuracies are fractions; write 0.6",
    ),
    "a floor that nothing reaches": (
        {"evidence": {"lost_below": 150.0}},
        "evidence.lost_below = 150.0: must be at most 1",
    ),
    "too few arms for pairs": (
        {"evidence": {"pairs": "all"}},
        "evidence.pairs: needs at least 3 arms; the study has 2",
    ),
    "a range of seeds for one arm": (
        {"arms": {"a": {}}, "seeds": {"min": 3, "max": 9}, "evidence": {"against": 0.8}},
        "evidence.against: a study of one arm needs a fixed number, such as seeds = 12",
    ),
    "a constant in a crossed design": (
        {"seeds": 6, "noise": {"initial_weights": 2, "batch_orders": 3}, "evidence": {"against": 0.8}},
        (
            "evidence.against: seeds of a crossed design share initial weights and batch orders, so that their mean "
            "has no interval; leave [noise] out"
        ),
    ),
    "pairs of what": ({"evidence": {"pairs": "some"}}, 'evidence.pairs = "some": must be "all"'),
    "joint claim's id": (
        {"claims": [CLAIM, CLAIM | {"id": "two"}], "joint_claims": [JOINT | {"id": "1"}]},
        'joint_claims[0].id = "1": another claim has that id',
    ),
    "joint claim's part": (
        {"claims": [CLAIM, CLAIM | {"id": "too"}], "joint_claims": [JOINT]},
        'joint_claims[0].all: no claim has the id "two"; did you mean `too`?',
    ),
    "joint claim of one": (
        {"claims": [CLAIM], "joint_claims": [JOINT | {"all": ["1", "1"]}]},
        "joint_claims[0]: all must name at least two claims by their ids",
    ),
    "reported no table": ({"reported": 3}, "reported = 3: must be a table"),
    "reported arm": ({"reported": {"c": {}}}, "reported.c: no arm has that name; known: `a`, `b`"),
    "reported figures": ({"reported": {"a": 0.8}}, "reported.a = 0.8: must be a table"),
    "reported measure": (
        {"reported": {"a": {"test_acc": 0.8}}},
        'reported.a: key = "test_acc": did you mean `best_test_acc`?',
    ),
    "reported number": (
        {"reported": {"a": {"best_test_acc": "81%"}}},
        'reported.a.best_test_acc = "81%": must be a number',
    ),
    "reported infinity": (
        {"reported": {"a": {"best_test_acc": math.inf}}},
        "reported.a.best_test_acc = inf: must be finite",
    ),
    "reported truth": (
        {"reported": {"a": {"best_test_acc": True}}},
        "reported.a.best_test_acc = true: must be a number",
    ),
}


@pytest.mark.parametrize(("changes", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_an_error_names_the_key_its_place_and_what_is_allowed(changes, message):
    with pytest.raises(StudyError) as caught:
        Study.from_dict(table(**changes))
    assert str(caught.value) == message


def test_a_users_loop_may_be_asked_about_whatever_it_records():
    study = Study.from_dict(table(**LOOP, evidence={"metric": "final_grad_norm", "direction": "lower"}))
    assert not study.evidence.larger_is_better
    target = {"metric": "f1", "value": 0.5, "direction": "higher"}
    study = Study.from_dict(table(**LOOP, evidence={"metric": "epochs_to_target", "target": target}))
    assert study.evidence.target.larger_is_better


def test_validation_measures_need_images_that_are_held_out_in_some_arm():
    arms = {"a": {}, "b": {"data": {"validation": 100}}}
    assert Study.from_dict(table(arms=arms, evidence={"metric": "final_val_acc"})).evidence.metric == "final_val_acc"


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"evidence": {"margin": 1.0}}, "evidence.margin = 1"),
        ({"evidence": {"metric": "final_train_acc", "margin": 2.5}}, "evidence.margin = 2.5"),
        ({"claims": [CLAIM | {"at_least": 1.0}]}, "claims[0].at_least = 1"),
    ],
)
def test_points_where_a_fraction_is_due_are_refused(sections, key):
    with pytest.raises(
        StudyError, match=f"^{re.escape(key)}: must be below 1: .* is a fraction; write 0.0.* for .* point"
    ):
        Study.from_dict(table(**sections))


def test_a_margin_above_one_is_fine_for_what_is_no_fraction():
    assert Study.from_dict(table(evidence={"metric": "seconds", "margin": 5.0})).evidence.margin == 5.0
    assert Study.from_dict(table(claims=[CLAIM | {"at_least": 1.0, "relative": True}])).claims[0].at_least == 1.0


def test_the_questions_of_a_study_share_alpha_equally():
    def alpha(arms=("a", "b", "c"), **evidence):
        arms = {name: {"optimizer": {"eps": 1e-8 * (index + 1)}} for index, name in enumerate(arms)}
        return Study.from_dict(table(arms=arms, evidence={"alpha": 0.06, **evidence})).question_alpha

    assert alpha() == 0.06
    assert alpha(also=["seconds", "final_test_acc"]) == pytest.approx(0.02)
    assert alpha(also=["seconds"], against=0.8, pairs="all", best=True) == pytest.approx(0.012)
    assert alpha(best=False) == 0.06
    assert alpha(arms=["a"], against=0.8) == 0.06  # one arm has no main question


LOOP = {"training": {"loop": "mine:train"}}
F1 = {"unit": "fraction", "direction": "higher"}


def test_a_declared_metric_has_its_unit_and_direction_in_every_measure():
    asked = {"evidence": {"metric": "best_f1", "target": {"metric": "f1", "value": 0.9}}, "metrics": {"f1": F1}}
    study = Study.from_dict(table(**LOOP, **asked))
    for name in ("best_f1", "final_f1", "mean_last3_f1"):
        found = study.measure(name)
        assert (found.unit.amount(0.0131), found.direction) == ("1.31 points", "higher")
    assert (study.evidence.larger_is_better, study.evidence.target.larger_is_better) == (True, True)
    again = Study.from_toml(study.to_toml())
    assert (again, again.hash) == (study, study.hash)


def test_percent_is_shown_as_it_is_recorded():
    study = Study.from_dict(table(**LOOP, metrics={"test_accuracy": {"unit": "percent"}}))
    found = study.measure("best_test_accuracy")
    assert (found.unit.amount(1.31), found.unit.name, found.direction) == ("1.31 points", "%", "higher")


def test_an_undeclared_metric_is_a_plain_number_whatever_its_name():
    study = Study.from_dict(table(**LOOP))
    assert study.measure("best_test_accuracy").unit.amount(0.8896) == "0.89"
    assert study.measure("best_test_acc").unit.amount(0.8896) == "88.96 points"


def test_declared_metrics_are_no_part_of_trials_and_leave_other_hashes_alone():
    plain, declared = (Study.from_dict(table(**LOOP, **more)) for more in ({}, {"metrics": {"f1": F1}}))
    assert plain.hash != declared.hash
    assert [trial.hash for trial in plan(plain)] == [trial.hash for trial in plan(declared)]
    assert fairtrial.load("quick").hash.startswith("943dd38e")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"metrics": {"f1": {"unit": "percents"}}},
            'metrics.f1.unit = "percents": must be "fraction", "percent", "seconds" or "plain"',
        ),
        ({"metrics": {"f1": {"units": "percent"}}}, "unknown key `units` in [metrics.f1]: did you mean `unit`?"),
        (
            {"metrics": {"test_acc": {"unit": "percent"}}},
            (
                'metrics.test_acc.unit = "percent": fairtrial\'s own metric of that name has another; leave it '
                "out, or yield the number under another name"
            ),
        ),
        (
            {"metrics": {"my_loss": {"direction": "higher"}}},
            'metrics.my_loss.direction = "higher": my_loss is better lower; leave it out',
        ),
        (
            {"metrics": {"f1": F1}, "evidence": {"metric": "best_f1", "direction": "lower"}},
            'evidence.direction = "lower": best_f1 is better higher; leave it out',
        ),
        (
            {"metrics": {"f1": F1}, "evidence": {"metric": "best_f1", "margin": 1.0}},
            "evidence.margin = 1: must be below 1: best_f1 is a fraction; write 0.01 for 1 point",
        ),
    ],
)
def test_a_declaration_that_cannot_be(changes, message):
    with pytest.raises(StudyError) as caught:
        Study.from_dict(table(**LOOP, **changes))
    assert str(caught.value) == message


def test_fairtrials_own_loop_records_no_other_metrics():
    with pytest.raises(StudyError, match=r'^metrics: key = "f1": known: `train_loss`'):
        Study.from_dict(table(metrics={"f1": F1}))
