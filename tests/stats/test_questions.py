"""Further questions: what they answer, and how often an answer is false."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from builders import make_results, make_study, with_aa_arm
from fairtrial.stats.best import left_out_mean, one_sided
from fairtrial.stats.comparison import compare
from fairtrial.stats.contrasts import Contrasts
from fairtrial.stats.judge import judge
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.paired import PairedData
from fairtrial.stats.questions import answer_questions
from fairtrial.stats.sequential import HIGHER, LOWER, judge_many
from fairtrial.stats.tasks import over_tasks
from fairtrial.testing import simulated_results, simulated_study
from fairtrial.trial import Outcome

ARMS = {"ref": {}, "same": {}, "up": {"mean": 0.83}, "down": {"mean": 0.7}}


def answers(arms=ARMS, seeds=8, results=None, **evidence):
    study = simulated_study(arms, seeds=seeds, evidence={"metric": "final_test_acc"} | evidence)
    results = simulated_results(study) if results is None else results(study)
    return answer_questions(study, results, compare(study, results))


def verdicts(answer):
    return {(found.reference, row.arm): row.verdict.value for found in answer.verdicts for row in found.comparisons}


def test_without_further_questions_there_is_no_answer():
    assert answers() == ()
    assert answers(best=False) == ()


def test_the_same_arms_on_further_measures():
    loss, time = answers(also=["final_train_loss", {"metric": "seconds", "margin": 5.0}])
    assert [found.verdicts[0].metric for found in (loss, time)] == ["final_train_loss", "seconds"]
    assert verdicts(loss)["ref", "up"] == "better"
    assert verdicts(loss)["ref", "down"] == "worse"
    assert set(verdicts(time).values()) == {"equivalent"}


def test_the_answer_for_a_measure_is_that_of_a_study_of_it_alone():
    (found,) = answers(also=["final_train_loss"])
    study = simulated_study(ARMS, seeds=8, evidence={"metric": "final_train_loss", "alpha": 0.025})
    alone = compare(study, simulated_results(study))
    assert [row.interval for row in found.verdicts[0].comparisons] == [row.interval for row in alone.comparisons]


def test_an_aa_arm_and_runs_far_ahead_widen_no_other_interval():
    """An A/A arm does not share the reference's noise, so its differences spread more."""
    noise = {"weights_sd": 0.05}
    evidence = {"metric": "final_test_acc", "also": ["best_test_acc"], "final": True}
    study = with_aa_arm(simulated_study({"a": noise, "b": noise, "c": noise}, seeds=5, evidence=evidence))
    results = simulated_results(study)
    main = compare(study, results)
    (found,) = answer_questions(study, results, main)
    final = {(one.arm, one.seed): one.epochs[-1].metrics["test_acc"] for one in results}  # the best, too
    table = [[final[arm, seed] - final["a", seed] for arm in ("b", "c", "again")] for seed in range(5)]
    expected = judge(table, alpha=0.025, looks=[5], arms=["b", "c", "again"], apart=["again"])
    contrasts = Contrasts(study, results, main)
    whole = over_tasks({"one": contrasts, "two": contrasts}, "whole", 0.025)
    for rows in (main.comparisons, found.verdicts[0].comparisons, whole.comparisons):
        assert [row.interval for row in rows] == [pytest.approx(row.interval) for row in expected]
    ahead = {("b", 4): 0.999}
    far = [
        replace(one, epochs=tuple(replace(e, metrics=e.metrics | {"test_acc": 1e3}) for e in one.epochs))
        if (one.arm, one.seed) in ahead
        else one
        for one in results
    ]
    assert Contrasts(study, far, compare(study, far)).apart == {"again", "b"}


def test_a_metric_of_ones_own_needs_and_gets_its_direction():
    study = simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds=5, evidence={"metric": "final_train_loss"})
    results = [
        replace(one, epochs=tuple(replace(e, metrics={**e.metrics, "size": e.metrics["test_acc"]}) for e in one.epochs))
        for one in simulated_results(study)
    ]
    for direction, said in (("higher", "better"), ("lower", "worse")):
        also = [{"metric": "best_size", "direction": direction}]
        asked = simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds=5, evidence={"also": also})
        (found,) = answer_questions(asked, results, compare(asked, results))
        assert verdicts(found)["a", "b"] == said
        best = {one.seed: [e.metrics["size"] for e in one.epochs] for one in results if one.arm == "b"}
        base = {one.seed: [e.metrics["size"] for e in one.epochs] for one in results if one.arm == "a"}
        pick = max if direction == "higher" else min
        difference = np.mean([pick(best[seed]) - pick(base[seed]) for seed in best])
        assert found.verdicts[0].comparisons[0].mean_difference == pytest.approx(difference)


