"""Snapshots of optimizers: harmless, complete, resumed, of loops of a user's own, and of every optimizer."""

import copy

import pytest
import torch
from torch import nn

from fairtrial import InlineExecutor, run
from fairtrial.checkpoints import CheckpointManager
from fairtrial.errors import Stopped
from fairtrial.executors.base import Ended, SnapshotTaken, run_trial
from fairtrial.registry import OPTIMIZERS
from fairtrial.spec import Study
from fairtrial.training import loop, xray_reader, xray_schedule
from fairtrial.training.xray_schedule import schedule_of
from fairtrial.trial import Machine, Outcome, TrialContext
from trials import some_trial

MACHINE = Machine({}, "processor", "cpu", 1, "system")
DIGITS = {"data": {"name": "digits", "train": 96, "test": 40}}
ADAPTIVE = {"adam", "adamw", "nadam", "radam"}


@pytest.fixture
def dense(monkeypatch):
    """Take a snapshot at each planned step, however few steps there are."""
    monkeypatch.setattr(xray_schedule, "SPACING", 1)


def snapshots_of(messages):
    return [one.snapshot for one in messages if isinstance(one, SnapshotTaken)]


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS.names() if ":" not in name])
def test_every_optimizer_has_an_x_ray_that_changes_nothing(name):
    """The weights are the same to the bit, with dropout and evaluations along the way."""
    sections = {"model": {"width": 0.25, "dropout": 0.4}, "optimizer": {"name": name}, **DIGITS}
    trial = some_trial(epochs=2, **sections)
    with_it, without = TrialContext(trial), TrialContext(trial, xray=False)
    records = [list(loop.train(context)) for context in (with_it, without)]
    first, second = ([{k: v for k, v in one.items() if "seconds" not in k} for one in each] for each in records)
    assert first == second
    assert with_it.fingerprints == without.fingerprints
    assert without.xray_progress.snapshots == []
    taken = with_it.xray_progress.snapshots
    assert [(one.epoch, one.step) for one in taken] == [(1, 1), (1, 2), (1, 3), (2, 6)]
    last = taken[-1]
    assert {"update_rms_over_lr", "update_over_weight", "train_loss", "test_loss", "lr"} <= last.overall.keys()
    assert last.overall["train_loss"] == pytest.approx(records[0][1]["train_loss"], rel=1e-3)
    assert {"depthwise convolution", "pointwise convolution", "normalization", "linear"} <= last.kinds.keys()
    assert "classifier.1.weight" in last.tensors
    if name in ADAPTIVE:
        assert {"log10_sqrt_vhat_p50", "eps_over_10pct", "signal", "cosine", "no_gradient"} <= last.overall.keys()
    else:
        assert any("exp_avg_sq" in note for note in last.notes)


@pytest.mark.slow
def test_a_study_has_the_same_digest_with_and_without(monkeypatch):
    """Through workers' own code path, with the spacing that users get."""
    table = {"name": "s", "reference": "a", "seeds": 2, "training": {"epochs": 40, "batch_size": 32}, **DIGITS}
    arms = {"a": {}, "b": {"optimizer": {"name": "muon"}}, "c": {"optimizer": {"name": "lbfgs", "max_iter": 2}}}
    study = Study.from_dict(table | {"arms": arms, "model": {"name": "small_cnn", "dropout": 0.2}})
    with_it = run(study, store="with.db", executor=InlineExecutor())
    without = run(study, store="without.db", executor=InlineExecutor(), xray=False)
    assert with_it.digest() == without.digest()
    assert {len(one.snapshots) for one in with_it.with_snapshots().results} == {1}
    assert {len(one.snapshots) for one in without.with_snapshots().results} == {0}


@pytest.mark.usefixtures("dense")
@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5])
def test_a_resumed_trial_has_the_same_snapshots_once(stop_after):
    trial = some_trial(epochs=2, training={"checkpoint_seconds": 0}, model={"name": "small_cnn"}, **DIGITS)
    whole = snapshots_of(run_trial(trial, loop.train, MACHINE))
    checks = 0

    def stop():
        nonlocal checks
        checks += 1
        return checks > stop_after

    with pytest.raises(Stopped):
        list(run_trial(trial, loop.train, MACHINE, CheckpointManager("kept", 0).open(trial, stop)))
    resumed = list(run_trial(trial, loop.train, MACHINE, CheckpointManager("kept", 1e9).open(trial)))
    assert snapshots_of(resumed) == whole
    assert isinstance(resumed[-1], Ended)


