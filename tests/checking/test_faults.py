"""Each fault that can be planted in a training loop is found, and a sound loop is silent."""

from unittest.mock import patch

import pytest

import fairtrial
from fairtrial.doctor import CheckStatus
from forked_workers import ForkedWorker

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


def test_one_arm_is_killed_after_its_first_epoch_and_all_are_stopped_after_each(forked):
    starts = []
    with patch("fairtrial.checking.attempts.start_worker", lambda *job: starts.append(1) or ForkedWorker(*job)):
        check = fairtrial.check(a_study("faulty_loops:only_killed_it_forgets"))
    assert "default gives other records when it is stopped after an epoch and goes on: " in found(check)["resuming"]
    assert len(starts) == 1 + 3 + 2  # straight; one a link; two to find out why


FAULTS = {
    "ignored_setting": ("settings", "low gives the records of default to the bit, though optimizer.lr differs"),
    "unsaved_scheduler": ("resuming", "gives other records when it is stopped after an epoch and goes on"),
    "unsaved_random_state": ("resuming", "gives other records when it is stopped after an epoch and goes on"),
    "unseeded_weights": ("same bits", "The initial weights differ: draw them from trial.weights_seed"),
    "order_from_the_wrong_seed": (
        "seeds",
        "trial.weights_seed decides the order of batches, and trial.order_seed does not",
    ),
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


def test_the_loops_own_seed_is_wrong_only_where_weights_and_order_vary_apart(forked):
    plain = fairtrial.check(a_study("faulty_loops:order_from_the_own_seed"))
    assert plain.sound
    assert "trial.seed decides the order of batches. Right in this study" in found(plain, NOTE)["seeds"]
    apart = fairtrial.check(a_study("faulty_loops:order_from_the_own_seed", noise={"initial_weights": 1}))
    assert "trial.seed decides the order of batches, and [noise] varies the seeds" in found(apart)["seeds"]


@pytest.mark.slow
def test_fairtrials_own_loop_is_sound_and_takes_a_few_batches(forked):
    table = {
        "name": "own",
        "reference": "default",
        "data": {"name": "digits"},
        "model": {"name": "small_cnn", "width": 4, "dropout": 0.1},
        "training": {"epochs": 40, "batch_size": 16},
        "arms": {
            "default": {},
            "low": {"optimizer": {"lr": 1e-4}},
            "wide": {"model": {"name": "small_cnn", "width": 8}},
        },
    }
    check = fairtrial.check(fairtrial.Study.from_dict(table))
    assert (check.sound, found(check, NOTE)) == (True, {})
    assert "the initial weights of wide are not those of default (model.width" in found(check, GOOD)["pairing"]


@pytest.mark.slow  # each worker loads torch
def test_real_workers_find_the_same():
    for fault, sound in (("sound", True), ("unseeded_weights", False)):
        check = fairtrial.check(a_study(f"faulty_loops:{fault}"), epochs=2)
        assert check.sound is sound
    assert "draw them from trial.weights_seed" in found(check)["same bits"]
