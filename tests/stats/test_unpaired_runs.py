"""Studies whose runs are not paired: all runs of an arm against all of the reference's."""

import math
from dataclasses import replace

import numpy as np
import pytest

from builders import make_results, make_study, with_aa_arm
from fairtrial.question import Question
from fairtrial.report.verdicts import sentence, verdict_grid, verdict_table
from fairtrial.report.views import View
from fairtrial.spec.imported import Imported
from fairtrial.stats.comparison import compare, paired_spread
from fairtrial.stats.unpaired import judge_unpaired
from fairtrial.stats.verdicts import Verdict
from fairtrial.testing import simulated_results, simulated_study
from fairtrial.trial import Machine, Outcome

UNPAIRED = {"paired": False}


def make(arms=("a", "b"), seeds=6, **evidence):
    study = simulated_study(
        arms if isinstance(arms, dict) else {name: {} for name in arms}, seeds=seeds, evidence=UNPAIRED | evidence
    )
    return study, simulated_results(study)


def row_of(study, results, arm="b"):
    return next(row for row in compare(study, results).comparisons if row.arm == arm)


def values_of(results, arm):
    return [max(epoch.metrics["test_acc"] for epoch in one.epochs) for one in results if one.arm == arm]


def test_it_is_judge_unpaired_on_all_runs():
    study, results = make({"a": {}, "b": {"mean": 0.86}, "c": {}}, margin=0.01)
    expected = judge_unpaired({arm: values_of(results, arm) for arm in "abc"}, "a", 0.01, 0.05)
    found = compare(study, results)
    assert [replace(row, caveats=()) for row in found.comparisons] == [replace(row, caveats=()) for row in expected]
    assert found.comparisons[0].verdict is Verdict.BETTER
    assert (found.paired, found.looks, found.seeds, found.whole, found.jitter) == (False, (6,), 6, True, None)


def test_which_seed_a_run_has_does_not_matter():
    study, results = make()
    seeds = {0: 3, 1: 5, 2: 0, 3: 1, 4: 2, 5: 4}
    shuffled = [replace(one, seed=seeds[one.seed]) if one.arm == "b" else one for one in results]
    assert row_of(study, shuffled).interval == pytest.approx(row_of(study, results).interval)


def test_runs_with_other_weights_are_compared():
    study, results = make()
    results[-1].fingerprints["batch_order"] = "another"
    found = compare(study, results)
    assert (found.refused, found.comparisons[0].interval is None) == ({}, False)
    assert not any("fingerprint" in line for line in found.comparisons[0].caveats)
    paired = simulated_study({"a": {}, "b": {}}, seeds=6)
    assert "set evidence.paired = false" in compare(paired, results).refused["b"]


def test_other_code_is_refused_all_the_same():
    study, results = make()
    changed = [
        replace(one, machine=replace(one.machine, code={"train.py": one.arm})) if one.seed == 2 else one
        for one in results
    ]
    found = compare(study, changed)
    assert "ran different code" in found.refused["b"]
    assert sentence(found, found.comparisons[0]) == "b: refused, its trials did not run the code of those of a"


def test_other_machines_are_named():
    study, results = make()
    changed = [replace(one, machine=replace(one.machine, threads=7)) if one.arm == "b" else one for one in results]
    assert any(line.startswith("threads: 7, but ") for line in row_of(study, changed).caveats)
    assert isinstance(changed[0].machine, Machine)


def test_before_all_runs_have_ended_there_is_no_interval():
    study, results = make()
    row = row_of(study, [one for one in results if (one.arm, one.seed) != ("a", 5)])
    assert (row.verdict, row.interval, row.p_adjusted) == (Verdict.UNDECIDED, None, None)
    assert row.mean_difference is not None
    assert (
        "The one look is planned after 6 runs of each arm; before it there is no interval and no verdict."
        in row.caveats
    )


def test_lost_runs_count_against_their_arm():
    study, results = make({"a": {}, "b": {"mean": 0.9, "diverge_seeds": [1, 4]}})
    found = compare(study, results)
    row = found.comparisons[0]
    assert (row.verdict, row.seeds, row.more_seeds) == (Verdict.UNDECIDED, 4, None)
    assert row.failures.arm == 2
    assert "It lost 2 of 6 runs, and a 0 of 6" in " ".join(row.caveats)
    assert sentence(found, row).endswith("; diverged in 2 of 6 trials")


