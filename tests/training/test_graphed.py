"""Training by recorded steps: the same bits as operation by operation; on the CPU through a stand-in, and on a GPU."""

import gc
import itertools
import weakref
from contextlib import suppress

import pytest
import torch

from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import Diverged, Stopped
from fairtrial.executors.base import Ended, EpochFinished, run_in_turns, run_trial
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import graphs, loop
from fairtrial.training.graphed import RECORDABLE, why_not_recorded
from fairtrial.training.kernels import library
from fairtrial.training.learner import Learner
from fairtrial.trial import Machine, Outcome, TrialContext, Turn

MACHINE = Machine({}, "p", "cpu", 1, "s")


def make(seed=0, **changes):
    base = {
        "name": "s",
        "reference": "a",
        "seeds": seed + 1,
        "data": {"name": "digits", "train": 70, "test": 30, "validation": 20},
        "model": {"name": "mobilenet_v2", "width": 0.25, "dropout": 0.3},
        "training": {"epochs": 2, "batch_size": 16},
        "arms": {"a": {}},
    }
    return plan(Study.from_dict(base | changes))[-1]


def without_seconds(records):
    return [{name: value for name, value in one.items() if not name.endswith("seconds")} for one in records]


def train(trial, **options):
    """Train a trial alone; return what it tells, to the bit."""
    context = TrialContext(trial, **options)
    return told(loop.train(context), context)


def told(records, context):
    return without_seconds(records), context.fingerprints, context.xray_progress.snapshots


@pytest.fixture
def operations(device, monkeypatch):
    """Train operation by operation, with torch's own layers."""
    monkeypatch.setattr(loop, "recorder_for", lambda device: None)
    monkeypatch.setattr(library, "load", lambda dtype: None)


@pytest.fixture
def recorded(device, monkeypatch):
    """Train by recorded steps, on a CPU too."""

    def switch(stand_in=graphs.OperationRecorder):
        monkeypatch.setattr(library, "load", lambda dtype: None)
        make_one = graphs.recorder_for if device.type == "cuda" else lambda _device: stand_in()
        monkeypatch.setattr(loop, "recorder_for", make_one)

    return switch


class Directly(graphs.OperationRecorder):
    """Records nothing: an action is done again by Python."""

    def record(self, action):
        result = action()

        def repeat():
            for place, value in zip(result, action(), strict=True):
                place.copy_(value)

        return graphs.Recording(repeat, result)


CASES = {
    "adam": {},
    "adamw": {"optimizer": {"name": "adamw", "lr": 2e-3}},
    "sgd": {"optimizer": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}},
    "rate that changes": {"schedule": {"name": "cosine", "warmup_epochs": 1}},
    "sgd with a rate that changes": {"optimizer": {"name": "sgd"}, "schedule": {"name": "exponential"}},
    "rate that follows a metric": {
        "schedule": {"name": "plateau", "patience": 1},
        "training": {"epochs": 4, "batch_size": 16},
    },
    "augmented": {"data": {"name": "digits", "train": 70, "test": 30, "augment": ["crop", "flip"]}},
    "mixed": {"data": {"name": "digits", "train": 70, "test": 30, "augment": ["cutout", "mixup"]}},
    "all evaluations": {
        "training": {
            "epochs": 2,
            "batch_size": 16,
            "evaluations_last_epoch": 3,
            "recalibrate_batch_norm": True,
            "ema": 0.9,
        }
    },
    "parts": {"training": {"epochs": 2, "batch_size": 16, "accumulate": 3, "clip_norm": 0.5, "label_smoothing": 0.1}},
    "bf16": {"model": {"name": "small_cnn", "width": 8}, "training": {"epochs": 1, "precision": "bf16"}},
    "other model": {"model": {"name": "small_cnn", "width": 8}},
    "whole batches": {"training": {"epochs": 2, "batch_size": 35}},
    "one batch": {"training": {"epochs": 3, "batch_size": 100}},
}


@pytest.mark.parametrize("case", CASES)
def test_recorded_steps_give_the_same_bits_as_single_operations(case, operations, recorded):
    trial = make(**CASES[case])
    assert why_not_recorded(trial.settings) == ""
    if trial.settings.schedule.name != "constant":  # the device has the rate in single precision
        recorded(Directly)
    expected = train(trial)
    recorded()
    assert train(trial) == expected


