"""From stored trials to verdicts: joined by seed, honest about what was lost, and never NaN."""

import dataclasses
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import learning, make_results, make_study
from fairtrial.errors import StudyError
from fairtrial.stats.claims import check_claims
from fairtrial.stats.comparison import compare, looks, paired_spread, stops
from fairtrial.stats.judge import judge
from fairtrial.stats.questions import answer_questions
from fairtrial.stats.verdicts import ClaimVerdict, Verdict
from fairtrial.testing import simulated_results, simulated_study
from fairtrial.trial import Outcome

CLEAR = {"reference": {}, "up": {"mean": 0.86}, "down": {"mean": 0.74}, "same": {}}


def by_arm(verdict):
    return {row.arm: row for row in verdict.comparisons}


def verdicts(study, results=None, **kwargs):
    found = compare(study, simulated_results(study) if results is None else results, **kwargs)
    return {row.arm: row.verdict.value for row in found.comparisons}


def numbers(found):
    """Every number in a study's verdict."""
    for row in found.comparisons:
        for value in dataclasses.astuple(row):
            yield from value if isinstance(value, tuple) else [value]


def test_it_is_judge_on_differences_by_seed():
    study = simulated_study(CLEAR, seeds=5, evidence={"margin": 0.01})
    results = simulated_results(study)
    final = {(r.arm, r.seed): r.epochs[-1].metrics["test_acc"] for r in results}
    table = [[final[arm, seed] - final["reference", seed] for arm in ("up", "down", "same")] for seed in range(5)]
    expected = judge(table, 0.01, 0.05, [5], arms=["up", "down", "same"], share=0.7)
    found = compare(study, results)
    bare = {"caveats": (), "failures": None}
    assert [replace(row, **bare) for row in found.comparisons] == [replace(row, **bare) for row in expected]
    assert (found.reference, found.metric, found.margin, found.alpha) == ("reference", "best_test_acc", 0.01, 0.05)
    assert (found.seeds, found.looks, found.lost, found.refused) == (5, (5,), {}, {})


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_results_does_not_matter(rng):
    study = simulated_study({"a": {}, "b": {"diverge_seeds": [1]}}, seeds=4)
    results = list(simulated_results(study))
    expected = compare(study, results)
    rng.shuffle(results)
    assert compare(study, results) == expected


@settings(max_examples=20)
@given(st.lists(st.floats(-0.3, 0.3), min_size=5, max_size=5))
def test_what_all_arms_of_a_seed_share_does_not_matter(luck):
    """That is what pairing is for: a seed that is good for all arms changes no difference."""
    study = make_study(seeds=5)
    expected = compare(study, make_results(study, lambda *key: {"test_acc": learning(*key)["test_acc"]}))
    found = compare(study, make_results(study, lambda *key: {"test_acc": learning(*key)["test_acc"] + luck[key[1]]}))
    for mine, other in zip(found.comparisons, expected.comparisons, strict=True):
        assert (mine.verdict, mine.seeds) == (other.verdict, other.seeds)
        assert mine.interval == pytest.approx(other.interval, abs=1e-9)


def test_of_a_loss_the_lower_is_better():
    study = simulated_study(CLEAR, seeds=5, evidence={"metric": "final_train_loss"})
    assert verdicts(study) == {"up": "better", "down": "worse", "same": "undecided"}
    found = by_arm(compare(study, simulated_results(study)))
    assert found["up"].mean_difference < 0 < found["up"].effect_size


@pytest.mark.parametrize("metric", ["generalisation_gap", "seconds"])
def test_other_measures_are_compared_too(metric):
    arms = {"a": {}, "b": {"gap": 0.2, "seconds": 20.0}}
    assert verdicts(simulated_study(arms, seeds=4, evidence={"metric": metric})) == {"b": "worse"}


def test_with_no_metric_at_all_it_says_so():
    study = make_study({"a": {}, "b": {"params": {"x": 1}}}, training={"loop": "loops:good"}, seeds=3)
    found = compare(study, make_results(study, lambda arm, seed, epoch: {"speed": 1.0}))
    assert "No finished trial reported this metric." in found.caveats
    assert found.comparisons[0].seeds == 0


# What was lost


