"""Trials that are interrupted and go on: all that comes of them equals, to the bit, what comes without a break."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairtrial import spec
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import Diverged, Stopped
from fairtrial.executors.base import Ended, EpochFinished, Fingerprinted, run_trial
from fairtrial.scheduler import plan
from fairtrial.snapshots import XrayProgress
from fairtrial.training import loop, xray
from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.learner import Learner
from fairtrial.trial import Machine, Outcome, TrialContext

MACHINE = Machine({}, "processor", "cpu", 1, "system")
STEPS = 3  # an epoch
EPOCHS = 2

ADAM = {"name": "adam", "weight_decay": 1e-3}
KINDS = {
    "adam": {"optimizer": ADAM},
    "adam, plain layers": {"optimizer": ADAM, "plain": True},
    "adam, keras": {"optimizer": ADAM | {"eps_convention": "keras"}, "model": {"flavour": "keras"}},
    "adamw, cifar stem": {"optimizer": {"name": "adamw"}, "model": {"stem": "cifar", "width": 0.1}},
    "sgd": {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True}},
    "adam, evaluated in every way": {
        "optimizer": ADAM,
        "training": {"evaluations_last_epoch": 3, "recalibrate_batch_norm": True, "ema": 0.9},
    },
    "lbfgs": {"optimizer": {"name": "lbfgs", "lr": 0.01, "max_iter": 2}},
    "muon": {"optimizer": {"name": "muon"}},
    "by path, clipped, in parts": {
        "optimizer": {"name": "torch.optim:NAdam", "lr": 0.01},
        "training": {"clip_norm": 0.1, "accumulate": 3},
    },
    "sgd, plain layers, no momentum": {"optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.0}, "plain": True},
}


def trial_of(*, optimizer, model=None, training=None, plain=False, epochs=EPOCHS, schedule=None):
    """A trial with everything that has a state: dropout, a schedule, a held-out split. `plain` is for `run`."""
    study = spec.Study.from_dict(
        {
            "name": "s",
            "reference": "a",
            "data": {"name": "digits", "train": 70, "test": 30, "validation": 20},
            "model": {"width": 0.35, "dropout": 0.4} | (model or {}),
            "training": {"epochs": epochs, "batch_size": 32, "checkpoint_seconds": 0} | (training or {}),
            "schedule": schedule or {"name": "cosine", "warmup_epochs": 0.5},
            "optimizer": optimizer,
            "arms": {"a": {}},
        }
    )
    return plan(study)[0]


class Attempt:
    """One attempt at a trial, which is stopped after so many of its own steps, or ends.

    Attributes:
        messages: all of them; the last is `Ended` unless it was stopped.
        learner: as it is in the end.
        random: states of the generator after each step, by epoch and step.
    """

    def __init__(self, trial, monkeypatch, *, stop_after=None, plain=False, seconds=1e9):
        self.messages, self.learner, self.random, self._stop_after = [], None, [], stop_after
        self._steps = 0
        build, step = Learner.build, Learner.step

        def build_and_note(trial, dataset):
            self.learner = build(trial, dataset, fast=not plain)
            return self.learner

        def step_and_note(learner, inputs, labels):
            result = step(learner, inputs, labels)
            self.random.append(torch.get_rng_state())
            self._steps += 1
            return result

        keep = CheckpointManager("kept", seconds).open(trial, self._asked_to_stop)
        with monkeypatch.context() as patch:
            patch.setattr(Learner, "build", build_and_note)
            patch.setattr(Learner, "step", step_and_note)
            try:
                self.messages.extend(run_trial(trial, loop.train, MACHINE, keep))
                CheckpointManager("kept").remove(trial)  # as the runner does
            except Stopped:
                assert stop_after is not None

    def _asked_to_stop(self):
        return self._stop_after is not None and self._steps >= self._stop_after

    @property
    def records(self):
        return [
            {name: value.hex() for name, value in message.record.metrics.items() if not name.endswith("seconds")}
            for message in self.messages
            if isinstance(message, EpochFinished)
        ]

    @property
    def fingerprints(self):
        return [message for message in self.messages if isinstance(message, Fingerprinted)][-1].fingerprints

    def end(self):
        """All of the state that the last step has left, as texts."""
        whole = self.learner.optimizer.state_dict()
        parts = whole.get("parts", [whole])  # of several optimizers as one
        return {
            "network": fingerprint(self.learner.network.state_dict()),
            "groups": repr([optimizer["param_groups"] for optimizer in parts]),
            "moments": [
                {name: described(value) for name, value in moments.items()}
                for optimizer in parts
                for moments in optimizer["state"].values()
            ],
            "schedule": repr(self.learner.schedule.state_dict()),
            "random": fingerprint([("", self.random[-1])]),
            "average": fingerprint(averages(self.learner)),
        }


def averages(learner):
    """The averaged weights, numbered; none if the trial has no average."""
    state = learner.average.state_dict() if learner.average else {"average": []}
    return [(str(number), tensor) for number, tensor in enumerate(state["average"])]


def described(value):
    """Digest a tensor together with its layout in memory, or a list of these."""
    if isinstance(value, list):
        return [described(item) for item in value]
    return (fingerprint([("", value)]), value.stride()) if isinstance(value, torch.Tensor) else value


def same(attempt, whole):
    assert isinstance(attempt.messages[-1], Ended)
    assert attempt.messages[-1].outcome is Outcome.FINISHED
    assert attempt.records == whole.records
    assert attempt.fingerprints == whole.fingerprints
    assert attempt.end() == whole.end()


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_that_is_stopped_at_any_step_ends_as_if_it_had_not_been(kind, monkeypatch):
    trial, plain = trial_of(**KINDS[kind]), KINDS[kind].get("plain", False)
    whole = Attempt(trial, monkeypatch, plain=plain)
    assert len(whole.records) == EPOCHS
    assert whole.fingerprints["final_weights"] == fingerprint(whole.learner.network.state_dict())
    for steps in range(1, EPOCHS * STEPS + 1):
        stopped = Attempt(trial, monkeypatch, stop_after=steps, plain=plain)
        assert len(stopped.random) == steps
        assert not any(isinstance(message, Ended) for message in stopped.messages)
        resumed = Attempt(trial, monkeypatch, plain=plain)
        assert len(resumed.random) == EPOCHS * STEPS - steps
        if resumed.random:
            same(resumed, whole)
        else:  # stopped after the very last step: nothing but the evaluation was left
            assert (resumed.records, resumed.fingerprints) == (whole.records, whole.fingerprints)


SMALL = {"name": "small_cnn", "width": 8}
#: A rate that drops after the second epoch and each later one, because nothing ever improves by all of its value.
PLATEAU = {
    "name": "plateau",
    "metric": "val_loss",
    "patience": 0,
    "threshold": 1.0,
    "factor": 0.5,
    "warmup_epochs": 0.5,
}
CYCLE = {"name": "torch.optim.lr_scheduler:OneCycleLR", "max_lr": 0.01, "total_steps": EPOCHS * STEPS}
FURTHER_KINDS = {
    "plateau": {"schedule": PLATEAU, "epochs": 4},
    "a schedule by path, which moves beta1 too": {"schedule": CYCLE},
    "bfloat16, depthwise": {
        "model": {"width": 0.1},
        "training": {"precision": "bf16", "recalibrate_batch_norm": True},
    },
    "bfloat16, smoothed labels": {"training": {"precision": "bf16", "label_smoothing": 0.1}},
}


@pytest.mark.parametrize("kind", FURTHER_KINDS)
def test_settings_that_have_a_state_or_round_otherwise_resume_to_the_same_bits(kind, monkeypatch):
    trial = trial_of(**{"optimizer": ADAM, "model": SMALL} | FURTHER_KINDS[kind])
    whole = Attempt(trial, monkeypatch)
    for steps in range(1, trial.epochs * STEPS):
        Attempt(trial, monkeypatch, stop_after=steps)
        same(Attempt(trial, monkeypatch), whole)


WITH_BUFFERS = """
from torch import nn
import torch

