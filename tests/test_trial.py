"""Trials, and the context in which a training loop gets one."""

import pickle

import pytest

import fairtrial
from fairtrial.checkpoints import CheckpointManager
from fairtrial.scheduler import plan
from fairtrial.spec import Origin
from fairtrial.trial import TrialContext


@pytest.fixture
def trial(make_study):
    return plan(make_study())[0]


def test_a_trial_has_no_other_attributes(trial):
    assert set(vars(trial)) <= {"arm", "seed", "settings", "noise", "hash"}
    again = pickle.loads(pickle.dumps(trial))
    assert (again, again.hash) == (trial, trial.hash)


def test_a_context_has_its_trials_attributes(trial):
    context = TrialContext(trial)
    for name in ("arm", "seed", "settings", "epochs", "weights_seed", "order_seed"):
        assert getattr(context, name) == getattr(trial, name)


def test_without_callback_and_checkpoints_nothing_happens(trial):
    context = TrialContext(trial)
    context.progress(1, 2, train_acc=0.5)
    context.save({"epoch": 1})
    assert context.load() is None
    assert not context.checkpoint_due


def test_attempts_share_only_saved_fingerprints(make_study):
    training = {"epochs": 3, "loop": "loops:good", "checkpoint_seconds": 0}
    trial, manager = plan(make_study(training=training))[0], CheckpointManager("kept")
    first = TrialContext(trial, manager.open(trial))
    first.fingerprint(initial_weights="w")
    assert TrialContext(trial).fingerprints == {}
    first.save({"epoch": 1})
    second = TrialContext(trial, manager.open(trial))
    assert second.fingerprints == {}
    assert second.load() == {"epoch": 1}
    assert second.fingerprints == {"initial_weights": "w"}


def test_a_studys_origin_is_no_part_of_its_identity(make_study):
    study = make_study()
    other = study.with_origin(Origin("mine.toml", ("seeds=2",)))
    assert other.origin.source == "mine.toml"
    assert study.origin == Origin()
    assert (other, other.hash) == (study, study.hash)


def test_a_trials_hash_is_of_configuration_arm_and_seed(make_study):
    trials = [*plan(make_study()), *plan(make_study(training={"epochs": 4, "loop": "loops:good"}))]
    renamed = plan(make_study(reference="c", arms={"c": {}, "b": {"params": {"pace": 2}}}))[0]
    assert len({trial.hash for trial in [*trials, renamed]}) == 9
    assert plan(make_study(name="other", seeds=5))[0].hash == trials[0].hash  # neither name nor seeds of the study


def test_a_trials_hash_is_what_it_was_in_earlier_releases():
    """After a change here no earlier trial is found again; it needs a new `spec.FORMAT`."""
    assert plan(fairtrial.load("paper"))[0].hash.startswith("fb3e61768d779d89")


def test_seeds_of_weights_and_order_are_the_trials_own_by_default(make_study):
    assert {(t.seed, t.weights_seed, t.order_seed) for t in plan(make_study())} == {(0, 0, 0), (1, 1, 1)}
    fixed = plan(make_study(seeds=3, noise={"batch_orders": 1}))
    assert {(t.seed, t.weights_seed, t.order_seed) for t in fixed} == {(0, 0, 0), (1, 1, 0), (2, 2, 0)}


def test_studies_share_trials_whose_noise_is_the_same(make_study):
    plain, fixed = (plan(make_study(seeds=2, **noise)) for noise in ({}, {"noise": {"batch_orders": 1}}))
    crossed = plan(make_study(seeds=4, noise={"initial_weights": 2, "batch_orders": 2}))
    assert [t.hash for t in fixed[:2]] == [t.hash for t in plain[:2]]
    assert not {t.hash for t in fixed[2:]} & {t.hash for t in plain}
    assert [t.hash for t in crossed[:4]] == [t.hash for t in plain]
    assert [(t.weights_seed, t.order_seed) for t in crossed[::2]] == [(0, 0), (1, 1), (0, 1), (1, 0)]
    assert len({t.hash for t in crossed}) == 8
