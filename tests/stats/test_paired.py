"""Trials joined by arm and seed: differences, and what lost seeds say."""

import math

import numpy as np
import pytest

from builders import make_results, make_study
from fairtrial.spec import Target
from fairtrial.stats.paired import LostSeeds, PairedData
from fairtrial.trial import Outcome

INF = math.inf


def cells(ended=None, skip=(), metric="best_test_acc", curve=None, target=None):
    study = make_study(("a", "b"), seeds=4)
    value = curve or (lambda arm, seed, epoch: {"test_acc": 0.5 + seed / 100 + (0.1 if arm == "b" else 0.0)})
    return PairedData.of(study, make_results(study, value, ended=ended or {}, skip=skip), metric, target)


def test_differences_are_taken_within_seeds():
    assert cells().differences("a", ["b"], 4) == pytest.approx(np.full((4, 1), 0.1))
    relative = cells().differences("a", ["b"], 4, relative=True)[:, 0]
    assert relative == pytest.approx([0.1 / (0.5 + seed / 100) for seed in range(4)])


def test_a_difference_to_nothing_is_nothing():
    table = cells(skip={("a", 0), ("b", 2)}).differences("a", ["b"], 4)
    assert np.isnan(table[:, 0]).tolist() == [True, False, True, False]
    zero = cells(curve=lambda arm, seed, epoch: {"test_acc": 0.0}).differences("a", ["b"], 4, relative=True)
    assert np.isnan(zero).all()


def test_every_trial_is_in_one_place():
    found = cells(ended={("a", 0): Outcome.DIVERGED, ("a", 1): Outcome.FAILED, ("b", 0): None}, skip={("b", 3)})
    assert found.lost == {("a", 0): "diverged", ("a", 1): "failed"}
    assert found.pending == {("b", 0)}
    assert set(found.values) == {("a", 2), ("a", 3), ("b", 1), ("b", 2)}
    assert found.ended == set(found.values) | set(found.lost)


def test_a_target_that_was_not_reached_is_a_loss_and_one_that_was_not_recorded_is_not():
    target = Target(metric="test_acc", value=0.55)
    found = cells(metric="epochs_to_target", target=target)
    assert {found.lost[key] for key in found.lost} == {"missed"}
    assert {arm for arm, _ in found.lost} == {"a"}
    other = Target(metric="val_acc", value=0.5)
    assert len(cells(metric="epochs_to_target", target=other).unreported) == 8


def test_a_nan_is_a_loss_and_no_value_around_it():
    """With nll = NaN in its worst epoch an arm used to look better."""

    def curve(arm, seed, epoch):
        return {"nll": math.nan if (arm, seed, epoch) == ("b", 1, 2) else 0.5 - epoch / 10}

    study = make_study(
        {"a": {}, "b": {"params": {"x": 1}}},
        seeds=3,
        training={"loop": "loops:good"},
        evidence={"metric": "best_nll", "direction": "lower"},
    )
    found = PairedData.of(study, make_results(study, curve), "best_nll", None)
    assert found.lost == {("b", 1): "not finite"}
    assert found.lost_seeds("b", "a") == LostSeeds(arm=(1,), other=())


def floored(floor, curve, **sections):
    study = make_study({"a": {}, "b": {"optimizer": {"eps": 1e-6}}}, seeds=2, evidence=floor, **sections)
    return PairedData.of(study, make_results(study, curve), study.evidence.metric, None)


def test_a_run_beyond_the_floor_did_not_learn():
    own_loop = {"training": {"loop": "loops:good"}}
    low = floored({"lost_below": 0.15}, lambda arm, seed, epoch: {"test_acc": 0.1 if (arm, seed) == ("b", 0) else 0.7})
    assert low.lost == {("b", 0): "did not learn"}
    high = floored(
        {"metric": "final_test_loss", "lost_above": 2.3},
        lambda arm, seed, epoch: {"test_loss": 2.31 if (arm, seed) == ("a", 1) else 2.3},
        **own_loop,
    )
    assert high.lost == {("a", 1): "did not learn"}


def test_chance_level_follows_from_the_classes_or_from_what_a_users_loop_records():
    """CIFAR-10 has ten classes, so runs below 15% are at chance level."""
    chance = {"lost_below": "chance"}
    assert set(floored(chance, lambda arm, seed, epoch: {"test_acc": 0.14 + seed / 50}).lost) == {("a", 0), ("b", 0)}
    own_loop = {"training": {"loop": "loops:good"}}
    two = floored(chance, lambda arm, seed, epoch: {"test_acc": 0.54 + seed / 50, "chance": 0.5}, **own_loop)
    assert set(two.lost) == {("a", 0), ("b", 0)}
    unknown = floored(chance, lambda arm, seed, epoch: {"test_acc": 0.9}, **own_loop)
    assert not unknown.lost
    assert len(unknown.unreported) == 4


def test_a_run_that_did_not_learn_is_lost_for_every_measure():
    study = make_study(("a", "b"), seeds=1, evidence={"lost_below": 0.15})
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": 0.1 if arm == "b" else 0.7, "train_acc": 0.9})
    assert PairedData.of(study, results, "best_train_acc", None).lost == {("b", 0): "did not learn"}


def test_only_seeds_that_both_have_ended_count():
    found = cells(
        ended={("a", 0): Outcome.DIVERGED, ("b", 1): Outcome.FAILED, ("a", 3): Outcome.FAILED}, skip={("b", 3)}
    )
    assert found.lost_seeds("a", "b") == LostSeeds(arm=(0,), other=(1,))
    assert found.lost_seeds("b", "a") == LostSeeds(arm=(1,), other=(0,))
    both = cells(ended={(arm, 0): Outcome.DIVERGED for arm in "ab"})
    assert both.lost_seeds("a", "b") == LostSeeds((), ())


@pytest.mark.parametrize(
    ("lost", "larger", "expected"),
    [
        (LostSeeds((), ()), True, (0.1, 0.2)),
        (LostSeeds((1,), ()), True, (-INF, 0.2)),
        (LostSeeds((1,), ()), False, (0.1, INF)),
        (LostSeeds((), (1,)), True, (0.1, INF)),
        (LostSeeds((), (1,)), False, (-INF, 0.2)),
        (LostSeeds((1,), (2,)), True, (-INF, INF)),
        (LostSeeds((1,), ()), None, (-INF, INF)),
    ],
)
def test_lost_seeds_open_an_interval_on_the_side_to_which_they_point(lost, larger, expected):
    assert lost.widen((0.1, 0.2), larger_is_better=larger) == expected
