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
