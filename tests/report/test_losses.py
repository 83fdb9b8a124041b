"""Every run that counts as lost is listed, with what lost it."""

import dataclasses
import math

import pytest

from builders import make_results, make_study
from fairtrial.report.losses import loss_lines, loss_rows
from fairtrial.trial import Outcome

TARGET = {"metric": "epochs_to_target", "target": {"metric": "test_acc", "value": 0.6}}
NAN = "not finite: test_acc is nan after epoch 1"


@pytest.mark.parametrize(
    ("value", "evidence", "reason"),
    [
        (math.nan, {}, NAN),
        (1e200, {}, "not finite: test_acc is 1e+200 after epoch 1"),
        (0.1, {"lost_below": 0.15}, "did not learn: best test accuracy 10.00%, below the floor"),
        (0.1, {}, "fell behind: best test accuracy 10.00%, far from the arm's other runs"),
        (0.1, TARGET, "missed the target: test_acc never reached 0.6"),
        (math.nan, TARGET, NAN),
    ],
)
def test_runs_lost_on_the_measure_are_listed_with_the_value(value, evidence, reason):
    study = make_study(("a", "b"), seeds=5, evidence=evidence)
    ends = [0.84, 0.85, value, 0.86, 0.85]
    results = make_results(study, lambda arm, seed, epoch: {"test_acc": ends[seed] if arm == "b" else 0.8 + seed / 100})
    assert list(loss_lines(study, results)) == [f"b seed 2: {reason}"]
    assert [(row["arm"], row["seed"], row["lost"]) for row in loss_rows(study, results)] == [("b", 2, reason)]


def test_equal_tracebacks_are_written_once():
    study = make_study(("a", "b"), seeds=4)
    ended = {("a", seed): Outcome.FAILED for seed in range(4)} | {("b", seed): Outcome.FAILED for seed in (0, 3)}
    results = make_results(study, ended=ended)
    results = [
        dataclasses.replace(result, detail="boom\nTraceback") if result.outcome is Outcome.FAILED else result
        for result in results
    ]
    assert list(loss_lines(study, results)) == ["a seeds 0 to 3, b seeds 0 and 3: boom\nTraceback"]


def test_a_study_without_losses_lists_none():
    study = make_study(("a", "b"))
    assert list(loss_lines(study, make_results(study))) == []