def test_a_constant_is_tested_by_each_arms_own_values():
    study = simulated_study(ARMS, seeds=6, evidence={"metric": "final_test_acc", "against": 0.75, "final": True})
    results = simulated_results(study)
    (found,) = answer_questions(study, results, compare(study, results))
    values = [one.epochs[-1].metrics["test_acc"] for one in results if one.arm == "up"]
    row = next(row for row in found.verdicts[0].comparisons if row.arm == "up")
    low, high = stats.t.interval(1 - 0.025 / 4, 5, np.mean(values), stats.sem(values))
    assert row.interval == pytest.approx((low - 0.75, high - 0.75), rel=1e-9)
    assert row.p_adjusted == pytest.approx(4 * stats.ttest_1samp(values, 0.75).pvalue)
    assert verdicts(found)["75.00%", "up"] == "better"
    assert verdicts(found)["75.00%", "down"] == "worse"


def test_one_sided_only_better_is_said_and_sooner():
    def asked(**constant):
        arms = {"a": {"weights_sd": 0.0, "order_sd": 0.0}}
        (found,) = answers(arms, seeds=4, against={"value": 0.79, **constant}, final=True)
        return found.verdicts[0]

    two, one = asked(), asked(one_sided=True)
    width = [found.comparisons[0].interval[1] - found.comparisons[0].interval[0] for found in (two, one)]
    assert width[1] / width[0] == pytest.approx(stats.t.isf(0.05, 3) / stats.t.isf(0.025, 3))
    (below,) = answers(against={"value": 0.9, "one_sided": True})
    assert set(verdicts(below).values()) == {"undecided"}


def test_one_sided_an_arm_on_the_other_side_is_no_evidence_and_gets_no_advice():
    (below,) = answers(against={"value": 0.8005, "one_sided": True}, seeds=5)
    rows = {row.arm: row for row in below.verdicts[0].comparisons}
    assert rows["ref"].mean_difference < 0 < rows["up"].mean_difference
    assert (rows["ref"].p_adjusted, rows["down"].p_adjusted, rows["down"].more_seeds) == (1.0, 1.0, None)
    assert rows["up"].p_adjusted < 0.05
    advice = [line for row in (rows["ref"], rows["down"]) for line in row.caveats if "settle" in line]
    assert (rows["ref"].more_seeds, advice) == (None, [])


def test_with_one_seed_nothing_is_said_of_a_look_after_two():
    (found,) = answers(seeds=1, against=0.8)
    assert not [
        line for row in found.verdicts[0].comparisons for line in row.caveats if "look" in line or "Two" in line
    ]


def test_an_arm_that_lost_a_seed_is_not_better_than_a_constant():
    arms = {"a": {"diverge_seeds": [2]}, "b": {"mean": 0.6, "diverge_seeds": [2]}}
    (found,) = answers(arms, against=0.7)
    assert verdicts(found) == {("70.00%", "a"): "undecided", ("70.00%", "b"): "worse"}
    assert "It lost seed 2, which counts against it." in found.verdicts[0].comparisons[0].caveats


def test_a_single_arm_may_be_compared_with_a_constant():
    (found,) = answers({"a": {}}, against=0.7)
    assert verdicts(found) == {("70.00%", "a"): "better"}


def test_all_pairs_are_answered_once():
    (found,) = answers(pairs="all")
    assert verdicts(found) == {
        ("same", "up"): "better",
        ("same", "down"): "worse",
        ("up", "down"): "worse",
    }


def test_a_pair_ends_where_one_of_its_arms_stopped():
    def stopped(study):
        return [one for one in simulated_results(study) if one.arm != "down" or one.seed < 4]

    (found,) = answers(seeds={"min": 3, "max": 8}, pairs="all", results=stopped)
    seeds = {(one.reference, row.arm): row.seeds for one in found.verdicts for row in one.comparisons}
    assert seeds["up", "down"] <= 4


def test_the_best_arm_is_the_one_that_no_other_beats():
    (found,) = answers(best=True)
    assert found.best.candidates == ("up",)
    assert found.best.excluded == ("ref", "same", "down")
    (found,) = answers({"ref": {}, "same": {}, "down": {"mean": 0.7}}, best=True)
    assert found.best.candidates == ("ref", "same")
    assert found.best.excluded == ("down",)
    (found,) = answers(metric="final_train_loss", best=True)
    assert found.best.leader == found.best.candidates[0] == "up"