def test_a_diverged_trial_is_never_averaged_away():
    study = simulated_study({"a": {}, "b": {"mean": 0.9, "diverge_seeds": [2]}, "c": {}}, seeds=5)
    row = by_arm(compare(study, simulated_results(study)))["b"]
    assert row.interval[0] > 0  # the other four seeds alone
    assert (row.verdict, row.more_seeds, row.seeds) == (Verdict.UNDECIDED, None, 4)
    assert "It diverged at seed 2 and a did not, which counts against it." in row.caveats
    assert any("that both finished say better" in caveat for caveat in row.caveats)
    assert any("including the chance at a new seed" in caveat for caveat in row.caveats)


def test_an_arm_that_lost_a_seed_can_be_worse():
    study = simulated_study({"a": {}, "b": {"mean": 0.7, "fail_seeds": [2]}}, seeds=5)
    row = by_arm(compare(study, simulated_results(study)))["b"]
    assert row.verdict is Verdict.WORSE
    assert "It failed at seed 2 and a did not, which counts against it." in row.caveats


def test_an_arm_that_lost_a_seed_is_not_equivalent():
    arms = {"a": {"noise_sd": 0.0005}, "b": {"noise_sd": 0.0005, "diverge_seeds": [0]}}
    assert verdicts(simulated_study(arms, seeds=6, evidence={"margin": 0.02})) == {"b": "undecided"}


@pytest.mark.parametrize(("mean", "expected"), [(0.9, "better"), (0.7, "undecided")])
def test_what_the_reference_lost_speaks_for_the_arm(mean, expected):
    study = simulated_study({"a": {"diverge_seeds": [1]}, "b": {"mean": mean}}, seeds=5)
    assert verdicts(study) == {"b": expected}
    (row,) = compare(study, simulated_results(study)).comparisons
    assert "a diverged at seed 1 and this arm did not, which counts for it." in row.caveats


@pytest.mark.parametrize(("mean", "lost_by"), [(0.6, "a"), (0.9, "b")])
def test_failures_do_not_outweigh_what_the_other_seeds_show(mean, lost_by):
    """The arm is 20 points worse where both work, but the reference fails more often; and the reverse."""
    arms = {"a": {}, "b": {"mean": mean}}
    arms[lost_by] = arms[lost_by] | {"diverge_seeds": list(range(8))}
    study = simulated_study(arms, seeds=20)
    (row,) = compare(study, simulated_results(study)).comparisons
    assert (row.verdict, row.by_failures) == (Verdict.UNDECIDED, False)
    assert row.failures.p_adjusted < 0.05
    assert any(line.startswith("The seeds that both finished say ") for line in row.caveats)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [1e99, -1e99, 1.1e100, 1e200, 1e308])
def test_a_value_too_large_to_compare_is_a_loss_as_nan_is(value):
    evidence = {"metric": "final_test_loss", "pairs": "all", "best": True, "also": ["mean_last2_test_loss"]}
    within = {"id": "1", "text": "t", "arm": "b", "against": "all others", "metric": "final_test_loss", "within": 0.1}
    study = simulated_study({"a": {}, "b": {}, "c": {}}, seeds=5, evidence=evidence | {"margin": 0.1}, claims=[within])
    results = [
        replace(one, epochs=tuple(replace(e, metrics=e.metrics | {"test_loss": value}) for e in one.epochs))
        if (one.arm, one.seed) == ("b", 1)
        else one
        for one in simulated_results(study)
    ]
    found = compare(study, results)
    assert (found.lost == {"b": {"not finite": 1}}) is (abs(value) > 1e99)
    assert len(answer_questions(study, results, found)) == 3
    assert check_claims(study, results).claims[0].finding is ClaimVerdict.UNDECIDED


def test_a_verdict_by_failures_has_no_caveat_that_lost_seeds_leave_it_undecided():
    study = simulated_study({"a": {}, "b": {"diverge_seeds": list(range(8))}}, seeds=20, evidence={"margin": 0.03})
    (row,) = compare(study, simulated_results(study)).comparisons
    assert (row.verdict, row.by_failures) == (Verdict.WORSE, True)
    assert not any("undecided" in line for line in row.caveats)


def test_what_both_lost_speaks_for_neither():
    study = simulated_study({"a": {"diverge_seeds": [1]}, "b": {"mean": 0.9, "fail_seeds": [1]}}, seeds=5)
    assert verdicts(study) == {"b": "better"}


def test_an_arm_that_always_diverges_spoils_no_other():
    arms = CLEAR | {"wild": {"diverge_rate": 1.0}}
    study = simulated_study(arms, seeds=5)
    found = compare(study, simulated_results(study))
    assert {row.arm: row.verdict.value for row in found.comparisons} == {
        "up": "better",
        "down": "worse",
        "same": "undecided",
        "wild": "undecided",
    }
    assert found.lost == {"wild": {"diverged": 5}}
    assert by_arm(found)["wild"].mean_difference is None


