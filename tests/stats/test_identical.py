"""Arms that are another arm to the bit, and arms that have another's settings on purpose."""

from dataclasses import replace

import numpy as np
import pytest

from builders import learning, make_results, make_study
from fairtrial.executors.inline import InlineExecutor
from fairtrial.report.views import View
from fairtrial.runner import run_study
from fairtrial.spec import Study
from fairtrial.stats.alerts import alerts
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare, stops
from fairtrial.stats.identical import identical_arms
from fairtrial.stats.questions import answer_questions
from fairtrial.stats.verdicts import ClaimVerdict, Verdict
from fairtrial.store.sql import SQLStore
from fairtrial.testing import simulated_results
from fairtrial.trial import Outcome

MARGIN = {"evidence": {"margin": 0.01}}


def results_of(study, *, same=("b",), change=lambda one: one, **options):
    """Results in which some arms are the first to the bit but for their times, then changed."""

    def curve(arm, seed, epoch):
        return learning("a" if arm in same else arm, seed, epoch) | {"train_seconds": float(ord(arm[0]))}

    return [change(one) for one in make_results(study, curve, **options)]


@pytest.mark.parametrize(("margin", "verdict"), [(MARGIN, Verdict.EQUIVALENT), ({}, Verdict.UNDECIDED)], ids=str)
def test_an_arm_that_is_the_reference_to_the_bit_is_named_first_and_has_no_difference(margin, verdict):
    study = make_study(("a", "b", "c"), seeds=3, **margin)
    found = compare(study, results_of(study))
    line = "b is identical to a but for times, to the bit at all 3 seeds: optimizer.eps changed nothing else."
    assert found.alerts == (line,)
    assert View(found).text(200).splitlines()[0] == line
    row, _ = found.comparisons
    assert (row.verdict, row.mean_difference, row.interval, row.p_adjusted) == (verdict, 0.0, None, None)
    assert row.seeds == 3


def test_of_a_users_loop_it_asks_what_the_loop_reads():
    arms = {"a": {}, "b": {"params": {"hidden": 2}}, "c": {"params": {"hidden": 3}, "optimizer": {"lr": 0.1}}}
    study = make_study(arms, training={"loop": "my:train"})
    told = "is identical to a but for times, to the bit at all 3 seeds: does the training loop read"
    assert identical_arms(study, results_of(study, same=("b", "c"))) == (
        f"b {told} params.hidden?",
        f"c {told} optimizer.lr and params.hidden?",
    )


def test_two_arms_that_are_the_same_but_differ_from_the_reference_are_named_too():
    study = make_study(("a", "b", "c"))
    results = make_results(study, lambda arm, *rest: learning("b" if arm == "c" else arm, *rest))
    assert identical_arms(study, results) == (
        "c is identical to b but for times, to the bit at all 3 seeds: optimizer.eps changed nothing else.",
    )


def test_other_arms_are_judged_as_if_an_identical_one_were_not_there():
    """Not even as a column without numbers: one of two arms would then be wrong in 6.7% of studies of three seeds."""
    claim = {"id": "1", "text": "c is close.", "arm": "c", "against": "a", "within": 0.5}
    more = {"claims": [claim], "seeds": {"min": 3, "max": 4}}
    study, alone = make_study(("a", "b", "c"), **more), make_study(("a", "c"), **more)
    assert compare(study, results_of(study)).comparisons[1].interval == pytest.approx(
        compare(alone, results_of(alone)).comparisons[0].interval
    )
    ends = [check_claims(one, results_of(one)).claims[0].decisive.interval for one in (study, alone)]
    assert ends[0] == pytest.approx(ends[1])


def one_bit(one):
    if (one.arm, one.seed) != ("b", 1):
        return one
    *epochs, last = one.epochs
    moved = {**last.metrics, "test_loss": np.nextafter(last.metrics["test_loss"], 2.0).item()}
    return replace(one, epochs=(*epochs, replace(last, metrics=moved)))


def weights(one):
    return replace(one, fingerprints={"final_weights": f"{one.arm if one.seed == 2 else 'all'}"})


def diverges(one):
    return replace(one, outcome=Outcome.DIVERGED) if (one.arm, one.seed) == ("b", 1) else one


@pytest.mark.parametrize("change", [one_bit, weights, diverges])
def test_a_single_difference_is_enough(change):
    study = make_study(("a", "b"))
    assert identical_arms(study, results_of(study, change=change)) == ()


SLOWER = {"id": "1", "text": "b is slower.", "arm": "b", "against": "a", "metric": "seconds", "direction": "higher"}


@pytest.mark.parametrize("seeds", [5, {"min": 3, "max": 5}])
def test_an_arm_that_differs_in_time_alone_is_compared_on_time(seeds):
    """Its records without times are the reference's, so a loop may well not read its setting; its times are its own."""

    def curve(arm, seed, epoch):
        return learning("a" if arm == "b" else arm, seed, epoch) | {"train_seconds": 10.0 * ord(arm) + seed % 3}

    evidence = {"metric": "seconds", "margin": 1.0, "final": True}
    study = make_study(("a", "b", "c"), seeds=seeds, evidence=evidence, claims=[SLOWER])
    noisy = [
        replace(one, epochs=tuple(replace(e, metrics={**e.metrics, "eval_seconds": 0.1 * noise}) for e in one.epochs))
        for noise, one in zip(np.random.default_rng(0).normal(size=15), make_results(study, curve), strict=True)
    ]
    found = compare(study, noisy)
    row = found.comparisons[0]
    assert row.verdict is Verdict.WORSE
    assert row.interval[0] < row.mean_difference == pytest.approx(40.0, abs=1.0)
    assert stops(study, noisy)["b"] == "its verdict is settled"
    assert check_claims(study, noisy).claims[0].finding is ClaimVerdict.SUPPORTED
    also = make_study(("a", "b", "c"), seeds=seeds, evidence={"also": ["seconds"], "margin": 0.01, "final": True})
    (answer,) = answer_questions(also, noisy, compare(also, noisy))
    assert answer.verdicts[0].comparisons[0].verdict is Verdict.WORSE
    assert compare(also, noisy).comparisons[0].verdict is Verdict.EQUIVALENT
    assert found.alerts == (
        "b is identical to a but for times, to the bit at all 5 seeds: optimizer.eps changed nothing else.",
    )