def network_of(inputs=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3))


def one_step(network, optimizer, seed):
    inputs = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    network(inputs).square().mean().backward()
    optimizer.step()


def own_loop(trial, steps=120, attach=lambda trial, optimizer, network: trial.xray(optimizer, network)):
    network = network_of()
    optimizer = torch.optim.Adam(network.parameters(), eps=trial.settings.optimizer.eps)
    attach(trial, optimizer, network)
    done = 0
    if (state := trial.load()) is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["done"]
    for epoch in range(done, trial.epochs):
        for number in range(steps):
            one_step(network, optimizer, epoch * steps + number)
        yield {"train_loss": 1.0, "test_acc": float(network[0].weight.detach().sum().sigmoid())}
        trial.save({"network": network.state_dict(), "optimizer": optimizer.state_dict(), "done": epoch + 1})


def test_a_loop_of_ones_own():
    trial = some_trial(epochs=3, model={"name": "small_cnn"})
    messages = list(run_trial(trial, own_loop, MACHINE))
    assert messages[-1].outcome is Outcome.FINISHED
    taken = snapshots_of(messages)
    assert [(one.epoch, one.step) for one in taken] == [(1, 100), (2, 240), (3, 360)]
    assert all(one.notes == () for one in taken[:1])
    assert {*taken[0].kinds} == {"linear", "normalization"}
    assert {*taken[0].tensors} == {f"{layer}.{name}" for layer in (0, 1, 3) for name in ("weight", "bias")}


def test_the_end_of_a_first_epoch_that_nobody_foresaw(dense):
    taken = snapshots_of(run_trial(some_trial(epochs=2), lambda trial: own_loop(trial, steps=4), MACHINE))
    assert [(one.epoch, one.step) for one in taken] == [(1, 1), (1, 2), (1, 4), (2, 8)]
    unforeseen = taken[2]
    assert "log10_sqrt_vhat_p50" in unforeseen.overall
    assert "cosine" not in unforeseen.overall
    assert unforeseen.notes == (
        "update, cosine and noise scale at the end of epoch 1: its last step was not known before",
    )
    assert "cosine" in taken[3].overall


def test_a_loop_of_ones_own_that_knows_its_steps(dense):
    def attach(trial, optimizer, network):
        trial.xray(optimizer, network, steps_per_epoch=4)

    taken = snapshots_of(run_trial(some_trial(epochs=2), lambda trial: own_loop(trial, 4, attach), MACHINE))
    assert [(one.epoch, one.step) for one in taken] == [(1, 1), (1, 2), (1, 4), (2, 8)]
    assert "cosine" in taken[2].overall


def test_a_loop_of_ones_own_that_is_resumed():
    trial = some_trial(epochs=3, training={"checkpoint_seconds": 0})
    whole = snapshots_of(run_trial(trial, own_loop, MACHINE))
    stops = iter([False, True, True])
    keep = CheckpointManager("kept", 0).open(trial, lambda: next(stops, True))
    with pytest.raises(Stopped):
        list(run_trial(trial, own_loop, MACHINE, keep))
    resumed = snapshots_of(run_trial(trial, own_loop, MACHINE, CheckpointManager("kept", 1e9).open(trial)))
    assert resumed == whole


def test_epochs_of_different_lengths():
    """A prediction that fails costs the update's statistics of that epoch, not the snapshot."""
    lengths = [120, 100, 140]

    def uneven(trial):
        network = network_of()
        optimizer = torch.optim.Adam(network.parameters())
        trial.xray(optimizer, network)
        for length in lengths:
            for number in range(length):
                one_step(network, optimizer, number)
            yield {"test_acc": 0.5}

    taken = snapshots_of(run_trial(some_trial(epochs=3), uneven, MACHINE))
    found = [(one.epoch, one.step, "cosine" in one.overall) for one in taken]
    assert found == [(1, 100, True), (2, 220, False), (3, 340, True), (3, 360, False)]