def test_a_miss_is_a_miss_and_no_number():
    target = {"metric": "test_acc", "value": 0.78}
    arms = {"a": {"noise_sd": 0.0, "mean": 0.82}, "slow": {"mean": 0.6}, "close": {"mean": 0.82}}
    study = simulated_study(arms, seeds=4, epochs=20, evidence={"metric": "epochs_to_target", "target": target})
    found = compare(study, simulated_results(study))
    slow = by_arm(found)["slow"]
    assert (slow.seeds, slow.mean_difference, slow.verdict) == (0, None, Verdict.UNDECIDED)
    assert found.lost == {"slow": {"missed": 4}}
    assert "It missed the target at seeds 0, 1, 2 and 3 and a did not, which counts against it." in slow.caveats
    assert by_arm(found)["close"].seeds == 4


# What holds up


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_seed_and_two(seeds):
    study = simulated_study(CLEAR, seeds=seeds)
    found = compare(study, simulated_results(study))
    assert all(row.seeds == seeds for row in found.comparisons)
    if seeds == 1:
        assert {row.verdict for row in found.comparisons} == {Verdict.UNDECIDED}
        assert found.caveats.count("One run per arm: a single seed can't tell a difference from noise.") == 1
        assert not any("first look" in caveat for row in found.comparisons for caveat in row.caveats)


def test_no_results_and_one_arm():
    study = simulated_study(CLEAR, seeds=3)
    assert {row.verdict for row in compare(study, ()).comparisons} == {Verdict.UNDECIDED}
    assert compare(simulated_study({"a": {}}), ()).comparisons == ()


@pytest.mark.parametrize("missing", [("same", 4), ("up", 1), ("reference", 4)])
def test_a_fixed_study_is_looked_at_once_every_arm_has_ended_every_seed(missing):
    study = simulated_study(CLEAR, seeds=5)
    results = [r for r in simulated_results(study) if (r.arm, r.seed) != missing]
    found = compare(study, results)
    assert found.seeds == missing[1]
    assert {(row.verdict, row.interval) for row in found.comparisons} == {(Verdict.UNDECIDED, None)}
    waits = "The first look is planned after 5 seeds; before it there is no interval and no verdict."
    assert waits in found.comparisons[0].caveats
    assert verdicts(study)["up"] == "better"


def test_a_reference_that_another_study_trained_further_lets_nobody_peek():
    study = simulated_study(CLEAR, seeds=6)
    for pairs in range(2, 6):
        results = [r for r in simulated_results(study) if r.arm == "reference" or r.seed < pairs]
        assert {row.interval for row in compare(study, results).comparisons} == {None}


def test_a_running_trial_is_mentioned():
    study = make_study(("a", "b"), seeds=3)
    found = compare(study, make_results(study, ended={("b", 2): None}))
    assert "1 trial has not ended: interrupted, or still running." in found.caveats


def test_equal_differences_are_said_and_not_divided_by():
    arms = {"a": {"noise_sd": 0.0}, "b": {"noise_sd": 0.0, "mean": 0.85}}
    study = simulated_study(arms, seeds=4, evidence={"margin": 0.01})
    (row,) = compare(study, simulated_results(study)).comparisons
    assert row.verdict is Verdict.UNDECIDED
    assert any(caveat.startswith("All differences are equal") for caveat in row.caveats)


@settings(max_examples=40)
@given(
    st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 4)]),
    st.dictionaries(st.tuples(st.sampled_from("abcd"), st.integers(0, 4)), st.sampled_from([*Outcome, None])),
    st.sets(st.tuples(st.sampled_from("abcd"), st.integers(0, 4))),
)
def test_whatever_is_missing_no_number_is_nan(seeds, ended, skip):
    head = {"min": seeds[0], "max": seeds[1]}
    study = simulated_study({"a": {}, "b": {}, "c": {"mean": 0.85}, "d": {}}, seeds=head, evidence={"margin": 0.01})
    results = [
        replace(r, outcome=ended.get((r.arm, r.seed), r.outcome))
        for r in simulated_results(study)
        if (r.arm, r.seed) not in skip
    ]
    found = compare(study, results)
    assert len(found.comparisons) == 3
    assert all(math.isfinite(value) for value in numbers(found) if isinstance(value, float))
    assert set(stops(study, results)) <= {"b", "c", "d"}


