"""The training step: gradients of a batch in parts, clipped, and optimizers that need more than a gradient."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from fairtrial.errors import StudyError
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training.learner import Learner
from fairtrial.training.loop import load_once
from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.optimizers.muon import Muon
from fairtrial.training.optimizers.sgd import SGD


def learner_of(model="small_cnn", **sections):
    study = Study(
        name="s",
        reference="a",
        data={"name": "digits", "train": 100, "test": 20},
        model={"name": model, "width": 4},
        arms={"a": {}},
        **{"optimizer": {"name": "sgd", "lr": 0.5}} | sections,
    )
    trial = plan(study)[0]
    learner = Learner.build(trial, load_once(trial.settings.data), fast=False)
    for index, layer in enumerate(learner.network):
        if isinstance(layer, nn.BatchNorm2d):
            learner.network[index] = nn.Identity()  # its statistics would be those of the parts
    return learner


def batch(size=30):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 3, 32, 32, generator=generator), torch.randint(0, 10, (size,), generator=generator)


@pytest.mark.parametrize("parts", [2, 7, 30])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(parts):
    whole, split = learner_of(), learner_of(training={"accumulate": parts})
    for learner in (whole, split):
        learner.network.double()
    inputs, labels = batch()
    losses = [learner.step(inputs.double(), labels) for learner in (whole, split)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=1e-12)
    for one, other in zip(whole.network.parameters(), split.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_a_small_last_batch_is_split_as_far_as_it_goes():
    learner = learner_of(training={"accumulate": 8})
    _, outputs = learner.step(*batch(3))
    assert outputs.shape == (3, 10)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_norm_of_the_whole_gradient_is_clipped(accumulate):
    training = {"accumulate": accumulate}
    free, clipped = learner_of(training=training), learner_of(training=training | {"clip_norm": 0.01})
    starts = [copy.deepcopy(list(one.network.parameters())) for one in (free, clipped)]
    for learner in (free, clipped):
        learner.step(*batch())
    moves = [
        torch.cat([(after - before).flatten() for after, before in zip(one.network.parameters(), start, strict=True)])
        for one, start in zip((free, clipped), starts, strict=True)
    ]
    assert moves[1].norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert moves[0].norm() > 2 * moves[1].norm()
    torch.testing.assert_close(moves[0] / moves[0].norm(), moves[1] / moves[1].norm(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "muon"])
def test_weights_that_the_optimizer_does_not_hold_are_not_clipped(name):
    learner = learner_of(optimizer={"name": name, "lr": 0.5}, training={"clip_norm": 0.01})
    weights = list(learner.network.parameters())
    build = {"sgd": SGD, "muon": Muon}[name](lr=0.5).build
    learner = replace(learner, optimizer=build(weights[-1:]))
    learner.step(*batch())
    assert weights[-1].grad.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert all(one.grad.norm() > 0.01 for one in weights[-2:-1])


def test_a_gradient_below_the_limit_keeps_its_bits():
    free, clipped = learner_of(), learner_of(training={"clip_norm": 1e6})
    for learner in (free, clipped):
        learner.step(*batch())
    for one, other in zip(free.network.parameters(), clipped.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["lbfgs", "muon", "torch.optim:LBFGS", "torch.optim:Rprop"])
def test_optimizers_learn_a_batch(name):
    learner = learner_of(optimizer={"name": name, "lr": 0.01})
    losses = [learner.step(*batch())[0].item() for _ in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"accumulate": 65},
            "training.accumulate = 65: must not exceed training.batch_size = 64",
        ),
        (
            {"accumulate": 20, "batch_size": 32},
            "training.accumulate = 20: a batch of 32 images has a part of one, which " + MobileNetV2().no_single_image,
        ),
        ({"clip_norm": 0.0}, "training.clip_norm = 0.0: must be in (0, inf)"),
        (
            {"clip_norm": 1.0, "loop": "a:b"},
            "training.clip_norm: only fairtrial's own training loop has it; see params",
        ),
    ],
)
def test_what_cannot_be_is_refused(training, message):
    with pytest.raises(StudyError) as caught:
        Study(name="s", reference="a", data={"name": "digits"}, training=training, arms={"a": {}})
    assert str(caught.value) == message


def test_neither_is_in_the_hash_at_its_default():
    study = Study(name="s", reference="a", arms={"a": {}})
    same = Study(name="s", reference="a", training={"accumulate": 1}, arms={"a": {}}, optimizer={"amsgrad": False})
    assert same.hash == study.hash
    other = Study(name="s", reference="a", training={"accumulate": 2}, arms={"a": {}})
    assert other.hash != study.hash