def test_an_arm_that_lost_a_seed_beats_none():
    arms = {"ref": {}, "up": {"mean": 0.9, "diverge_seeds": [0]}}
    (found,) = answers(arms, best=True)
    assert found.best.candidates == ("ref", "up")


def test_a_question_has_an_answer_before_any_result():
    found = answers(results=lambda _: [], also=["seconds"], against=0.8, pairs="all", best=True)
    assert {said for answer in found for said in verdicts(answer).values()} == {"undecided"}
    assert found[-1].best.candidates == tuple(ARMS)


def test_failed_trials_of_all_arms_leave_all_open():
    def failed(study):
        return [replace(one, outcome=Outcome.FAILED) for one in simulated_results(study)]

    found = answers(results=failed, also=["seconds"], against=0.8, pairs="all", best=True)
    assert {said for answer in found for said in verdicts(answer).values()} == {"undecided"}


def curve(arm, seed, epoch):
    """Accuracies that depend on the arm's first letter alone."""
    noise = np.random.default_rng([ord(arm[0]), seed]).normal(0, 0.01)
    return {"test_acc": {"r": 0.8, "u": 0.85, "d": 0.6}[arm[0]] + noise + epoch / 1000}


def test_identical_arms_have_no_difference_and_widen_no_interval():
    arms, evidence = ("ref", "up", "unread", "down"), {"margin": 0.01, "pairs": "all", "best": True}
    study = make_study(arms, seeds=6, evidence=evidence)
    results = make_results(study, curve)
    pairs, best = answer_questions(study, results, compare(study, results))
    row = pairs.verdicts[0].comparisons[0]
    assert (row.arm, row.verdict.value, row.mean_difference, row.interval) == ("unread", "equivalent", 0.0, None)
    assert verdicts(pairs)["up", "down"] == verdicts(pairs)["unread", "down"] == "worse"
    assert best.best.candidates == ("up", "unread")


def test_an_arm_under_a_second_name_is_no_rival():
    arms = {"ref": {}, "up": {"optimizer": {"eps": 1e-6}}, "down": {"optimizer": {"eps": 1e-5}}, "ref_again": {}}
    study = make_study(arms, seeds=6, evidence={"aa": True, "pairs": "all", "best": True})
    results = make_results(study, curve)
    pairs, best = answer_questions(study, results, compare(study, results))
    assert list(verdicts(pairs)) == [("up", "down")]
    assert {*best.best.candidates, *best.best.excluded} == {"ref", "up", "down"}


def test_an_outlying_run_on_a_further_measure_is_named():
    study = simulated_study(ARMS, seeds=10, evidence={"also": ["final_train_loss"]})
    results = [
        replace(one, epochs=tuple(replace(e, metrics={**e.metrics, "train_loss": 9.0}) for e in one.epochs))
        if (one.arm, one.seed) == ("up", 3)
        else one
        for one in simulated_results(study)
    ]
    main = compare(study, results)
    (found,) = answer_questions(study, results, main)
    assert main.alerts == ()
    assert found.verdicts[0].alerts[0].startswith("up: 1 of 10 runs far behind its others (seed 3: 9.0000")
    assert verdicts(found)["ref", "up"] != "better"


# Error rates: many studies at once by `judge_many`, as the questions use it for one; 3 standard errors are allowed.

STUDIES = 4_000
MOST = 0.05 + 3 * (0.05 * 0.95 / STUDIES) ** 0.5
SEQUENTIAL = LookPlan.of(3, range(3, 9))


def draw(means, spreads, plan=SEQUENTIAL, studies=STUDIES, seed=11):
    """Values of studies, (studies, seeds, arms), and the seeds that each arm got by the study's main question."""
    noise = np.random.default_rng(seed).standard_normal((studies, plan.looks[-1], len(means) + 1))
    tables = np.array(means) + noise[..., -1:] + np.array(spreads) * noise[..., :-1]
    main = judge_many(tables[..., 1:] - tables[..., :1], LookPlan.of(len(means) - 1, plan.looks))
    ends = np.array(plan.looks)[main.look]
    return tables, np.column_stack([ends.max(axis=1), ends])


def family(tables, ends, base, alpha, plan=SEQUENTIAL, among=range(4)):
    """Findings about each arm against a base, (studies, arms), at the last look that both have."""
    others = [arm for arm in among if arm != base]
    differences, together = tables[..., others] - tables[..., [base]], np.minimum(ends[:, others], ends[:, [base]])
    seen = np.arange(tables.shape[1])[:, None] < together[:, None]
    differences, looks = np.where(seen, differences, np.nan), LookPlan.of(len(others), plan.looks)
    found = np.zeros(tables.shape[::2], dtype=int)
    for look in plan.looks:
        judged = judge_many(differences[:, :look], looks, alpha).finding
        found[:, others] = np.where(together == look, judged, found[:, others])
    return found