def test_seeds_at_which_both_diverged_or_one_is_missing_tell_nothing():
    study = make_study(("a", "b"), seeds=4)
    ended = {("a", 0): Outcome.DIVERGED, ("b", 0): Outcome.DIVERGED, ("b", 1): None}
    assert identical_arms(study, results_of(study, ended=ended))[0].startswith(
        "b is identical to a but for times, to the bit at all 2 "
    )
    one_left = ended | {("a", 2): Outcome.FAILED}
    assert identical_arms(study, results_of(study, ended=one_left)) == ()  # one seed: chance


def test_an_identical_arm_stops_at_the_first_look():
    study = make_study(("a", "b", "c"), seeds={"min": 3, "max": 8})
    early, first = (results_of(study, skip=[(arm, s) for arm in "abc" for s in range(n, 8)]) for n in (2, 3))
    assert stops(study, early) == {}
    assert stops(study, first)["b"] == "its trials are identical to those of a"


LOOP = """
def train(trial):
    width = trial.settings.params.get("widht", 1)  # misspelt
    for epoch in range(trial.epochs):
        yield {"test_acc": 0.5 + 0.01 * width * epoch + trial.seed / 100}
"""


def test_a_study_of_a_setting_that_nobody_reads_ends_at_the_first_look(tmp_path, monkeypatch):
    (tmp_path / "misspelt.py").write_text(LOOP)
    monkeypatch.syspath_prepend(tmp_path)
    arms = {"narrow": {"params": {"width": 1}}, "wide": {"params": {"width": 4}}}
    table = {"name": "s", "reference": "narrow", "arms": arms, "seeds": {"min": 3, "max": 12}} | MARGIN
    study = Study.from_dict(table | {"training": {"loop": "misspelt:train", "epochs": 2}})
    with SQLStore("fairtrial.db") as store:
        assert run_study(study, store=store, executor=InlineExecutor()) == 6
        found = compare(study, store.results(study))
    assert found.comparisons[0].verdict is Verdict.EQUIVALENT
    assert found.alerts[0].endswith("does the training loop read params.width?")


AA = {"evidence": {"aa": True}}


def simulated(seeds, **more):
    """A study of simulated arms, of which `again` has the settings of `a`."""
    table = {"name": "aa", "reference": "a", "seeds": seeds, "training": {"loop": "fairtrial.testing:simulate"}}
    return Study.from_dict(table | {"arms": {"a": {}, "again": {}, **more}} | AA)


def test_an_aa_arm_has_other_noise_and_is_judged_like_any_other():
    study = simulated(6, better={"params": {"mean": 0.9}})
    results = simulated_results(study)
    found = compare(study, results)
    again, better = found.comparisons
    assert (again.verdict, better.verdict) == (Verdict.UNDECIDED, Verdict.BETTER)
    assert found.alerts == ()
    assert found.refused == {}
    assert again.sd > 0.0
    assert (again.more_seeds, [line for line in again.caveats if "settle" in line]) == (None, [])
    assert any("because an A/A arm has other seeds of noise" in line for line in again.caveats)
    assert not any("A/A" in line for line in better.caveats)


def test_an_aa_arm_with_a_verdict_is_said_first():
    study = make_study({"a": {}, "again": {}}, **AA)

    def results(study):
        return make_results(study, lambda arm, seed, epoch: {"test_acc": 0.5 + len(arm) / 20 * (1 + seed / 99)})

    found = compare(study, results(study))
    assert found.comparisons[0].verdict is Verdict.BETTER
    (line,) = found.alerts
    assert line.startswith("again has the settings of a (A/A) and yet is better: unless that is the chance of 5%, ")
    more = make_study({"a": {}, "again": {}}, evidence={"aa": True, "also": ["final_test_acc"]})
    assert "unless that is the chance of 2.5%, " in compare(more, results(more)).alerts[0]


def test_a_loop_that_ignores_the_seeds_of_noise_is_found_by_its_aa_arm():
    study = make_study({"a": {}, "again": {}}, **AA)
    (line,) = alerts(study, results_of(study, same=("again",)))
    assert line.startswith(
        "again is identical to a but for times, to the bit at all 3 seeds, though its seeds of noise differ: "
    )


def test_an_aa_arm_stops_with_the_last_other_arm_but_not_alone():
    study = simulated({"min": 3, "max": 8}, better={"params": {"mean": 0.95}})
    assert stops(study, [one for one in simulated_results(study) if one.seed < 3]) == {
        "again": "no other arm is left to check",
        "better": "its verdict is settled",
    }
    alone = simulated({"min": 3, "max": 8})
    assert stops(alone, [one for one in simulated_results(alone) if one.seed < 3]) == {}
