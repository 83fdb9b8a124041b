"""Means and spreads over seeds: the numbers, and what enters them."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import learning, make_results, make_study
from fairtrial.spec import METRICS
from fairtrial.stats.joined import join
from fairtrial.stats.summary import SeedSpread, summarize
from fairtrial.trial import Outcome


def values(study, results, metric, arm=0):
    return summarize(study, results).arms[arm].metrics[metric].values


def test_means_and_standard_deviations_are_numpys():
    study = make_study(("a", "b"), seeds=3, epochs=4)
    summary = summarize(study, make_results(study))
    curves = {seed: [learning("b", seed, epoch) for epoch in range(1, 5)] for seed in range(3)}
    expected = {
        "best_test_acc": [max(epoch["test_acc"] for epoch in curves[seed]) for seed in range(3)],
        "best_train_acc": [max(epoch["train_acc"] for epoch in curves[seed]) for seed in range(3)],
        "final_test_acc": [curves[seed][-1]["test_acc"] for seed in range(3)],
        "final_train_loss": [curves[seed][-1]["train_loss"] for seed in range(3)],
        "seconds": [4 * (70.0 + seed + 2.5) for seed in range(3)],
    }
    metrics = summary.arms[1].metrics
    assert list(metrics) == list(expected)
    for name, numbers in expected.items():
        assert metrics[name].values == pytest.approx(numbers)
        assert metrics[name].mean == pytest.approx(np.mean(numbers))
        assert metrics[name].sd == pytest.approx(np.std(numbers, ddof=1))


def test_study_and_arms_are_named_in_the_studys_order():
    study = make_study(seeds=2)
    summary = summarize(study, make_results(study))
    assert (summary.study, summary.hash, summary.seeds, summary.reference) == ("made_up", study.hash, 2, "baseline")
    assert [arm.arm for arm in summary.arms] == [arm.name for arm in study.arms]
    assert summary.arms[2].settings["optimizer"]["betas"] == [0.9, 0.99]
    assert "path" not in summary.arms[2].settings["data"]


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(15)))
def test_the_order_of_results_does_not_matter(order):
    study = make_study(seeds=3)
    results = make_results(study, ended={("large_eps", 1): Outcome.DIVERGED})
    assert summarize(study, [results[index] for index in order]) == summarize(study, results)


@settings(deadline=None)
@given(st.dictionaries(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), st.sampled_from([*Outcome, None])))
def test_every_trial_is_counted_once_and_only_finished_ones_are_averaged(ended):
    study = make_study(("a", "b"), seeds=4)
    results = make_results(study, ended=ended)
    random.Random(0).shuffle(results)
    for arm in summarize(study, results).arms:
        assert arm.finished + arm.diverged + arm.failed + arm.interrupted + arm.not_learned + arm.fell_behind == 4
        finished = tuple(seed for seed in range(4) if ended.get((arm.arm, seed), "finished") == "finished")
        assert arm.seeds == finished
        assert arm.outcomes == {seed: ended.get((arm.arm, seed), Outcome.FINISHED) for seed in range(4)}
        seconds = [4 * (72.5 + seed) for seed in finished]
        assert arm.metrics["seconds"].values == tuple(seconds)
        assert arm.metrics["seconds"].mean == (pytest.approx(np.mean(seconds)) if seconds else None)


def test_a_diverged_trial_moves_no_mean():
    study = make_study(("a",), seeds=3)
    absurd = make_results(
        study,
        lambda arm, seed, epoch: learning(arm, seed, epoch) | ({"train_loss": 1e30} if seed == 2 else {}),
        ended={("a", 2): Outcome.DIVERGED},
    )
    without = make_results(study, skip={("a", 2)})
    assert summarize(study, absurd).arms[0].metrics == summarize(study, without).arms[0].metrics


def test_an_arm_without_trials_is_there():
    study = make_study(("a", "b"), seeds=2)
    arm = summarize(study, make_results(study, skip={("b", 0), ("b", 1)})).arms[1]
    assert (arm.arm, arm.seeds, arm.outcomes) == ("b", (), {})
    assert (arm.finished, arm.diverged, arm.failed, arm.interrupted) == (0, 0, 0, 0)
    assert set(arm.metrics) >= {"best_test_acc", "seconds"}
    assert all(spread == SeedSpread((), None, None) for spread in arm.metrics.values())


def test_no_results_at_all():
    study = make_study(("a", "b"))
    assert [arm.finished for arm in summarize(study, []).arms] == [0, 0]


def test_one_seed_has_no_standard_deviation():
    study = make_study(("a",), seeds=1)
    spread = summarize(study, make_results(study)).arms[0].metrics["seconds"]
    assert (spread.mean, spread.sd, spread.count) == (290.0, None, 1)


def test_a_metric_that_one_trial_lacks_leaves_a_gap_at_its_seed():
    study = make_study(("a",), seeds=3)

    def curve(arm, seed, epoch):
        metrics = learning(arm, seed, epoch)
        if seed == 1:
            del metrics["test_acc"], metrics["train_seconds"]
        return metrics

    metrics = summarize(study, make_results(study, curve)).arms[0].metrics
    best = metrics["best_test_acc"]
    assert [value is None for value in best.values] == [False, True, False]
    assert best.count == 2
    assert best.mean == pytest.approx((best.values[0] + best.values[2]) / 2)
    assert metrics["seconds"].values == (290.0, None, 298.0)
    assert metrics["best_train_acc"].count == 3


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_never_enter_a_mean(odd):
    study = make_study(("a",), seeds=2, epochs=3)

    def curve(arm, seed, epoch):
        broken = seed == 1 and epoch > 1
        return {"train_loss": odd if broken else 1.0, "test_acc": odd if broken and epoch == 2 else epoch / 10}

    metrics = summarize(study, make_results(study, curve)).arms[0].metrics
    assert metrics["final_train_loss"] == SeedSpread((1.0, None), 1.0, None)
    assert metrics["best_test_acc"].values == (0.3, None)  # no value is computed around it
    assert metrics["final_test_acc"].values == (0.3, 0.3)  # nor is one lost by an epoch that it does not look at


def test_runs_that_did_not_learn_enter_no_mean_and_are_counted():
    """The mean of three dead runs and five good ones lies where no run was."""
    ends = {"a": [0.85, 0.84, 0.86, 0.85, 0.84], "b": [0.87, 0.1, 0.88, 0.86, 0.87]}
    for evidence, counts in (({}, (0, 1)), ({"lost_below": 0.15}, (1, 0))):
        study = make_study(tuple(ends), seeds=5, evidence=evidence)
        (_, arm) = summarize(study, make_results(study, lambda arm, seed, epoch: {"test_acc": ends[arm][seed]})).arms
        assert (arm.finished, arm.seeds) == (4, (0, 2, 3, 4))
        assert (arm.not_learned, arm.fell_behind) == counts
        assert arm.metrics["best_test_acc"].mean == pytest.approx(0.87)


def test_runs_that_the_measure_lost_are_counted():
    study = make_study(("a", "b"), seeds=3)
    nan = make_results(study, lambda arm, seed, epoch: {"test_acc": math.nan if (arm, seed) == ("b", 1) else 0.5})
    assert [arm.not_finite for arm in summarize(study, nan).arms] == [0, 1]
    target = {"metric": "epochs_to_target", "target": {"metric": "test_acc", "value": 0.6}}
    study = make_study(("a", "b"), seeds=3, evidence=target)
    slow = make_results(study, lambda arm, seed, epoch: {"test_acc": 0.5 if (arm, seed) == ("b", 1) else 0.7})
    assert [arm.missed for arm in summarize(study, slow).arms] == [0, 1]


def test_the_last_epochs_value_has_no_substitute():
    study = make_study(("a",), seeds=1, epochs=3)
    curve = {1: {"test_acc": 0.3}, 2: {"test_acc": 0.4}, 3: {"train_loss": 1.0}}
    results = make_results(study, lambda arm, seed, epoch: curve[epoch])
    assert values(study, results, "final_test_acc") == (None,)
    assert values(study, results, "best_test_acc") == (0.4,)


def test_seconds_of_a_loop_that_times_its_training_alone():
    study = make_study(("a",), seeds=1, epochs=3)
    results = make_results(study, lambda arm, seed, epoch: {"train_seconds": 2.0})
    assert values(study, results, "seconds") == (6.0,)


class TestValidation:
    def test_the_epoch_is_chosen_on_the_validation_images_the_first_of_equals(self):
        study = make_study(("a",), seeds=1, epochs=4, data={"validation": 100})
        val = {1: 0.5, 2: 0.7, 3: 0.7, 4: 0.6}
        test = {1: 0.9, 2: 0.6, 3: 0.8, 4: 0.95}
        results = make_results(study, lambda arm, seed, epoch: {"val_acc": val[epoch], "test_acc": test[epoch]})
        assert values(study, results, "test_acc_at_best_val") == (0.6,)
        assert values(study, results, "best_test_acc") == (0.95,)

    def test_a_study_without_a_split_does_not_name_it(self):
        study = make_study(("a",))
        assert "test_acc_at_best_val" not in summarize(study, make_results(study)).arms[0].metrics

    def test_a_training_loop_may_hold_out_images_of_its_own(self):
        study = make_study(("a", "b"), seeds=1)
        results = make_results(study, lambda arm, seed, epoch: dict.fromkeys(METRICS, 0.5), skip={("b", 0)})
        arms = summarize(study, results).arms
        assert arms[0].metrics["test_acc_at_best_val"].values == (0.5,)
        assert arms[1].metrics["test_acc_at_best_val"].values == ()

    def test_no_validation_accuracy_was_reported(self):
        study = make_study(("a",), seeds=1, data={"validation": 100})
        assert values(study, make_results(study), "test_acc_at_best_val") == (None,)


class TestJoin:
    def test_keys_are_in_the_studys_order_then_by_seed(self):
        study = make_study(("z", "a"), seeds=2)
        assert list(join(study, make_results(study)[::-1])) == [("z", 0), ("z", 1), ("a", 0), ("a", 1)]

    @pytest.mark.parametrize(("arms", "seeds"), [(("a", "c"), 1), (("a",), 3)])
    def test_a_foreign_result_is_a_bug(self, arms, seeds):
        foreign = make_results(make_study(arms, seeds=seeds))
        with pytest.raises(ValueError, match="has no trial of arm"):
            summarize(make_study(("a", "b"), seeds=2), foreign)

    def test_a_trial_that_is_there_twice_is_a_bug(self):
        study = make_study(("a",), seeds=1)
        with pytest.raises(ValueError, match="appears twice"):
            summarize(study, make_results(study) * 2)


@pytest.mark.parametrize("name", ["final_nll", "mean_last2_top1", "best_test_accuracy"])
def test_the_table_of_a_users_loop_has_its_own_measure_and_what_it_records_and_no_other(name):
    own = {"training": {"loop": "mine:train"}, "evidence": {"metric": name, "direction": "higher"}}
    study = make_study({"a": {}, "b": {"params": {"x": 1}}}, seeds=2, **own)
    metric = name.partition("_")[2].removeprefix("last2_")
    results = make_results(study, lambda *_: {metric: 0.5, "train_loss": 1.0})
    summary = summarize(study, results)
    assert [each.name for each in summary.measures if each.column] == [name]
    assert {each.name for each in summary.measures} == {name, "final_train_loss"}
    assert summary.arms[1].metrics[name].mean == 0.5
