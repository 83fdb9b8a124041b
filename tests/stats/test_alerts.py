"""What is said before all verdicts and claims."""

from dataclasses import replace

import pytest

from builders import MACHINE, learning, make_results, make_study
from fairtrial.report.views import View
from fairtrial.stats.alerts import alerts
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare
from fairtrial.trial import Outcome

CLAIM = {"id": "1", "text": "b is better.", "arm": "b", "against": "a", "direction": "higher"}


def with_code(study, code, **options):
    """Results whose trials ran code by seed."""
    return [replace(one, machine=replace(MACHINE, code=code(one.seed))) for one in make_results(study, **options)]


def test_one_version_of_the_code_needs_no_word():
    study = make_study(("a", "b"), seeds=3)
    assert alerts(study, with_code(study, lambda seed: {"loop.py": "1"})) == ()
    assert alerts(study, make_results(study)) == ()


def test_what_went_on_under_other_conditions_is_said_once_and_first():
    study = make_study(("a", "b"), seeds=4, claims=[CLAIM])
    results = make_results(study, ended={("a", 3): None, ("b", 3): Outcome.DIVERGED})
    assert alerts(study, results) == ()
    forced = {0: "", 1: "threads 1, now 2", 2: "threads 1, now 2", 3: "other code: loop.py has changed since seed 0"}
    results = [replace(one, forced=forced[one.seed]) for one in results]
    said = (
        "The study was continued with other code: loop.py has changed since seed 0 (1 trial).",
        "The study was continued under other conditions: threads 1, now 2 (4 trials).",
    )
    assert alerts(study, results) == compare(study, results).alerts == check_claims(study, results).alerts == said
    alone = make_study({"a": {"optimizer": {"eps": 1e-8}}})
    assert alerts(alone, [replace(one, forced="") if one.arm == "a" else one for one in results]) == ()


def test_code_that_changed_between_seeds_is_said_first_in_every_form():
    study = make_study(("a", "b"), seeds=4, claims=[CLAIM])
    results = with_code(study, lambda seed: {"loop.py": str(seed > 1), "helper.py": "1"})
    (line,) = alerts(study, results)
    assert line == "Not one experiment: loop.py changed between trials (seeds 0 and 1, then seeds 2 and 3)."
    for data in (compare(study, results), check_claims(study, results)):
        view = View(data)
        assert view.text(200).splitlines()[0] == line
        assert line in view.html()
        assert f'"alerts": [\n    "{line}"' in view.json()


def test_a_setting_in_which_arms_differ_and_that_no_trial_read_is_named():
    study = make_study({"a": {}, "b": {"params": {"width": 2}}}, training={"loop": "my:train"})
    for reads, expected in (
        (("params.height",), ("No trial has read params.width, in which arms differ: does the training loop use it?",)),
        (("params.width",), ()),
        (None, ()),
    ):
        assert alerts(study, [replace(one, reads=reads) for one in make_results(study)]) == expected


@pytest.mark.parametrize("outcome", [Outcome.DIVERGED, Outcome.FAILED, None])
def test_a_setting_that_only_trials_without_a_result_read_is_read(outcome):
    study = make_study({"a": {}, "b": {"params": {"width": 2}}}, training={"loop": "my:train"})
    results = make_results(study, ended={("b", seed): outcome for seed in range(3)})
    told = [replace(one, reads=("params.width",) if one.arm == "b" else ()) for one in results]
    assert alerts(study, told) == ()


def test_no_setting_is_called_unread_while_the_first_trial_of_an_arm_still_runs():
    study = make_study({"a": {}, "b": {"params": {"width": 2}}}, training={"loop": "my:train"})
    results = make_results(study, ended={("b", seed): None for seed in range(3)})
    told = [replace(one, reads=None if one.arm == "b" else ()) for one in results]
    assert alerts(study, told) == ()
    assert alerts(study, [one for one in told if one.arm == "a"]) == ()


def test_only_trials_that_count_are_looked_at():
    study = make_study(("a", "b"), seeds=2)
    failed = dict.fromkeys((("a", 1), ("b", 1)), Outcome.FAILED)
    assert alerts(study, with_code(study, lambda seed: {"loop.py": str(seed)}, ended=failed)) == ()


@pytest.mark.parametrize("asking", [{"evidence": {"metric": "seconds"}}, {"claims": [CLAIM | {"metric": "seconds"}]}])
def test_a_study_that_compares_times_says_which_trials_idle_cores_have_helped(asking):
    def curve(arm, seed, epoch):
        return learning(arm, seed, epoch) | ({"helped_seconds": 5.0} if (arm, seed) == ("b", 2) and epoch > 1 else {})

    study, other = make_study(("a", "b"), seeds=3, **asking), make_study(("a", "b"), seeds=3)
    said = "Idle cores helped to train b seed 2: times that they took do not compare with the others'."
    assert alerts(study, make_results(study, curve)) == (said,)
    assert alerts(study, make_results(study)) == alerts(other, make_results(other, curve)) == ()
