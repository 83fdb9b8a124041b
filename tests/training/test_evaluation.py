"""Evaluations beside the plain one: what they measure, and that training goes on as without them."""

import copy
import itertools

import pytest
import torch

from fairtrial import spec
from fairtrial.scheduler import plan
from fairtrial.training import datasets, loop
from fairtrial.training.evaluation import evaluate, evaluated_images, evaluations_within
from fairtrial.training.learner import Learner
from fairtrial.trial import TrialContext

ALL = {"evaluations_last_epoch": 3, "recalibrate_batch_norm": True, "ema": 0.9}
EXTRA = ("eval1_", "eval2_", "recalibrated_", "ema_")


def trial_of(training, **model):
    study = spec.Study.from_dict(
        {
            "name": "s",
            "reference": "a",
            "data": {"name": "digits", "train": 70, "test": 30, "validation": 20},
            "model": {"width": 0.25, "dropout": 0.3} | model,
            "training": {"epochs": 2, "batch_size": 16} | training,
            "arms": {"a": {}},
        }
    )
    return plan(study)[0]


def plain(record):
    return {name: value for name, value in record.items() if not name.startswith(EXTRA) and "seconds" not in name}


@pytest.mark.parametrize("flavor", ["torchvision", "keras"])
@pytest.mark.usefixtures("either_path")
def test_training_goes_on_as_without_other_evaluations(flavor):
    runs = [TrialContext(trial_of(training, flavor=flavor)) for training in ({}, ALL)]
    without, evaluated = (list(loop.train(run)) for run in runs)
    assert [plain(record) for record in evaluated] == without_seconds(without)
    assert runs[0].fingerprints == runs[1].fingerprints


def without_seconds(records):
    return [{name: value for name, value in one.items() if not name.endswith("seconds")} for one in records]


def test_records_have_the_metrics_that_the_settings_promise():
    trial = trial_of(ALL)
    first, last = loop.train(TrialContext(trial))
    assert set(last) == set(trial.settings.recorded)
    assert set(first) == {name for name in last if not name.startswith("eval1_") and not name.startswith("eval2_")}


def test_evaluations_within_the_last_epoch_are_of_the_network_as_it_was_then(monkeypatch):
    """Five batches an epoch, three evaluations: after batches 2, 4 and 5."""
    trial, then = trial_of(ALL), []
    step = Learner.step

    def step_and_copy(learner, inputs, labels):
        result = step(learner, inputs, labels)
        then.append(copy.deepcopy(learner.network))
        return result

    monkeypatch.setattr(Learner, "step", step_and_copy)
    *_, last = loop.train(TrialContext(trial))
    test, device = datasets.load(trial.settings.data).test, torch.device("cpu")
    for batch, prefix in ((2, "eval1_"), (4, "eval2_"), (5, "")):
        expected = evaluate(then[5 + batch - 1], test, device).read(f"{prefix}test")
        assert {name: last[name] for name in expected} == expected


def test_recalibrated_statistics_come_from_the_epochs_first_full_batches(monkeypatch):
    trial, seen = trial_of(ALL), []
    read = datasets.ImageSet.batch
    monkeypatch.setattr(datasets.ImageSet, "batch", lambda self, rows: (seen.append((self, rows)), read(self, rows))[1])
    list(loop.train(TrialContext(trial)))
    train = loop.load_once(trial.settings.data).train
    rows = [rows for images, rows in seen if images is train]
    full = loop.batch_order(trial.order_seed, 2, 70).split(16)[:4]
    assert all(torch.equal(*pair) for pair in zip(rows[-5:-1], full, strict=True))
    assert torch.equal(rows[-1], torch.cat(full))  # whose accuracy is recalibrated_train_acc


@pytest.mark.parametrize("training", [{}, {"recalibrate_batch_norm": True}, ALL, {"ema": 0.9, "batch_size": 100}])
def test_evaluated_images_are_counted(training, monkeypatch):
    trial, seen = trial_of(training), []
    read = datasets.ImageSet.batch
    monkeypatch.setattr(datasets.ImageSet, "batch", lambda self, rows: (seen.append(len(rows)), read(self, rows))[1])
    list(loop.train(TrialContext(trial, xray=False)))  # which looks at some of the test images besides
    evaluated = evaluated_images(trial.settings.training, loop.load_once(trial.settings.data))
    assert sum(seen) == trial.epochs * 70 + evaluated


def test_distances_between_evaluations_differ_by_a_batch_at_most():
    for batches in (5, 79, 782):
        for number in (1, 2, 5):
            training = trial_of({"evaluations_last_epoch": number}).settings.training
            at = [0, *evaluations_within(training, 2, batches), batches]
            distances = [after - before for before, after in itertools.pairwise(at)]
            assert len(distances) == number
            assert max(distances) - min(distances) <= 1
            assert evaluations_within(training, 1, batches) == {}