class Net(nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))
        self.inner.register_buffer("seen", torch.zeros(()), persistent=False)
        self.inner.register_buffer("last", None, persistent=False)

    def forward(self, inputs):
        outputs = self.inner(inputs)
        if self.training:
            self.inner.seen += 1
            self.inner.last = outputs.detach().mean(0)
        return outputs * (1 + self.inner.seen / 10)
"""


def test_buffers_that_are_not_persistent_resume_to_the_same_bits(monkeypatch, tmp_path):
    (tmp_path / "with_buffers.py").write_text(WITH_BUFFERS)
    monkeypatch.syspath_prepend(tmp_path)
    trial = trial_of(optimizer=ADAM)
    model = spec.Study(name="s", reference="a", model={"name": "with_buffers:Net"}, arms={"a": {}}).settings.model
    trial = replace(trial, settings=trial.settings.model_copy(update={"model": model}))
    whole = Attempt(trial, monkeypatch)
    for steps in range(1, trial.epochs * STEPS):
        Attempt(trial, monkeypatch, stop_after=steps)
        resumed = Attempt(trial, monkeypatch)
        same(resumed, whole)
        for name in ("seen", "last"):
            assert torch.equal(getattr(resumed.learner.network.inner, name), getattr(whole.learner.network.inner, name))


def test_the_rate_of_a_plateau_drops_and_a_resumed_trial_knows_it(monkeypatch):
    trial = trial_of(optimizer=ADAM, model=SMALL, **FURTHER_KINDS["plateau"])
    for _ in range(4 * STEPS):
        last = Attempt(trial, monkeypatch, stop_after=1)
    assert last.learner.schedule.state_dict()["steps"] == 4 * STEPS
    assert last.learner.optimizer.param_groups[0]["lr"] == 1e-3 * 0.25


@pytest.mark.parametrize("kind", ["adam", "adam, keras", "sgd"])
def test_a_trial_that_is_stopped_at_every_step_ends_as_if_it_had_not_been(kind, monkeypatch):
    trial = trial_of(**KINDS[kind])
    whole = Attempt(trial, monkeypatch)
    attempts = [Attempt(trial, monkeypatch, stop_after=1) for _ in range(EPOCHS * STEPS)]
    assert all(len(attempt.random) == 1 for attempt in attempts)
    assert attempts[-1].end() == whole.end()
    last = Attempt(trial, monkeypatch)
    assert (last.records, last.fingerprints) == (whole.records, whole.fingerprints)
    assert len(last.random) == 0


def test_to_save_after_every_step_changes_nothing(monkeypatch):
    trial = trial_of(**KINDS["adam"])
    whole = Attempt(trial, monkeypatch)
    saved, save = [], loop.state.save
    monkeypatch.setattr(loop.state, "save", lambda *now: (saved.append((now[2].epoch, now[2].batch)), save(*now)))
    same(Attempt(trial, monkeypatch, seconds=0), whole)
    assert saved == [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_a_trial_whose_process_dies_after_an_epoch_goes_on_from_there(monkeypatch):
    trial = trial_of(**KINDS["adam"])
    whole = Attempt(trial, monkeypatch)
    messages = run_trial(trial, loop.train, MACHINE, CheckpointManager("kept", seconds=1e9).open(trial))
    while not isinstance(next(messages), EpochFinished):
        pass
    next(message for message in messages if isinstance(message, EpochFinished))  # now the first epoch's state is saved
    messages.close()
    resumed = Attempt(trial, monkeypatch)
    assert len(resumed.random) == (EPOCHS - 1) * STEPS
    same(resumed, whole)


def test_what_came_after_the_last_checkpoint_is_trained_again_to_the_same_bits(monkeypatch):
    trial, now = trial_of(**KINDS["adam"], training={"checkpoint_seconds": 10}, epochs=4), [0.0]
    whole = Attempt(trial, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("fairtrial.checkpoints.manager.monotonic", lambda: now[0])
        messages = run_trial(trial, loop.train, MACHINE, CheckpointManager("kept").open(trial))
        for message in messages:
            if isinstance(message, EpochFinished):
                now[0] = 10.0  # from now on: so only the first epoch is saved
                if message.record.epoch == 3:
                    messages.close()
    resumed = Attempt(trial, monkeypatch)
    assert len(resumed.random) == 3 * STEPS
    same(resumed, whole)


def test_no_state_is_saved_after_the_last_epoch(monkeypatch):
    trial, saved = trial_of(**KINDS["adam"]), []

    class Checkpoints:
        due = False

        def __init__(self):
            self.fingerprints = {}
            self.xray = XrayProgress()

        def save(self, state):
            saved.append((state["epoch"], state["batch"]))

        def load(self):
            return None

    list(loop.train(TrialContext(trial, Checkpoints())))
    assert saved == [(2, 0)]


def test_seconds_of_an_interrupted_epoch_are_those_of_all_its_attempts(monkeypatch):
    trial = trial_of(**KINDS["adam"])
    clock = iter(range(1000))
    monkeypatch.setattr(loop, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(loop, "REPORT_SECONDS", 1e9)
    monkeypatch.setattr(loop, "add_losses", lambda *_: None)
    monkeypatch.setattr(xray, "perf_counter", lambda: 0.0)  # its seconds do not count as training

    def seconds(attempt):
        return [
            message.record.metrics["train_seconds"]
            for message in attempt.messages
            if isinstance(message, EpochFinished)
        ]

    whole = seconds(Attempt(trial, monkeypatch))
    assert len(set(whole)) == 1  # a tick for each look at the clock
    Attempt(trial, monkeypatch, stop_after=2)
    first, second = seconds(Attempt(trial, monkeypatch))
    assert first == whole[0] + 1  # two attempts look at the clock once more
    assert second == whole[1]


def test_a_trial_that_diverges_after_a_break_says_what_it_would_have_said(monkeypatch):
    trial = trial_of(optimizer={"name": "adam", "lr": 1e30}, epochs=5)
    with pytest.raises(Diverged) as whole:
        list(loop.train(TrialContext(trial)))
    Attempt(trial, monkeypatch, stop_after=2)
    end = Attempt(trial, monkeypatch).messages[-1]
    assert (end.outcome, end.detail) == (Outcome.DIVERGED, whole.value.where)


def test_the_users_random_state_is_left_alone_by_a_stop_and_by_going_on(monkeypatch):
    trial = trial_of(**KINDS["adam"])
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Attempt(trial, monkeypatch, stop_after=2)
    assert torch.equal(torch.get_rng_state(), before)
    Attempt(trial, monkeypatch)
    assert torch.equal(torch.get_rng_state(), before)


PROCESS = """
import pickle, sys
import torch
torch.set_num_threads(1)
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import Stopped
from fairtrial.executors.base import run_trial
from fairtrial.trial import Machine
from fairtrial.training import loop as train
trial, stops = pickle.loads(sys.stdin.buffer.read())
asked = iter([False] * stops + [True] * 9) if stops is not None else iter(lambda: False, None)
keep = CheckpointManager("kept", seconds=1e9).open(trial, lambda: next(asked))
try:
    messages = list(run_trial(trial, train.train, Machine({}, "p", "cpu", 1, "s"), keep))
except Stopped:
    sys.exit(42)
sys.stdout.buffer.write(pickle.dumps(messages))
"""


def in_a_process(trial, stops):
    child = subprocess.run(
        [sys.executable, "-c", PROCESS],
        input=pickle.dumps((trial, stops)),
        capture_output=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return child.returncode, child.stdout, child.stderr.decode()


@pytest.mark.slow
def test_another_process_goes_on_to_the_same_bits(monkeypatch):
    trial = trial_of(**KINDS["adam, keras"])
    whole = Attempt(trial, monkeypatch)
    code, _, error = in_a_process(trial, 1)
    assert code == 42, error
    assert list(Path("kept").rglob("*.json"))
    code, output, error = in_a_process(trial, None)
    assert code == 0, error
    resumed = object.__new__(Attempt)
    resumed.messages = pickle.loads(output)
    assert (resumed.records, resumed.fingerprints) == (whole.records, whole.fingerprints)