def test_a_second_optimizer_takes_the_place_of_the_first(dense):
    trial, network = TrialContext(some_trial(epochs=1)), network_of()
    first, second = torch.optim.Adam(network.parameters()), torch.optim.SGD(network.parameters(), lr=0.1)
    trial.xray(first, network, steps_per_epoch=5)
    trial.xray(second, network, steps_per_epoch=5)
    one_step(network, first, 0)
    assert trial.xray_progress.snapshots == []
    one_step(network, second, 1)
    assert [one.step for one in trial.xray_progress.snapshots] == [1]


def test_an_error_in_a_step_is_said_and_the_x_ray_goes_on(dense):
    class Fragile(torch.optim.Adam):
        broken = False

        def step(self, closure=None):
            if self.broken:
                raise RuntimeError("out of memory")
            return super().step(closure)

    trial, network = TrialContext(some_trial(epochs=1)), network_of()
    optimizer = Fragile(network.parameters())
    trial.xray(optimizer, network, steps_per_epoch=4)
    one_step(network, optimizer, 0)
    optimizer.broken = True
    with pytest.raises(RuntimeError, match="out of memory"):
        one_step(network, optimizer, 1)
    optimizer.broken = False
    for number in range(1, 4):
        one_step(network, optimizer, number)
    taken = trial.xray_progress.snapshots
    assert [one.step for one in taken] == [1, 2, 4]
    assert taken[1].notes[0] == "taken late: optimizer.step raised an error at step 2"
    assert not any("late" in note for note in taken[2].notes)


@pytest.mark.parametrize("known", [True, False])
def test_steps_that_no_hook_sees_leave_the_state_at_the_ends_of_epochs(dense, known):
    """As of steps that were captured into a CUDA graph, or compiled."""

    def replaying(trial):
        network = network_of()
        optimizer = torch.optim.Adam(network.parameters())
        own = trial.xray(optimizer, network, steps_per_epoch=4 if known else None)
        own._handles, handles = [], own._handles
        for handle in handles:
            handle.remove()
        for epoch in range(2):
            for number in range(4):
                one_step(network, optimizer, 4 * epoch + number)
            yield {"test_acc": 0.5}

    taken = snapshots_of(run_trial(some_trial(epochs=2), replaying, MACHINE))
    assert [(one.epoch, one.step) for one in taken][: 2 if known else 1] == [(1, 4), (2, 8)][: 2 if known else 1]
    assert all("log10_sqrt_vhat_p50" in one.overall for one in taken)
    assert "the steps were not seen, as in compiled steps or graphs" in taken[0].notes[0]


def test_a_class_that_derives_from_another_takes_one_step_at_a_time(dense):
    class Decaying(torch.optim.Adam):
        def step(self, closure=None):
            found = super().step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for one in group["params"]:
                        one.mul_(0.5)
            return found

    torch.optim.Adam(network_of().parameters())  # from now on torch calls hooks in Adam's own step, too
    trial, network = TrialContext(some_trial(epochs=1)), network_of()
    optimizer = Decaying(network.parameters())
    trial.xray(optimizer, network, steps_per_epoch=2)
    for number in range(2):
        one_step(network, optimizer, number)
    assert [one.step for one in trial.xray_progress.snapshots] == [1, 2]
    assert trial.xray_progress.snapshots[1].overall["update_over_weight"] == pytest.approx(0.5, abs=0.05)


