"""The training loop: pairing, repeats, metrics, divergence. On few digits, which need no network."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fairtrial import spec
from fairtrial.errors import Diverged
from fairtrial.scheduler import plan
from fairtrial.training import datasets, loop
from fairtrial.training.evaluation import evaluate
from fairtrial.training.fingerprints import fingerprint
from fairtrial.training.learner import Learner
from fairtrial.training.loop import batch_order
from fairtrial.trial import TrialContext

SMALL = {"data": {"name": "digits", "train": 70, "test": 30}, "model": {"width": 0.25}}


@pytest.fixture
def study():
    return spec.Study.from_dict(
        {
            "name": "s",
            "reference": "a",
            "seeds": 2,
            "training": {"epochs": 2, "batch_size": 32},
            "arms": {"a": {}, "b": {"optimizer": {"betas": [0.5, 0.9]}}, "sgd": {"optimizer": {"name": "sgd"}}},
        }
        | SMALL
    )


def trial_with(**changes):
    settings = {"training": {"epochs": 1, "batch_size": 32}} | SMALL | changes
    study = spec.Study.from_dict({"name": "s", "reference": "a", "arms": {"a": {}}} | settings)
    return plan(study)[0]


class Recorder:
    """Stands in for the parts of a trial that touch weights and batches, and writes down what it sees."""

    def __init__(self, monkeypatch):
        self.initial, self.orders, self.final = {}, {}, {}
        build, order = Learner.build, loop.batch_order

        def build_and_note(trial, dataset):
            learner = build(trial, dataset)
            self.initial[trial.arm, trial.seed] = {k: v.clone() for k, v in learner.network.state_dict().items()}
            self.final[trial.arm, trial.seed] = learner.network.state_dict()
            self.current = (trial.arm, trial.seed)
            return learner

        def order_and_note(seed, epoch, images):
            drawn = order(seed, epoch, images)
            self.orders.setdefault(self.current, []).append(drawn)
            return drawn

        monkeypatch.setattr(Learner, "build", build_and_note)
        monkeypatch.setattr(loop, "batch_order", order_and_note)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_all_arms_of_a_seed_share_initial_weights_and_batch_order(study, monkeypatch):
    seen = Recorder(monkeypatch)
    for trial in plan(study):
        list(loop.train(TrialContext(trial)))
    for seed in (0, 1):
        for arm in ("b", "sgd"):
            assert same(seen.initial["a", seed], seen.initial[arm, seed])
            pairs = zip(seen.orders["a", seed], seen.orders[arm, seed], strict=True)
            assert all(torch.equal(one, other) for one, other in pairs)
    assert not same(seen.initial["a", 0], seen.initial["a", 1])
    assert not torch.equal(seen.orders["a", 0][0], seen.orders["a", 1][0])
    assert not torch.equal(seen.orders["a", 0][0], seen.orders["a", 0][1])
    assert not same(seen.final["a", 0], seen.final["b", 0])  # the arms did train differently


def test_a_trial_tells_the_fingerprints_of_what_it_really_used(study, monkeypatch):
    seen = Recorder(monkeypatch)
    trials = [TrialContext(trial) for trial in plan(study)]
    for trial in trials:
        records = loop.train(trial)
        next(records)
        assert sorted(trial.fingerprints) == ["batch_order", "initial_weights"]  # known before the second epoch
        list(records)
        key = (trial.arm, trial.seed)
        told, used = seen.orders[key][:2], seen.orders[key][2:]  # drawn to be told, then drawn to be used
        assert all(torch.equal(one, other) for one, other in zip(told, used, strict=True))
        assert trial.fingerprints == {
            "initial_weights": fingerprint(seen.initial[key]),
            "batch_order": fingerprint((str(epoch), order) for epoch, order in enumerate(used, start=1)),
            "final_weights": fingerprint(seen.final[key]),
        }
    assert len({trial.fingerprints.pop("final_weights") for trial in trials}) == len(trials)
    by_seed = [{tuple(sorted(trial.fingerprints.items())) for trial in trials if trial.seed == seed} for seed in (0, 1)]
    assert [len(told) for told in by_seed] == [1, 1]
    assert by_seed[0].isdisjoint(by_seed[1])


def test_weights_and_order_may_have_seeds_of_their_own():
    told = {}
    for noise in (None, (0, 1), (1, 0)):
        trial = TrialContext(replace(trial_with(), noise=noise))
        list(loop.train(trial))
        told[noise] = trial.fingerprints
    assert told[0, 1]["initial_weights"] == told[None]["initial_weights"] != told[1, 0]["initial_weights"]
    assert told[1, 0]["batch_order"] == told[None]["batch_order"] != told[0, 1]["batch_order"]


def without_seconds(records):
    return [{name: value for name, value in one.items() if not name.endswith("seconds")} for one in records]


def test_two_runs_of_a_trial_are_the_same_to_the_bit(study, monkeypatch):
    seen, records, finals = Recorder(monkeypatch), [], []
    for global_seed in (1, 2):  # the global random state must not matter
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        records.append(list(loop.train(TrialContext(plan(study)[1]))))
        finals.append(seen.final["b", 0])
    assert without_seconds(records[0]) == without_seconds(records[1])
    assert same(*finals)


def test_dropout_draws_from_seed_and_epoch_and_leaves_the_global_state_alone():
    trial = trial_with(model={"width": 0.25, "dropout": 0.5})
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = list(loop.train(TrialContext(trial)))
    assert torch.equal(torch.rand(3), expected)
    assert without_seconds(list(loop.train(TrialContext(trial)))) == without_seconds(first)


def test_dropout_goes_with_the_order_of_batches():
    """One batch an epoch: its images are the same in any order, so that dropout alone can tell the seeds apart."""
    settings = {"training": {"epochs": 1, "batch_size": 70}}
    for dropout, same_loss in ((0.0, True), (0.5, False)):
        trial = trial_with(model={"width": 0.25, "dropout": dropout}, **settings)
        losses = [next(loop.train(TrialContext(replace(trial, noise=(0, seed)))))["train_loss"] for seed in (0, 1)]
        assert (losses[0] == pytest.approx(losses[1], rel=1e-5)) is same_loss


def test_an_epoch_record_has_what_it_must(study):
    records = list(loop.train(TrialContext(plan(study)[0])))
    assert len(records) == 2
    for record in records:
        assert set(record) == {"train_loss", "train_acc", "test_loss", "test_acc", "train_seconds", "eval_seconds"}
        assert record["train_acc"] * 70 == pytest.approx(round(record["train_acc"] * 70), abs=1e-9)
        assert 0 <= record["test_acc"] <= 1
        assert record["train_seconds"] > 0
        assert record["eval_seconds"] > 0


def test_a_held_out_split_is_reported_apart():
    trial = trial_with(data={"name": "digits", "train": 70, "test": 30, "validation": 20})
    (record,) = loop.train(TrialContext(trial))
    assert {"val_loss", "val_acc"} <= set(record)
    assert record["val_acc"] * 20 == pytest.approx(round(record["val_acc"] * 20), abs=1e-9)


def test_metrics_are_those_of_a_plain_loop():
    """Against a loop written out here with nothing but torch: same batches, same steps, same sums."""
    trial = trial_with()
    (record,) = loop.train(TrialContext(trial))
    dataset = datasets.load(trial.settings.data)
    network = Learner.build(trial, dataset).network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    loss_sum, correct = 0.0, 0
    for indices in batch_order(trial.seed, 1, 70).split(32):
        images = torch.stack([dataset.train.images[i] for i in indices]).permute(0, 3, 1, 2) / 255
        labels = dataset.train.labels[indices]
        logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum, correct = loss_sum + loss.item() * len(labels), correct + (logits.argmax(1) == labels).sum().item()
    assert record["train_loss"] == pytest.approx(loss_sum / 70, rel=1e-4)
    assert record["train_acc"] == correct / 70
    network.eval()
    with torch.no_grad():
        logits = network(dataset.test.images.permute(0, 3, 1, 2) / 255)
    assert record["test_acc"] == (logits.argmax(1) == dataset.test.labels).sum().item() / 30
    expected = torch.nn.functional.cross_entropy(logits, dataset.test.labels).item()
    assert record["test_loss"] == pytest.approx(expected, rel=1e-3)


def test_evaluation_changes_nothing_and_ends_in_training_mode():
    trial = trial_with()
    dataset = datasets.load(trial.settings.data)
    network = Learner.build(trial, dataset).network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    evaluate(network, dataset.test, torch.device("cpu"))
    assert same(before, network.state_dict())
    assert network.training


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged():
    with pytest.raises(Diverged, match=r"^train_loss is (nan|inf) in epoch \d+, by batch 3$"):
        list(loop.train(TrialContext(trial_with(optimizer={"lr": 1e30}, training={"epochs": 5, "batch_size": 32}))))


def test_progress_within_an_epoch(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    heard = []

    def on_progress(batch, batches, metrics):
        heard.append((batch, batches, sorted(metrics)))

    list(loop.train(TrialContext(trial_with(), on_progress=on_progress)))
    assert heard == [(batch, 3, ["train_acc", "train_loss"]) for batch in (1, 2, 3)]


def test_the_schedule_moves_the_learning_rate(monkeypatch):
    """With a schedule that ends at nothing, the last steps change next to nothing."""
    trial = trial_with(schedule={"name": "linear"})
    dataset = datasets.load(trial.settings.data)
    learner = Learner.build(trial, dataset)
    rates = []
    for indices in batch_order(0, 1, 70).split(32):
        rates.append(learner.optimizer.param_groups[0]["lr"])
        learner.step(*dataset.train.batch(indices))
    assert rates == pytest.approx([1e-3 * (1 - k / 3) for k in range(3)])


def test_batch_order_is_a_permutation_of_its_own_for_each_seed_and_epoch():
    orders = {(seed, epoch): batch_order(seed, epoch, 100) for seed in range(3) for epoch in (1, 2, 3)}
    assert all(torch.equal(order.sort().values, torch.arange(100)) for order in orders.values())
    assert len({tuple(order.tolist()) for order in orders.values()}) == len(orders)
    assert torch.equal(orders[1, 2], batch_order(1, 2, 100))


def test_batch_order_is_what_it_was_in_earlier_releases():
    """Recorded: a change here is a change of every study's numbers, and asks for a new `spec.FORMAT`."""
    assert batch_order(0, 1, 12).tolist() == [7, 2, 4, 11, 0, 6, 1, 8, 9, 3, 5, 10]