def test_failures_alone_are_told_in_runs():
    study, results = make({"a": {}, "b": {"diverge_rate": 1.0}})
    found = compare(study, results)
    assert found.comparisons[0].verdict is Verdict.WORSE
    assert "it fails more often (it in 6 of 6 runs, a in 0 of 6, p 0.002)" in sentence(found, found.comparisons[0])


def test_runs_far_behind_are_found_without_the_others_of_their_seed():
    study = make_study(("a", "b"), seeds=6, evidence=UNPAIRED)
    level = {("b", 3): 0.1}
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": level.get((arm, seed), 0.8 + seed / 1000)})
    found = compare(study, results)
    assert found.lost == {"b": {"fell behind": 1}}
    both = {("a", 3): 0.1, ("b", 3): 0.1}  # a seed that is bad for all arms shares nothing here
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": both.get((arm, seed), 0.8 + seed / 1000)})
    assert compare(study, results).lost == {"a": {"fell behind": 1}, "b": {"fell behind": 1}}


def test_identical_arms_stay_a_comparison_of_runs():
    study = make_study(("a", "b"), seeds=4, evidence=UNPAIRED)
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": 0.8 + seed / 1000})
    found = compare(study, results)
    assert found.comparisons[0].interval is not None
    assert any("b is identical to a" in line for line in found.alerts)


def test_arms_may_have_other_numbers_of_runs_if_they_were_made_elsewhere():
    study, results = make(seeds=8)
    kept = [one for one in results if one.arm == "a" or one.seed < 3]
    assert row_of(study, kept).interval is None
    elsewhere = study.model_copy(update={"imported": Imported(source="runs.csv", digest="0" * 64)})
    found = row_of(elsewhere, kept)
    assert (found.seeds, found.interval is None) == (3, False)
    assert found.interval == judge_unpaired({a: values_of(kept, a) for a in "ab"}, "a")[0].interval


def test_another_measure_is_compared_unpaired_too():
    study, results = make()
    assert not compare(study, results, metric="final_train_loss").paired


def test_an_aa_arm_has_no_outlook():
    study = with_aa_arm(make_study(("a", "b"), seeds=4, evidence=UNPAIRED))
    results = make_results(study)
    assert not any("new study" in line for line in row_of(study, results, "again").caveats)


def test_one_look_spends_all_of_alpha():
    study, _ = make()
    assert Question.of(study).spends_all
    assert not Question.of(simulated_study({"a": {}, "b": {}}, seeds=6)).spends_all


def test_what_is_said_is_true_of_unpaired_runs():
    study, results = make({"a": {}, "b": {}, "c": {"mean": 0.9}}, margin=0.001)
    found = compare(study, results)
    text = " ".join(View(found).text(width=200).split())
    assert "mean of the arm's runs minus mean of a's; not paired" in text
    assert "seed" not in text.replace("seeds; ", "")
    assert ("runs",) in [column.title for column in verdict_grid(found).columns]
    assert verdict_table(found)["paired"] is False
    assert "paired" not in verdict_table(compare(*paired_too()))
    assert "reference_runs" not in verdict_table(compare(*paired_too()))["comparisons"][0]["failures"]


def paired_too():
    study = simulated_study({"a": {}, "b": {}}, seeds=3)
    return study, simulated_results(study)


def test_a_study_of_one_arm_has_nothing_to_compare():
    assert compare(*make(("a",))).comparisons == ()


def test_the_spread_for_planning_is_that_of_two_runs():
    study, results = make({"a": {}, "b": {"noise_sd": 0.03}}, seeds=40)
    ours, theirs = (np.var(values_of(results, arm), ddof=1) for arm in "ab")
    assert paired_spread(study, results) == pytest.approx(math.sqrt(ours + theirs))
    assert paired_spread(study, [one for one in results if one.arm == "b"]) is None


def test_a_trial_that_is_still_running_is_waited_for():
    study, results = make()
    waiting = [replace(one, outcome=None) if (one.arm, one.seed) == ("b", 0) else one for one in results]
    assert row_of(study, waiting).interval is None
    assert Outcome.FINISHED is results[0].outcome
