"""The numbers behind the figures."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import MACHINE, learning, make_results, make_study
from fairtrial.errors import ReportError
from fairtrial.report.curves import curve_data
from fairtrial.spec.imported import IMPORTED_FROM
from fairtrial.trial import Outcome


def test_mean_lowest_and_highest_over_the_finished_seeds():
    study = make_study(("a", "b"), seeds=3, epochs=4)
    data = curve_data(study, make_results(study), "test_acc")
    assert [curve.arm for curve in data.curves] == ["a", "b"]
    assert (data.metric, data.epochs) == ("test_acc", 4)
    for epoch, point in enumerate(data.curves[1].points, start=1):
        values = [learning("b", seed, epoch)["test_acc"] for seed in range(3)]
        assert point.epoch == epoch
        assert list(point.values.items()) == list(enumerate(values))
        assert point.mean == pytest.approx(sum(values) / 3)
        assert (point.low, point.high) == (min(values), max(values))


@settings(deadline=None, max_examples=50)
@given(st.permutations(range(6)))
def test_the_order_of_results_does_not_matter(order):
    study = make_study(("a", "b"), seeds=3)
    results = make_results(study, ended={("b", 1): Outcome.DIVERGED})
    assert curve_data(study, [results[index] for index in order], "train_loss") == curve_data(
        study, results, "train_loss"
    )


def test_only_finished_trials_enter_the_mean_and_none_is_lost():
    study = make_study(("a",), seeds=5, epochs=4)
    ended = {("a", 1): Outcome.DIVERGED, ("a", 2): Outcome.FAILED, ("a", 3): None}
    (curve,) = curve_data(study, make_results(study, ended=ended), "train_loss").curves
    assert {tuple(point.values) for point in curve.points} == {(0, 4)}
    assert curve.lost == {1: {epoch: learning("a", 1, epoch)["train_loss"] for epoch in (1, 2)}}
    assert curve.omitted == 2


def test_a_diverged_trial_ends_at_its_last_finite_value():
    study = make_study(("a",), seeds=1, epochs=4)
    losses = {1: 2.0, 2: 50.0, 3: math.inf, 4: math.nan}
    results = make_results(
        study,
        lambda arm, seed, epoch: {"train_loss": losses[epoch]},
        ended={("a", 0): Outcome.DIVERGED},
        epochs={("a", 0): 4},
    )
    data = curve_data(study, results, "train_loss")
    assert data.curves[0].lost == {0: {1: 2.0, 2: 50.0}}
    assert data.epochs == 2


def test_a_trial_that_diverged_at_once_is_there_without_values():
    study = make_study(("a", "b"), seeds=1)
    results = make_results(study, ended={("a", 0): Outcome.DIVERGED}, epochs={("a", 0): 0})
    assert curve_data(study, results, "train_loss").curves[0].lost == {0: {}}
    with pytest.raises(ReportError, match="no finished or diverged trial has recorded `train_loss`"):
        curve_data(study, [result for result in results if result.arm == "a"], "train_loss")


def test_gaps_of_single_seeds_and_epochs():
    study = make_study(("a",), seeds=2, epochs=3)

    def curve(arm, seed, epoch):
        if epoch == 2:
            return {"test_acc": math.nan if seed else 0.5}
        return {} if epoch == 3 else {"test_acc": 0.4}

    (found,) = curve_data(study, make_results(study, curve), "test_acc").curves
    assert [(point.epoch, len(point.values), point.mean) for point in found.points] == [(1, 2, 0.4)]
    assert found.tails == {0: {1: 0.4, 2: 0.5}}


def test_a_mean_ends_with_the_first_trial_that_ends():
    study = make_study(("a", "b"), seeds=3, epochs=6)
    data = curve_data(study, make_results(study, epochs={("a", 1): 3}), "test_acc")
    a, b = data.curves
    assert [point.epoch for point in a.points] == [1, 2, 3]
    assert {seed: list(values) for seed, values in a.tails.items()} == {0: [3, 4, 5, 6], 2: [3, 4, 5, 6]}
    assert (len(b.points), dict(b.tails), b.seeds) == (6, {}, 3)


def test_a_metric_that_only_some_trials_record_is_that_of_those():
    study = make_study(("a",), seeds=3, epochs=2)
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": 0.5} | ({"norm": 1.0} if seed else {}))
    (found,) = curve_data(study, results, "norm").curves
    assert (found.seeds, [len(point.values) for point in found.points]) == (2, [2, 2])


def test_runs_that_were_imported_as_one_value_have_no_epoch():
    study = make_study(("a", "b"), seeds=2, epochs=1)
    elsewhere = replace(MACHINE, system=f"{IMPORTED_FROM}runs.csv")
    results = [replace(one, machine=elsewhere) for one in make_results(study)]
    with pytest.raises(ReportError, match="imported as one value each, without epochs"):
        curve_data(study, results, "test_acc")


def test_an_arm_without_trials_and_a_metric_that_nobody_reports():
    study = make_study(("a", "b"), seeds=1)
    results = make_results(study, skip={("b", 0)})
    assert curve_data(study, results, "test_acc").curves[1].points == ()
    with pytest.raises(ReportError, match="no finished or diverged trial has recorded `val_acc`"):
        curve_data(study, results, "val_acc")


def test_a_foreign_result_is_a_bug():
    with pytest.raises(ValueError, match="has no trial of arm"):
        curve_data(make_study(("a",)), make_results(make_study(("b",))), "test_acc")
