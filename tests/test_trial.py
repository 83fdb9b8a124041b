"""Trials, and the context in which a training loop gets one."""

import pickle

import pytest

from fairtrial.checkpoints import CheckpointManager
from fairtrial.scheduler import plan
from fairtrial.spec import Origin
from fairtrial.trial import TrialContext


@pytest.fixture
def trial(make_study):
    return plan(make_study())[0]


def test_a_trial_is_what_it_is_and_nothing_else(trial):
    assert set(vars(trial)) <= {"arm", "seed", "settings", "noise", "hash"}
    again = pickle.loads(pickle.dumps(trial))
    assert (again, again.hash) == (trial, trial.hash)


def test_a_context_names_what_its_trial_does(trial):
    context = TrialContext(trial)
    for name in ("arm", "seed", "settings", "epochs", "weights_seed", "order_seed"):
        assert getattr(context, name) == getattr(trial, name)


def test_without_anybody_to_listen_or_save_nothing_happens(trial):
    context = TrialContext(trial)
    context.progress(1, 2, train_acc=0.5)
    context.save({"epoch": 1})
    assert context.load() is None
    assert not context.checkpoint_due


def test_two_attempts_share_no_fingerprints_but_those_that_were_saved(trial):
    manager = CheckpointManager("kept")
    first = TrialContext(trial, manager.open(trial))
    first.fingerprint(initial_weights="w")
    assert TrialContext(trial).fingerprints == {}
    first.save({"epoch": 1})
    second = TrialContext(trial, manager.open(trial))
    assert second.fingerprints == {}
    assert second.load() == {"epoch": 1}
    assert second.fingerprints == {"initial_weights": "w"}


def test_where_a_study_comes_from_is_no_part_of_what_it_is(make_study):
    study = make_study()
    other = study.with_origin(Origin("mine.toml", ("seeds=2",)))
    assert other.origin.source == "mine.toml"
    assert study.origin == Origin()
    assert (other, other.hash) == (study, study.hash)
