"""What a study expects of records: every wrong one is named, with what to yield instead."""

import math
import re

import numpy as np
import pytest
import torch

import loops
from fairtrial.errors import Diverged
from fairtrial.executors.records import NO_RULES, RecordRules, UnitError
from fairtrial.spec import Study

ARMS = {"a": {}, "b": {"optimizer": {"eps": 1e-6}}}
HEAD = {"name": "s", "reference": "a", "arms": ARMS, "training": {"loop": "mine:train"}}


def rules(**changes):
    """The rules of a study with a loop of its own."""
    return RecordRules.of(Study.from_dict(HEAD | changes))


#: What is said of each of `loops.BAD`.
MESSAGES = {
    "percent": "test_acc = 81.5 in epoch 1: must be a fraction, from 0 to 1; yield 0.815",
    "text": "test_acc = '0.8' in epoch 1: must be a number, not text; yield float(test_acc)",
    "truth": "test_acc = True in epoch 1: must be a number, not a truth value; yield float(test_acc) if you mean 0 or "
    "1",
    "nothing": "test_acc = None in epoch 1: must be a number; leave test_acc out, or yield float('nan') if this run is "
    "lost",
    "many": "test_acc = [0.8, 0.9] in epoch 1: must be one number, not list; yield a float, such as test_acc.mean()",
    "missing": 'test_acc is missing in epoch 1: evidence.metric = "best_test_acc" needs it, and the record has '
    "train_loss, val_acc; yield test_acc too, or, if some epochs do not measure it, set metrics.test_acc.sparse = true",
    "no record": "a training loop must yield a dict of metrics, not float",
    "empty": "the training loop yielded an empty record in epoch 1",
}


@pytest.mark.parametrize(("first", "message"), MESSAGES.items())
def test_a_first_record_that_no_study_can_use_is_named(first, message):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(message)}$"):
        rules().checked(loops.BAD[first], 1)


@pytest.mark.parametrize("value", [np.True_, torch.tensor(True)])
def test_truth_values_of_other_libraries_are_no_numbers(value):
    with pytest.raises(TypeError, match="not a truth value"):
        NO_RULES.checked({"test_acc": value}, 2)


@pytest.mark.parametrize("value", [1, np.float32(0.5), np.int64(1), torch.tensor(0.5), torch.tensor([0.5])])
def test_numbers_of_other_libraries_are_numbers(value):
    (number,) = NO_RULES.checked({"test_acc": value}, 1).values()
    assert (type(number), number) == (float, float(value))


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize(
    ("name", "value", "unit", "allowed"),
    [
        ("test_acc", 1.0, None, True),
        ("test_acc", 1.01, None, False),
        ("test_acc", -0.01, None, False),
        ("ema_test_acc", 81.5, None, False),
        ("f1", 0.9, None, True),
        ("f1", 90.0, None, False),
        ("f1", 90.0, "percent", True),
        ("f1", 101.0, "percent", False),
        ("f1", 90.0, "plain", True),
        ("f1", 90.0, "fraction", False),
        ("bleu", 31.0, None, True),
        ("bleu", 31.0, "fraction", False),
    ],
)
def test_a_number_must_be_in_its_metrics_unit(name, value, unit, allowed, epoch):
    own = rules(
        metrics={name: {"unit": unit}} if unit else {}, evidence={"metric": f"best_{name}", "direction": "higher"}
    )
    record = {name: value}
    if allowed:
        assert own.checked(record, epoch) == record
    else:
        with pytest.raises(UnitError, match=rf"^{name} = {value:g} in epoch {epoch}: "):
            own.checked(record, epoch)


def test_a_metric_that_the_study_compares_and_whose_name_may_mean_percent_must_be_declared():
    own = rules(evidence={"metric": "best_test_accuracy"})
    message = (
        "test_accuracy = 97.3 in epoch 1: looks like percent; yield a fraction (0.973), or declare "
        '[metrics.test_accuracy] unit = "percent" (or "plain")'
    )
    with pytest.raises(UnitError, match=f"^{re.escape(message)}$"):
        own.checked({"test_accuracy": 97.3}, 1)


@pytest.mark.parametrize("name", ["iou_loss", "grad_acc_steps", "test_accuracy"])
def test_a_metric_that_the_study_does_not_compare_may_be_any_number(name):
    assert rules().checked({"test_acc": 0.5, name: 4.0}, 1)[name] == 4.0


def test_what_a_loss_of_a_share_is_may_exceed_one_though_it_is_compared():
    assert rules(evidence={"metric": "final_iou_loss"}).checked({"iou_loss": 1.4}, 1) == {"iou_loss": 1.4}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_measure_that_is_not_finite_is_no_error_and_a_loss_diverges(value):
    """The first makes a lost run of a finished trial, in the statistics."""
    assert set(rules().checked({"test_acc": value}, 1)) == {"test_acc"}
    with pytest.raises(Diverged, match=r"^train_loss is (nan|inf) after epoch 1$"):
        rules().checked({"train_loss": value}, 1)


CLAIM = {"id": "1", "text": "b", "arm": "a", "against": "all others", "direction": "higher"}


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({"evidence": {"metric": "final_nll", "direction": "lower"}}, {"nll": 'evidence.metric = "final_nll"'}),
        ({"claims": [CLAIM | {"metric": "seconds"}]}, {"train_seconds": 'claims[0].metric = "seconds"'}),
        (
            {
                "evidence": {
                    "metric": "epochs_to_target",
                    "target": {"metric": "f1", "value": 0.9, "direction": "higher"},
                }
            },
            {"f1": 'evidence.metric = "epochs_to_target"'},
        ),
        ({"evidence": {"also": ["final_test_loss"]}}, {"test_loss": 'evidence.also[0] = "final_test_loss"'}),
        ({"evidence": {"lost_below": "chance"}}, {"chance": 'evidence.lost_below = "chance"'}),
    ],
)
def test_whatever_a_study_compares_must_be_in_the_first_record(changes, needed):
    found = rules(**changes)
    assert {name: found.needed[name] for name in needed} == needed
    complete = dict.fromkeys(found.needed, 0.5)
    assert found.checked(complete, 1) == complete
    for name in needed:
        record = {"other": 0.0, **{key: value for key, value in complete.items() if key != name}}
        with pytest.raises(ValueError, match=f"^{name} is missing in epoch 1: "):
            found.checked(record, 1)
        assert found.checked(record, 2) == record


def test_a_sparse_metric_may_be_missing_but_not_from_the_whole_trial():
    own = rules(metrics={"test_acc": {"sparse": True}})
    assert own.checked({"train_loss": 1.0, "test_acc": None}, 1) == {"train_loss": 1.0}
    assert own.missing(["train_loss", "test_acc"]) == ""
    assert own.missing(["train_loss"]) == (
        'the training loop never yielded test_acc; evidence.metric = "best_test_acc" needs it'
    )


def test_fairtrials_own_loop_was_checked_when_the_study_was_read():
    assert RecordRules.of(Study.from_dict(HEAD | {"training": {}})) == NO_RULES
