"""The multilayer perceptron: shapes, initial weights by the seed alone, limits."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fairtrial.errors import StudyError
from fairtrial.spec import Study
from fairtrial.training.models.mlp import MLP


def build(seed=0, classes=10, image_size=8, channels=1, **settings):
    return MLP(**settings).build(classes=classes, image_size=image_size, channels=channels, seed=seed)


@pytest.mark.parametrize(("hidden", "layers"), [((), 1), ([32], 2), ((64, 32, 16), 4)])
def test_it_takes_images_in_any_memory_format(hidden, layers):
    network = build(hidden=hidden, channels=3, classes=7)
    images = torch.rand(5, 3, 8, 8)
    assert network(images).shape == (5, 7)
    torch.testing.assert_close(network(images.to(memory_format=torch.channels_last)), network(images))
    assert len([one for one in network if isinstance(one, nn.Linear)]) == layers


def test_weights_come_from_the_seed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first, again, other = (build(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {name for name in first if not torch.equal(first[name], other[name])} == {
        name for name in first if name.endswith("weight")
    }


def test_weights_are_spread_as_he_says_and_the_loss_begins_with_that_of_a_guess():
    network = build(image_size=32, channels=3, hidden=[512, 512])
    first, second, last = (one for one in network if isinstance(one, nn.Linear))
    assert first.weight.std().item() == pytest.approx((2 / 3072) ** 0.5, rel=0.02)
    assert second.weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.02)
    assert last.weight.std().item() == pytest.approx(0.01, rel=0.05)
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert cross_entropy(network(images), torch.arange(64) % 10).item() == pytest.approx(math.log(10), rel=0.1)


@pytest.mark.parametrize(
    ("hidden", "message"),
    [([0], "must be an integer of at least 1"), ([10**6], "must be an integer of at most 65,536"), ([1.5], "integer")],
)
def test_hidden_layers_that_make_no_sense_are_refused(hidden, message):
    with pytest.raises(StudyError, match=message):
        Study(name="s", reference="a", arms={"a": {}}, model={"name": "mlp", "hidden": hidden})
