"""Pairing: which differences prevent a comparison, which are caveats, and which are allowed."""

from dataclasses import replace
from itertools import combinations

import pytest

from builders import MACHINE, make_results, make_study
from fairtrial.stats.comparison import compare
from fairtrial.stats.pairing import pairing_caveats, pairing_conflict
from fairtrial.stats.verdicts import Verdict
from fairtrial.trial import Outcome

ARMS = {"a": {}, "b": {"optimizer": {"eps": 1e-6}}, "c": {"optimizer": {"eps": 1e-5}}}
USERS = {"training": {"loop": "my:loop"}}


def conflicts(study, results):
    """The reasons why pairs of arms can't be compared."""
    found = (pairing_conflict(study, one.name, other.name, results) for one, other in combinations(study.arms, 2))
    return [reason for reason in found if reason]


def results_of(study, *, fingerprints=None, machines=None, **options):
    """Results with the fingerprints that belong to their seed, but for what is changed by (arm, seed)."""
    results = []
    for result in make_results(study, **options):
        key = (result.arm, result.seed)
        proper = {name: f"{name} {result.seed}" for name in ("initial_weights", "batch_order")}
        prints = proper | (fingerprints or {}).get(key, {})
        results.append(
            replace(
                result,
                fingerprints={name: value for name, value in prints.items() if value},
                machine=replace(MACHINE, **(machines or {}).get(key, {})),
            )
        )
    return results


def test_trials_that_share_what_they_must_are_compared_without_a_word():
    study = make_study(ARMS)
    results = results_of(study)
    assert conflicts(study, results) == []
    assert [pairing_caveats(study, arm, results, other="a") for arm in "bc"] == [(), ()]


@pytest.mark.parametrize("name", ["initial_weights", "batch_order", "augmentation"])
def test_other_fingerprints_within_a_seed_are_refused_with_the_reason(name):
    study = make_study(ARMS, seeds=2)
    prints = {("a", 1): {name: "ours"}, ("b", 1): {name: "ours"}, ("c", 1): {name: "theirs, and a long one"}}
    assert conflicts(study, results_of(study, fingerprints=prints)[::-1])[0] == (
        f"{study.label}: arms a and c can't be compared: at seed 1 their {name} differ (ours and theirs, and ), which "
        "trials of one seed must share; to compare them unpaired, set evidence.paired = false"
    )


def test_a_crossed_design_gives_no_verdicts_because_its_seeds_are_not_independent():
    crossed = make_study(ARMS, seeds=4, noise={"initial_weights": 2, "batch_orders": 2})
    (reason, *others) = conflicts(crossed, results_of(crossed))
    assert len(others) == 2
    assert reason.endswith("run the study without [noise], which has the first of these seeds already")
    assert {row.verdict for row in compare(crossed, results_of(crossed)).comparisons} == {Verdict.UNDECIDED}
    one_order = make_study(ARMS, seeds=4, noise={"initial_weights": 4, "batch_orders": 1})
    assert not conflicts(one_order, results_of(one_order))


def test_other_code_within_a_seed_is_refused_unless_it_was_forced():
    study = make_study(ARMS, seeds=2)
    mine, shared = {"loop.py": "1", "mine.py": "1"}, {"loop.py": "1"}
    machines = {(arm, seed): {"code": shared} for arm in "bc" for seed in (0, 1)}
    machines |= {("a", 0): {"code": mine}, ("a", 1): {"code": mine}, ("c", 1): {"code": {"loop.py": "2"}}}
    results = results_of(study, machines=machines)
    assert conflicts(study, results) == [
        f"{study.label}: arms {one} and c can't be compared: at seed 1 they ran different code: loop.py" for one in "ab"
    ]
    forced = [replace(one, forced="other code: loop.py has changed") if one.arm == "c" else one for one in results]
    assert conflicts(study, forced) == []


def test_fingerprints_of_results_may_differ():
    study = make_study(ARMS, seeds=1)
    results = results_of(study, fingerprints={(arm, 0): {"final_weights": f"of {arm}"} for arm in ARMS})
    assert conflicts(study, results) == []
    assert [pairing_caveats(study, arm, results, other="a") for arm in "bc"] == [(), ()]
    results = results_of(study, fingerprints={(arm, 0): {"weights_final_": arm} for arm in ARMS})
    assert "their weights_final_ differ" in conflicts(study, results)[0]  # only the start of a name counts


def test_two_arms_beside_the_reference_must_be_pairs_too():
    study = make_study(ARMS, seeds=1)
    results = results_of(study, fingerprints={("c", 0): {"batch_order": "x"}}, skip=[("a", 0)])
    assert "arms b and c can't be compared: at seed 0" in conflicts(study, results)[0]


def test_seeds_need_not_share_anything_with_each_other():
    study = make_study(ARMS)
    assert conflicts(study, results_of(study, fingerprints={(arm, 2): {"batch_order": "x"} for arm in ARMS})) == []


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.FAILED, None])
def test_only_finished_trials_are_looked_at(outcome):
    study = make_study(ARMS)
    results = results_of(study, fingerprints={("b", 0): {"batch_order": "cut short"}}, ended={("b", 0): outcome})
    assert conflicts(study, results) == []
    assert pairing_caveats(study, "b", results, other="a") == ()