def test_an_error_of_its_own_ends_no_training(dense, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room")

    trial, network = TrialContext(some_trial(epochs=1)), network_of()
    optimizer = torch.optim.Adam(network.parameters())
    trial.xray(optimizer, network, steps_per_epoch=5)
    with monkeypatch.context() as patch:
        patch.setattr(xray_reader, "_add_gradient", fail)
        one_step(network, optimizer, 0)
        patch.setattr(xray_reader, "_add_change", fail)
        one_step(network, optimizer, 1)
    for number in range(2, 5):
        one_step(network, optimizer, number)
    first, second, last = trial.xray_progress.snapshots
    assert "MemoryError: no room" in first.notes[0]
    assert "MemoryError: no room" in second.notes[0]
    assert "cosine" in last.overall


def test_weights_without_a_gradient_are_counted_and_left_alone(dense):
    network = network_of()
    network[0].weight.requires_grad_(False)
    trial = TrialContext(some_trial(epochs=1))
    optimizer = torch.optim.Adam(network.parameters())
    trial.xray(optimizer, network, steps_per_epoch=1)
    one_step(network, optimizer, 0)
    (snapshot,) = trial.xray_progress.snapshots
    assert snapshot.tensors["0.weight"] == {"coordinates": 48, "no_gradient": 1.0}
    assert 48 / 87 <= snapshot.overall["no_gradient"] < 1
    assert network[0].weight not in optimizer.state


def test_no_gradient_at_all_is_said(dense):
    network = network_of()
    trial, optimizer = TrialContext(some_trial(epochs=1)), torch.optim.Adam(network.parameters())
    trial.xray(optimizer, network, steps_per_epoch=1)
    optimizer.step()
    (snapshot,) = trial.xray_progress.snapshots
    assert "update, cosine and noise scale: no weight had a gradient in this step" in snapshot.notes


def test_a_large_model_is_sampled_and_says_so(dense, monkeypatch):
    monkeypatch.setattr(xray_reader, "MOST_COORDINATES", 10_000)
    found = []
    for most in (10_000, 1 << 22):
        monkeypatch.setattr(xray_reader, "MOST_COORDINATES", most)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = nn.Linear(200, 300)
        trial, optimizer = TrialContext(some_trial(epochs=1)), torch.optim.Adam(network.parameters())
        trial.xray(optimizer, network, steps_per_epoch=3)
        for seed in range(3):
            inputs = torch.randn(5, 200, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            network(inputs).square().mean().backward()
            optimizer.step()
        found.append(trial.xray_progress.snapshots[-1])
    sampled, exact = found
    assert "of large tensors one weight in 7 was read" in sampled.notes
    assert sampled.overall["coordinates"] == exact.overall["coordinates"] == 60_300
    for name in ("update_rms_over_lr", "signal", "log10_sqrt_vhat_p50", "cosine"):
        assert sampled.overall[name] == pytest.approx(exact.overall[name], rel=0.05, abs=0.02)


def test_memory_formats_and_precisions(dense):
    """Of weights in other layouts each number meets its own."""
    found = []
    for form in (torch.contiguous_format, torch.channels_last):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = nn.Conv2d(3, 8, 3).to(memory_format=form)
        trial, optimizer = TrialContext(some_trial(epochs=1)), torch.optim.Adam(network.parameters())
        trial.xray(optimizer, network, steps_per_epoch=2)
        for seed in range(2):
            images = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
        found.append(trial.xray_progress.snapshots[-1].overall)
    assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_what_is_no_optimizer_is_refused():
    trial = TrialContext(some_trial())
    with pytest.raises(TypeError, match=r"^trial\.xray needs a torch\.optim\.Optimizer, not str$"):
        trial.xray("adam")
    optimizer = torch.optim.SGD(network_of().parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"^trial\.xray: network must be a torch\.nn\.Module, not int$"):
        trial.xray(optimizer, 3)
    with pytest.raises(ValueError, match="steps_per_epoch = 0: must be at least 1"):
        trial.xray(optimizer, steps_per_epoch=0)


def test_an_optimizer_can_be_copied_and_saved_as_before(dense):
    trial, network = TrialContext(some_trial(epochs=1)), network_of()
    optimizer = torch.optim.Adam(network.parameters())
    plain = optimizer.state_dict()
    trial.xray(optimizer, network, steps_per_epoch=5)
    assert optimizer.state_dict() == plain
    copy.deepcopy(optimizer).step()
    assert trial.xray_progress.steps == 0


@pytest.mark.parametrize(("per_epoch", "epochs"), [(782, 10), (79, 5), (8, 20), (1, 1), (50, 1), (3, 1000), (100, 1)])
def test_there_is_at_most_one_snapshot_in_a_hundred_steps(per_epoch, epochs):
    schedule, total = schedule_of(per_epoch, epochs), per_epoch * epochs
    assert len(schedule.steps) <= max(1, total // 100)
    assert max(schedule.steps) == total
    assert min(schedule.steps) >= 1
    assert len([step for step in schedule.steps if step % per_epoch == 0]) == min(epochs, max(1, total // 100))


def test_a_trial_that_diverges_keeps_its_snapshots(dense):
    trial = some_trial(epochs=2, optimizer={"name": "sgd", "lr": 1e30}, model={"name": "small_cnn"}, **DIGITS)
    messages = list(run_trial(trial, loop.train, MACHINE))
    assert messages[-1].outcome is Outcome.DIVERGED
    assert snapshots_of(messages)