# The pairing


def tamper(results, arm, seed, **fingerprints):
    return [
        replace(r, fingerprints={**r.fingerprints, **fingerprints}) if (r.arm, r.seed) == (arm, seed) else r
        for r in results
    ]


def test_a_comparison_whose_fingerprints_differ_is_refused_and_no_other():
    study = simulated_study(CLEAR, seeds=5)
    found = compare(study, tamper(simulated_results(study), "up", 3, initial_weights="others"))
    assert list(found.refused) == ["up"]
    row = by_arm(found)["up"]
    assert (row.verdict, row.interval, row.mean_difference) == (Verdict.UNDECIDED, None, None)
    assert row.caveats[0].startswith("Refused: ")
    assert "initial_weights" in row.caveats[0]
    assert by_arm(found)["down"].verdict is Verdict.WORSE


def test_a_reference_with_other_weights_refuses_every_comparison():
    study = simulated_study(CLEAR, seeds=5)
    found = compare(study, tamper(simulated_results(study), "reference", 3, batch_order="another"))
    assert list(found.refused) == ["up", "down", "same"]


def test_unknown_fingerprints_and_other_machines_are_flagged():
    study = simulated_study({"a": {}, "b": {"mean": 0.9}}, seeds=3)
    results = [replace(r, fingerprints={}) for r in simulated_results(study)]
    results[-1] = replace(results[-1], machine=replace(results[-1].machine, threads=4))
    (row,) = compare(study, results).comparisons
    assert row.verdict is Verdict.BETTER
    assert any("initial_weights: not proved" in caveat for caveat in row.caveats)
    assert any("threads: 4, but 1 in a (seed 2)" in caveat for caveat in row.caveats)


# Another metric


def test_another_metric_is_said_to_be_no_plan_and_has_no_margin():
    study = simulated_study(CLEAR, seeds=4, evidence={"margin": 0.01})
    found = compare(study, simulated_results(study), metric="final_test_acc")
    assert (found.metric, found.margin) == ("final_test_acc", None)
    assert found.exploratory == ("the study set best_test_acc beforehand, not final_test_acc",)
    assert compare(study, simulated_results(study), metric="best_test_acc").margin == 0.01


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("final_speed", "does not say which way it is better"),
        ("epochs_to_target", "sets no evidence.target"),
        ("test_acc", "known: `best_NAME`, `final_NAME`"),
    ],
)
def test_a_metric_that_can_not_be_compared_is_refused(metric, message):
    study = simulated_study(CLEAR)
    with pytest.raises(StudyError, match=message):
        compare(study, (), metric=metric)


# Sequential studies


def test_looks_are_after_each_seed_or_once_at_the_end():
    assert looks(simulated_study({"a": {}}, seeds=1)) == ()
    assert looks(simulated_study({"a": {}}, seeds=4)) == (4,)
    assert looks(simulated_study({"a": {}}, seeds={"min": 3, "max": 5})) == (3, 4, 5)
    assert looks(simulated_study({"a": {}}, seeds={"min": 1, "max": 3})) == (2, 3)


SEQUENTIAL = {"min": 3, "max": 8}
FEW = {"min": 3, "max": 6}  # too few for failures alone to settle an arm


def below(study, seeds):
    return [r for r in simulated_results(study) if r.seed < seeds]


def test_clear_arms_are_settled_and_close_ones_go_on():
    study = simulated_study(CLEAR, seeds=SEQUENTIAL)
    assert stops(study, below(study, 2)) == {}
    assert set(stops(study, below(study, 3))) == {"up", "down"}


def test_arms_that_no_seed_survived_or_that_are_refused_need_no_more():
    study = simulated_study({"a": {}, "wild": {"diverge_rate": 1.0}, "b": {}, "c": {}}, seeds=FEW)
    results = tamper(below(study, 3), "b", 0, initial_weights="others")
    assert stops(study, below(study, 2)) == {}
    assert set(stops(study, results)) == {"wild", "b"}


def test_an_arm_whose_verdict_its_losses_forbid_is_settled_too():
    study = simulated_study({"a": {}, "b": {"mean": 0.9, "diverge_seeds": [0]}, "c": {}}, seeds=SEQUENTIAL)
    assert "b" in stops(study, below(study, 3))


