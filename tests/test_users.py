"""People who do not follow a plan: what they find false is rare, or is said to be exploratory.

`benchmarks/users.py` measures the same with more studies and more kinds of people.
"""

from datetime import UTC, datetime

import numpy as np
import pytest

from fairtrial.api import open_results, run
from fairtrial.stats.judge import judge
from fairtrial.stats.looks import LookPlan, Stage
from fairtrial.stats.sequential import judge_many
from fairtrial.stats.verdicts import Verdict
from fairtrial.store.sql import SQLStore
from fairtrial.testing import executor, simulated_study

ARMS = {"a": {}, "b": {}}


@pytest.fixture
def ask(tmp_path, monkeypatch):
    """Run a study of two arms that do not differ, with the other keys given, in one store; return its verdict."""
    monkeypatch.chdir(tmp_path)
    with SQLStore(":memory:") as store:

        def ask(seeds=6, arms=ARMS, noise=None, **evidence):
            study = simulated_study(arms, seeds=seeds, evidence=evidence, noise=noise or {})
            run(study, store=store, executor=executor(), force=True)
            return open_results(study, store=store).verdict().data

        yield ask


def test_who_compares_five_measures_in_turn_explores_four_of_them(ask):
    assert ask(metric="best_test_acc").exploratory == ()
    for metric in ("final_test_acc", "final_train_acc", "final_train_loss", "generalization_gap"):
        assert ask(metric=metric).exploratory == (f"the measure {metric} was set after 12 trials had ended",)


def test_who_sets_another_margin_explores(ask):
    assert ask(margin=0.01).set_beforehand
    found = ask(margin=0.05)
    assert found.exploratory == ("the margin 0.05 was set after 12 trials had ended",)
    assert not found.set_beforehand
    assert ask(margin=0.01).set_beforehand  # as it was


def test_who_drops_a_dead_run_explores(ask):
    arms = {"a": {}, "b": {"mean": 0.79}}
    ask(arms=arms)
    assert ask(arms=arms, lost_below=0.7).exploratory == ("lost_below 0.7 was set after 12 trials had ended",)


def test_who_goes_on_after_a_plan_explores(ask):
    ask(seeds={"min": 3, "max": 4})
    assert ask(seeds=8).exploratory == ("a plan of 3 to 4 seeds spent the error rate of these trials",)


def test_who_swaps_the_reference_explores(ask):
    ask(arms={"a": {}, "b": {}, "c": {}})
    assert ask(arms={"b": {}, "a": {}, "c": {}}).exploratory == ("the reference was a before",)


def test_who_registers_several_measures_before_any_trial_explores_all_but_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metrics = ["best_test_acc", "final_train_loss", "seconds"]
    studies = [simulated_study(ARMS, evidence={"metric": metric}) for metric in metrics]
    with SQLStore(":memory:") as store:
        for study in studies:
            store.add_study(study, datetime(2026, 1, 2, tzinfo=UTC))
        for study in studies:
            run(study, store=store, executor=executor())
        found = [open_results(study, store=store).verdict().data.exploratory for study in studies]
    said = "another measure was asked of these trials first (best_test_acc); ask both in one study with also"
    assert found == [(), (said,), (said,)]


def test_who_asks_about_each_arm_in_a_study_of_its_own_is_told(ask):
    said = "compared with these trials of a in other studies of this store; no error rate covers all of them together."
    assert ask(arms={"a": {}, "b": {}}).alerts == ()
    assert ask(arms={"a": {}, "c": {}}).alerts == (f"1 other arm was {said}",)
    assert ask(arms={"a": {}, "d": {}}).alerts == (f"2 other arms were {said}",)


def test_who_goes_on_until_some_seeds_show_it_explores(ask):
    assert ask(noise={"first_seed": 1}).exploratory == ()
    assert ask(noise={"first_seed": 2}).exploratory == ("these seeds of noise overlap those of an earlier study",)
    assert ask(noise={"first_seed": 8}).exploratory == ("2 other sets of seeds were asked the same before",)


def test_one_arm_against_a_constant_is_counted_too(ask):
    found = [ask(seeds=seeds, arms={"a": {}}, against=0.8) for seeds in (3, 6)]
    assert [(one.stage, one.exploratory) for one in found] == [(1, ()), (2, ())]
    assert [one.part for one in found] == pytest.approx([0.7, 0.21])
    assert found[1].looks == tuple(range(4, 13))


def test_each_look_that_adds_seeds_is_wider_than_it_would_be_alone(ask):
    for number, seeds in enumerate((3, 5, 8), start=1):
        found = ask(seeds=seeds)
        assert (found.stage, found.exploratory) == (number, ())
    (row,) = found.comparisons
    half = (row.interval[1] - row.interval[0]) / 2
    plain = LookPlan.of(1, [8])
    assert half > float(plain.critical(0.05, 0, np.array(7))) * row.sd / np.sqrt(8)


def test_who_follows_the_advice_errs_in_5_percent():
    """Numbers of seeds that depend on the results: each is part of a plan of all of them."""
    studies, most = 3_000, 12
    cells = np.random.default_rng(3).standard_normal((studies, most, 2))
    table = (cells[..., 1:] - cells[..., :1]) / np.sqrt(2)
    first = LookPlan.of(1, [3], share=0.7)
    later = LookPlan.of(1, range(4, 13), earlier=[Stage((3,), 0.7, (0, 1))], share=0.91)
    wrong = np.zeros(studies, bool)
    waiting = {(3,): np.arange(studies)}
    while waiting:
        path, rows = waiting.popitem()
        plan = first if len(path) == 1 else later
        finding = judge_many(table[rows, : path[-1]], plan).finding[:, 0]
        wrong[rows] |= finding != 0
        groups = {}
        for row in rows[finding == 0] if len(path) < 4 else ():
            (told,) = judge(table[row, : path[-1]], looks=plan.looks, earlier=plan.earlier, share=plan.share)
            total = next((seeds for seeds in (4, 5, 6, 8, most) if seeds >= path[-1] + (told.more_seeds or most)), None)
            if told.verdict is Verdict.UNDECIDED and total is not None and total > path[-1]:
                groups.setdefault(total, []).append(row)
        waiting |= {(*path, seeds): np.array(group) for seeds, group in groups.items()}
    assert wrong.mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies)
    assert wrong.mean() > 0.02