def test_the_simulation_is_of_the_questions_themselves():
    tables, ends = draw([0.0, 1.0, 0.5, 2.0], [1, 1, 1, 1], studies=12)
    study = simulated_study({f"arm{index}": {} for index in range(4)}, seeds={"min": 3, "max": 8})
    names = [arm.name for arm in study.arms]
    contrasts = Contrasts(study, (), compare(study, ()))
    words = {"better": HIGHER, "worse": LOWER, "undecided": 0}
    for index, (table, got) in enumerate(zip(tables, ends, strict=True)):
        values = {(name, s): float(table[s, i]) for i, name in enumerate(names) for s in range(got[i])}
        contrasts.data = PairedData(values, {}, frozenset(), frozenset())
        contrasts.main = replace(contrasts.main, seeds=int(max(got)))
        for base in range(4):
            others = [name for name in names if name != names[base]]
            real = {
                row.arm: words[row.verdict.value] for row in contrasts.with_base(names[base], others, 0.02).comparisons
            }
            vector = family(tables[index : index + 1], ends[index : index + 1], base, 0.02)[0]
            assert [real.get(name, 0) for name in names] == vector.tolist()


@pytest.mark.parametrize("spreads", [(1, 1, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize("looks", [(4,), range(3, 9)])
def test_no_pair_is_called_different_too_often(spreads, looks):
    plan = LookPlan.of(3, looks)
    tables, ends = draw([0.0] * 4, spreads, plan)
    families = {1: (0.05 * 2 / 3, (0, 2, 3)), 2: (0.05 * 1 / 3, (0, 3))}
    found = [family(tables, ends, base, part, plan, among)[:, base + 1 :] for base, (part, among) in families.items()]
    assert np.concatenate(found, axis=1).any(axis=1).mean() <= MOST


@pytest.mark.parametrize("means", [(0.0, 0.0, 0.0, 0.0), (0.0, 0.0, -1.0, -1.0), (-0.5, 0.0, -0.5, -0.5)])
def test_the_best_arm_is_not_excluded_too_often(means):
    tables, ends = draw(means, [0.5] * 4)
    excluded = np.column_stack(
        [(family(tables, ends, base, one_sided(0.05)) == HIGHER).any(axis=1) for base in range(4)]
    )
    best = np.array(means) == max(means)
    false = excluded[:, best].all(axis=1) | ((~excluded).sum(axis=1) == 1) & (best.sum() > 1)
    assert false.mean() <= MOST


def test_no_arm_is_called_better_or_worse_than_its_own_mean_too_often():
    tables, ends = draw([0.0] * 3, [1, 0.3, 3])
    for times in (1, 2):  # two-sided, and one-sided of which only one side counts
        plan, found = LookPlan.of(1, SEQUENTIAL.looks), np.zeros((STUDIES, 3), dtype=bool)
        for look in plan.looks:
            for arm in range(3):
                judged = judge_many(tables[:, :look, [arm]], plan, times * 0.05 / 3).finding[:, 0]
                false = judged != 0 if times == 1 else judged == HIGHER
                found[:, arm] |= (ends[:, arm] == look) & false
        assert 0.02 < found.any(axis=1).mean() <= MOST


def test_measures_of_one_family_err_together_at_most_alpha():
    """Three measures of the same runs, at a third of alpha each; five without that share err far more often."""
    noise = np.random.default_rng(4).standard_normal((5, STUDIES, 8, 4))
    noise[2] = 0.8 * noise[0] + 0.6 * noise[2]

    def false(measures, alpha):
        found = [judge_many(one[..., 1:] - one[..., :1], SEQUENTIAL, alpha).finding for one in noise[:measures]]
        return np.any(found, axis=(0, 2)).mean()

    assert false(3, 0.05 / 3) <= MOST
    assert false(5, 0.05) > 0.1


def test_the_leaders_mean_is_corrected_for_its_luck():
    """Five equal arms: the best mean is too good, the corrected one is right on average."""
    tables = np.random.default_rng(2).standard_normal((4_000, 5, 5))
    corrected = np.array([left_out_mean(table) for table in tables])
    assert tables.mean(axis=1).max(axis=1).mean() > 0.4
    assert abs(corrected.mean()) < 3 * corrected.std(ddof=1) / len(tables) ** 0.5