def test_an_arm_equivalent_but_for_lost_seeds_goes_on_until_failures_settle_it_or_can_not():
    arms = {"a": {}, "b": {"diverge_seeds": [0, 1, 2, 8, 9, 10]}}
    study = simulated_study(arms, seeds={"min": 8, "max": 14}, evidence={"margin": 0.05})
    for seeds in (8, 10):
        found = compare(study, below(study, seeds))
        assert (found.seeds, found.comparisons[0].verdict) == (seeds, Verdict.UNDECIDED)
        assert "The seeds that both finished say equivalent, but the lost seeds leave it undecided." in found.caveats
        assert stops(study, below(study, seeds)) == {}
    assert stops(study, below(study, 11)) == {"b": "b fails more often"}
    assert verdicts(study) == {"b": "worse"}
    short = simulated_study(arms, seeds={"min": 8, "max": 10}, evidence={"margin": 0.05})
    assert stops(short, below(short, 8)) == {"b": "lost seeds leave it undecided"}


def test_half_a_seed_is_no_look():
    study = simulated_study({"a": {}, "up": {"mean": 0.9}, "same": {}}, seeds=SEQUENTIAL)
    stopped = [r for r in below(study, 4) if r.arm != "up" or r.seed < 3]
    assert compare(study, stopped).seeds == 4
    assert compare(study, [r for r in stopped if (r.arm, r.seed) != ("same", 3)]).seeds == 3
    assert by_arm(compare(study, stopped))["up"].seeds == 3


def test_seeds_of_some_arms_that_another_study_trained_move_no_look():
    study = simulated_study({"a": {}, "b": {}, "c": {}}, seeds=SEQUENTIAL)
    expected = compare(study, below(study, 3))
    others = [r for r in below(study, 6) if r.seed < 3 or r.arm in "ab" or r.seed == 5]
    found = compare(study, others)
    assert found.seeds == expected.seeds == 3
    assert [row.interval for row in found.comparisons] == [row.interval for row in expected.comparisons]


def test_why_an_arm_stopped_is_said():
    arms = {"a": {}, "wild": {"diverge_rate": 1.0}, "b": {}, "up": {"mean": 0.9}, "c": {}}
    study = simulated_study(arms | {"lame": {"mean": 0.9, "diverge_seeds": [0]}}, seeds=FEW)
    results = tamper(below(study, 3), "b", 0, initial_weights="others")
    assert stops(study, results) == {
        "wild": "no seed has a result of it and a",
        "b": "its trials are not paired with those of a",
        "up": "its verdict is settled",
        "lame": "lost seeds leave it undecided",
    }
    wild = by_arm(compare(study, results))["wild"]
    assert wild.caveats[:2] == (
        "It diverged at seeds 0, 1 and 2 and a did not, which counts against it.",
        "Of 3 seeds it lost 3 and a 0: the failure rates can't be told apart (p = 1, over all arms and looks).",
    )
    assert "Without a pair there is no interval and no verdict. It got no further seeds." in wild.caveats


def test_an_arm_that_always_fails_gets_seeds_until_failures_settle_it():
    study = simulated_study({"a": {}, "wild": {"diverge_rate": 1.0}, "c": {}}, seeds=SEQUENTIAL)
    assert "wild" not in stops(study, below(study, 6))
    assert stops(study, below(study, 7))["wild"] == "wild fails more often"
    row = by_arm(compare(study, below(study, 7)))["wild"]
    assert (row.verdict, row.by_failures, row.mean_difference) == (Verdict.WORSE, True, None)
    lost_reference = simulated_study({"a": {"diverge_rate": 1.0}, "b": {}}, seeds=SEQUENTIAL)
    assert verdicts(lost_reference, below(lost_reference, 6)) == {"b": "better"}
    assert stops(lost_reference, below(lost_reference, 6)) == {"b": "a fails more often"}


def test_a_settled_arm_keeps_its_verdict():
    study = simulated_study({"a": {}, "up": {"mean": 0.9}, "same": {}}, seeds=SEQUENTIAL)
    first = by_arm(compare(study, below(study, 3)))["up"]
    later = [r for r in below(study, 6) if r.arm != "up" or r.seed < 3]
    row = by_arm(compare(study, later))["up"]
    assert (row.verdict, row.interval, row.seeds) == (first.verdict, first.interval, 3)


def test_the_spread_for_planning_is_that_of_paired_differences():
    study = simulated_study({"a": {}, "b": {}, "c": {}}, seeds=200)
    assert paired_spread(study, simulated_results(study)) == pytest.approx(0.005 * math.sqrt(2), rel=0.1)
    assert paired_spread(study, below(study, 1)) is None
    assert paired_spread(simulated_study({"a": {}}), ()) is None