def test_what_is_not_reported_is_not_proved():
    study = make_study(ARMS, **USERS)
    nothing = {"initial_weights": "", "batch_order": ""}
    results = results_of(study, fingerprints={("b", 0): nothing, ("b", 2): nothing, ("a", 1): {"batch_order": ""}})
    assert conflicts(study, results) == []
    assert pairing_caveats(study, "b", results, other="a") == (
        "initial_weights: not proved to be those of a, because no fingerprint was reported (seeds 0 and 2).",
        "batch_order: not proved to be those of a, because no fingerprint was reported (seeds 0, 1 and 2).",
    )
    assert pairing_caveats(study, "b", results, other="c") == (
        "initial_weights: not proved to be those of c, because no fingerprint was reported (seeds 0 and 2).",
        "batch_order: not proved to be those of c, because no fingerprint was reported (seeds 0 and 2).",
    )


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        ({"model": {"width": 0.5}}, "initial_weights", "model or data"),
        ({"training": {"epochs": 9}}, "batch_order", "training images or epochs"),
        ({"data": {"train": 1000}}, "batch_order", "training images or epochs"),
    ],
)
def test_what_the_settings_under_test_change_themselves_is_only_said(change, name, words):
    study = make_study({"a": {}, "b": change}, seeds=2)
    results = results_of(study, fingerprints={("b", seed): {name: "other"} for seed in (0, 1)})
    assert conflicts(study, results) == []
    assert pairing_caveats(study, "b", results, other="a") == (
        f"{name}: not those of a, because the arms differ in {words} (seeds 0 and 1).",
    )
    other_name = "batch_order" if name == "initial_weights" else "initial_weights"
    assert other_name in conflicts(study, results_of(study, fingerprints={("b", 0): {other_name: "other"}}))[0]


@pytest.mark.parametrize("change", [{"model": {"dropout": 0.5}}, {"data": {"subset_seed": 1}}, {"data": {"test": 100}}])
def test_settings_that_change_neither_are_no_excuse(change):
    study = make_study({"a": {}, "b": change})
    for name in ("initial_weights", "batch_order"):
        assert name in conflicts(study, results_of(study, fingerprints={("b", 0): {name: "other"}}))[0]


def test_a_users_loop_is_taken_at_its_word():
    study = make_study({"a": {}, "b": {"model": {"width": 0.5}}}, **USERS)
    assert conflicts(study, results_of(study, fingerprints={("b", 0): {"initial_weights": "other"}}))


def test_whatever_else_differs_within_a_seed_is_said_once_with_its_seeds():
    study = make_study(ARMS)
    newer = {"versions": {"python": "3.11.0", "torch": "2.14.0", "numpy": "2.0"}, "threads": 2}
    elsewhere = {
        "processor": "another",
        "device": "a GPU",
        "layers": "compiled",
        "system": "Plan 9",
        "git_commit": "abc",
    }
    machines = {("b", 0): newer, ("b", 2): newer, ("b", 1): elsewhere, **{(arm, 2): {"threads": 2} for arm in "ac"}}
    results = results_of(study, machines=machines)
    assert conflicts(study, results) == []
    assert pairing_caveats(study, "b", results[::-1], other="a") == (
        "numpy: 2.0, but none in a (seeds 0 and 2).",
        "torch: 2.14.0, but 2.13.0 in a (seeds 0 and 2).",
        "threads: 2, but 1 in a (seed 0).",
        "processor: another, but a processor in a (seed 1).",
        "device: a GPU, but cpu in a (seed 1).",
        "layers: compiled, but not fairtrial's in a (seed 1).",
        "system: Plan 9, but Linux in a (seed 1).",
        "git commit: abc, but none in a (seed 1).",
    )
    assert pairing_caveats(study, "c", results, other="a") == ()  # both had two threads at seed 2


def test_an_arm_without_a_pair_has_no_caveats():
    study = make_study(ARMS, seeds=1)
    assert pairing_caveats(study, "b", results_of(study, skip=[("a", 0)]), other="a") == ()
    assert pairing_caveats(study, "b", [], other="a") == ()


def test_other_files_explain_other_weights_and_orders(tmp_path):
    """How many rows and columns a file has is not known from the settings."""
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(f"a,y\n{name},2\n")
    data = {"name": "table", "target": "y", "path": str(tmp_path / "one.csv")}
    different = {"initial_weights": "x", "batch_order": "y"}
    for arm, explained in (({"data": {"path": str(tmp_path / "two.csv")}}, True), ({"optimizer": {"lr": 1.0}}, False)):
        study = make_study({"a": {}, "b": arm}, seeds=1, data=data)
        assert (conflicts(study, results_of(study, fingerprints={("b", 0): different})) == []) is explained


def test_other_data_explain_other_weights_and_orders():
    """A data set may have other channels, classes and counts, for which the model and the order are drawn otherwise."""
    study = make_study({"a": {}, "b": {"data": {"name": "digits"}}}, seeds=1)
    results = results_of(study, fingerprints={("b", 0): {"initial_weights": "x", "batch_order": "y"}})
    assert conflicts(study, results) == []
