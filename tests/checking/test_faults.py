"""Each fault that can be planted in a training loop is found, and a sound loop is silent."""

import pytest

import fairtrial
from fairtrial.doctor import CheckStatus

GOOD, NOTE, BAD = CheckStatus


def a_study(loop, **changes):
    base = {
        "name": "faults",
        "reference": "default",
        "seeds": 3,
        "training": {"loop": loop, "epochs": 5},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "evidence": {"metric": "final_test_acc"},
        "arms": {"default": {}, "low": {"optimizer": {"lr": 0.03}}},
    }
    return fairtrial.Study.from_dict(base | changes)


def found(check, state=BAD):
    return {finding.part: f"{finding.detail}. {finding.advice}" for finding in check.findings if finding.state is state}


def test_a_sound_loop_is_silent(forked):
    check = fairtrial.check(a_study("faulty_loops:sound"))
    assert check.sound
    assert {finding.state for finding in check.findings} == {GOOD}
    parts = ["records", "same bits", "resuming", "settings", "pairing", "seeds", "cost"]
    assert [finding.part for finding in check.findings] == parts
    assert check.attempts == 2 + 3 + 3 * 2


FAULTS = {
    "ignored_setting": ("settings", "low gives the records of default to the bit, though optimizer.lr differs"),
    "unsaved_scheduler": ("resuming", "gives other records when it is stopped after an epoch and goes on"),
    "unsaved_random_state": ("resuming", "gives other records when it is stopped after an epoch and goes on"),
    "unseeded_weights": ("same bits", "The initial weights differ: draw them from trial.weights_seed"),
    "order_from_the_wrong_seed": (
        "seeds",
        "trial.weights_seed decides the order of batches, and trial.order_seed does not",
    ),
    "order_from_the_replicate": ("seeds", "trial.seed decides the order of batches"),
    "metric_missing": ("records", "test_acc is missing in epoch 1: evidence.metric"),
    "percent": ("records", "must be a fraction, from 0 to 1; yield 0."),
    "shared_state": ("same bits", "It goes on with the model of the trial before: build the model in the loop"),
    "shuffling_loader": ("seeds", "trial.weights_seed decides the order of batches, and trial.order_seed does not"),
    "racing": ("same bits", "gives other bits in a second run"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_found(fault, forked):
    part, told = FAULTS[fault]
    check = fairtrial.check(a_study(f"faulty_loops:{fault}"))
    assert not check.sound
    assert told in found(check)[part]
    assert list(found(check)) == [part]  # and nothing else is said to be wrong


def test_a_loop_with_threads_of_its_own_is_told(forked):
    check = fairtrial.check(a_study("faulty_loops:own_threads"))
    assert check.sound
    assert "default, low: sets torch's threads to 3, whatever --threads says" in found(check, NOTE)["habits"]