def test_the_x_ray_sees_the_steps_that_it_sees_otherwise_and_changes_none(operations, recorded, monkeypatch):
    trial = make(training={"epochs": 3, "batch_size": 16})
    seldom = train(trial)
    monkeypatch.setattr("fairtrial.training.xray_schedule.SPACING", 1)
    expected = train(trial)
    recorded()
    records, fingerprints, snapshots = train(trial)
    assert (records, fingerprints) == seldom[:2] == expected[:2]
    assert train(trial, xray=False) == (records, fingerprints, [])
    assert snapshots == expected[2]
    assert [one.step for one in snapshots] == [1, 2, 5, 10, 15]
    assert all({"train_loss", "test_loss", "update_rms_over_lr"} <= set(one.overall) for one in snapshots)


def test_a_regression_too(operations, recorded, tmp_path):
    rows = torch.rand(60, 4, generator=torch.Generator().manual_seed(0))
    lines = ["a,b,c,y", *(",".join(f"{x:.4f}" for x in row) for row in rows.tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = {"name": "table", "path": str(tmp_path / "t.csv"), "target": "y", "task": "regression"}
    trial = make(
        data=data,
        model={"name": "mlp"},
        training={"epochs": 2, "batch_size": 16},
        evidence={"metric": "final_test_r2"},
    )
    expected = train(trial)
    recorded()
    assert train(trial) == expected
    assert "train_r2" in expected[0][0]


def test_trials_that_take_turns_give_the_bits_that_each_gives_alone(recorded):
    recorded()
    trials = [make(seed) for seed in range(3)] + [make(schedule={"name": "cosine"})]
    expected = [train(trial) for trial in trials]
    contexts = [TrialContext(trial, in_turns=True) for trial in trials]
    running = {index: loop.train(context) for index, context in enumerate(contexts)}
    records = {index: [] for index in running}
    turns = 0
    while running:
        for index in [*running]:
            item = next(running[index], None)
            if item is None:
                del running[index]
            elif isinstance(item, Turn):
                turns += 1
            else:
                records[index].append(item)
    assert [told(records[index], contexts[index]) for index in records] == expected
    assert turns >= 4 * 2 * 5


def test_single_operations_of_trials_that_take_turns_give_their_bits(operations):
    trials = [make(seed) for seed in range(2)]
    expected = [train(trial) for trial in trials]
    contexts = [TrialContext(trial, in_turns=True) for trial in trials]
    loops = [loop.train(context) for context in contexts]
    both = [
        [one for one in pair if one is not None and not isinstance(one, Turn)] for pair in itertools.zip_longest(*loops)
    ]
    records = [[pair[index] for pair in both if pair] for index in range(2)]
    assert [told(one, context) for one, context in zip(records, contexts, strict=True)] == expected


@pytest.mark.parametrize("stop", [1, 2, 4, 5, 6, 9])
@pytest.mark.parametrize("case", ["adam", "sgd with a rate that changes", "all evaluations"])
def test_an_interrupted_trial_gives_the_same_bits(case, stop, operations, recorded, tmp_path):
    trial = make(**CASES[case])
    recorded()
    expected = train(trial)
    steps = itertools.count(1)
    manager = CheckpointManager(str(tmp_path))
    with suppress(Stopped):
        list(run_trial(trial, loop.train, MACHINE, manager.open(trial, lambda: next(steps) > stop)))
    attempt = manager.open(trial)
    messages = list(run_trial(trial, loop.train, MACHINE, attempt))
    records = [message.record.metrics for message in messages if isinstance(message, EpochFinished)]
    assert (without_seconds(records), attempt.fingerprints, attempt.xray.snapshots) == expected


@pytest.mark.parametrize("changes", [{}, {"optimizer": {"lr": 1e30}}, {"training": {"ema": 0.9, "precision": "bf16"}}])
def test_a_trial_that_has_ended_leaves_nothing_in_memory(changes, recorded, monkeypatch):
    """On a GPU the next trial needs it; Python alone would find it at any later time."""
    recorded()
    made = []
    build = Learner.build

    def remembered(*arguments):
        learner = build(*arguments)
        made.extend([weakref.ref(learner.network), weakref.ref(learner.optimizer)])
        return learner

    monkeypatch.setattr(Learner, "build", remembered)
    gc.disable()
    try:
        for message in run_in_turns(make(**changes), loop.train, MACHINE):
            if isinstance(message, Ended):
                assert [one() for one in made] == [None, None]
    finally:
        gc.enable()


def test_a_shortage_of_memory_that_a_library_has_dealt_with_ends_the_trial(recorded, monkeypatch, tmp_path):
    """cuDNN then takes another algorithm, which rounds otherwise: nothing of it may be recorded or saved."""
    recorded()
    asked, trial = iter([3, 4]), make()
    monkeypatch.setattr("fairtrial.training.devices.shortages", lambda device: next(asked))
    attempt = CheckpointManager(str(tmp_path)).open(trial, lambda: True)
    with pytest.raises(torch.OutOfMemoryError, match="another algorithm for lack of it"):
        list(run_trial(trial, loop.train, MACHINE, attempt, pass_on=lambda error: True))
    assert CheckpointManager(str(tmp_path)).open(trial).load() is None


def test_a_trial_diverges_at_the_same_batch(operations, recorded):
    trial = make(optimizer={"lr": 1e30}, training={"epochs": 5, "batch_size": 32})
    with pytest.raises(Diverged) as expected:
        train(trial)
    recorded()
    with pytest.raises(Diverged) as error:
        train(trial)
    assert error.value.where == expected.value.where


def test_turns_pass_through_messages_and_progress_is_told(recorded, monkeypatch):
    recorded()
    monkeypatch.setattr("fairtrial.training.graphed.REPORT_SECONDS", 0.0)
    heard = []
    trial = make()
    messages = list(run_in_turns(trial, loop.train, MACHINE, on_progress=heard.append))
    assert any(message is Turn.OVER for message in messages)
    assert [one.record.epoch for one in messages if isinstance(one, EpochFinished)] == [1, 2]
    assert isinstance(messages[-1], Ended)
    assert messages[-1].outcome is Outcome.FINISHED, messages[-1].detail
    assert (heard[0].batch, heard[0].batches) == (5, 5)
    assert set(heard[0].metrics) == {"train_loss", "train_acc"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": {"name": "lbfgs"}}, "optimizer lbfgs decides in Python what it computes"),
        ({"optimizer": {"name": "muon"}}, "optimizer muon decides in Python what it computes"),
        ({"optimizer": {"eps_convention": "keras"}}, "Keras's epsilon is another number in each step"),
        (
            {"optimizer": {"name": "nadam"}, "schedule": {"name": "cosine"}},
            "optimizer nadam has its learning rate in Python, where schedule cosine changes it",
        ),
    ],
)
def test_what_cannot_be_recorded(changes, why):
    assert why_not_recorded(make(**changes).settings) == why


def test_what_a_graph_would_freeze_shows_under_the_stand_in():
    """The stand-in is of use only if it fails where CUDA's graphs would."""
    number, total = 0.0, torch.zeros(())

    def action():
        total.add_(number)
        return total

    repeated = graphs.Repeated(graphs.OperationRecorder(), action)
    for number in (1.0, 2.0, 4.0):  # noqa: B007  (read by the action)
        repeated()
    assert total == 1 + 2 + 2

    def reads():
        return total.item()

    with pytest.raises(RuntimeError, match=r"^a number of the device was read while its work was recorded$"):
        graphs.OperationRecorder().record(reads)


def test_all_optimizers_that_can_be_recorded_exist():
    from fairtrial.registry import OPTIMIZERS

    assert set(RECORDABLE) <= set(OPTIMIZERS.names())


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
@pytest.mark.parametrize("name", RECORDABLE)
def test_each_optimizer_by_graphs_gives_the_bits_of_single_operations(name, operations, recorded):
    trial = make(optimizer={"name": name}, training={"epochs": 2, "batch_size": 16})
    expected = train(trial)
    recorded()
    assert train(trial) == expected
