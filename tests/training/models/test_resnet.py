"""Residual networks: sizes known from the literature, shapes, shortcuts, weights by the seed alone, fast layers."""

import pytest
import torch
from torch import nn
from torch.nn.functional import pad

from fairtrial.training.kernels.layers import accelerate
from fairtrial.training.models.resnet import ResNet18, ResNet20
from fairtrial.training.models.resnet.network import Block


def build(kind=ResNet20, seed=0, classes=10, channels=3, **settings):
    return kind(**settings).build(classes=classes, image_size=32, channels=channels, seed=seed)


def test_they_have_as_many_parameters_as_published():
    """0.27 million in He et al. 2016, table 6; 11.17 million in every ResNet-18 with a 3x3 stem and ten classes."""
    assert sum(one.numel() for one in build().parameters()) == 269_722
    assert sum(one.numel() for one in build(ResNet18).parameters()) == 11_173_962


def test_the_names_are_torchvisions():
    """Those of torchvision.models.resnet18, whose first convolution is 7x7."""
    names = build(ResNet18).state_dict()
    assert len(names) == 122
    assert {"conv1.weight", "bn1.running_var", "layer2.0.downsample.1.bias", "layer4.1.bn2.weight", "fc.bias"} <= {
        *names
    }


@pytest.mark.parametrize("kind", [ResNet18, ResNet20])
@pytest.mark.parametrize(("image_size", "channels", "classes"), [(32, 3, 10), (28, 1, 7), (9, 2, 2)])
def test_they_take_images_of_any_size_and_channels(kind, image_size, channels, classes):
    network = build(kind, channels=channels, classes=classes, width=8)
    assert network.training
    assert network(torch.zeros(4, channels, image_size, image_size)).shape == (4, classes)


def test_a_shortcut_without_parameters_skips_pixels_and_adds_channels_of_zeros():
    block = Block(4, 8, stride=2, projects=False).eval()
    nn.init.zeros_(block.bn2.weight)
    features = torch.rand(2, 4, 5, 5)
    expected = pad(features[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
    assert torch.equal(block(features), expected)


def test_weights_come_from_the_seed_and_leave_the_global_state_alone():
    before = torch.get_rng_state()
    first, again, other = (build(seed=seed, width=4).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = {name for name, value in first.items() if value.dim() > 1}
    assert {name for name in first if not torch.equal(first[name], other[name])} == drawn


@pytest.mark.parametrize("kind", [ResNet18, ResNet20])
def test_the_fast_layers_compute_the_same(kind):
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, fast = build(kind, width=8), accelerate(build(kind, width=8))
    torch.testing.assert_close(fast(images), plain(images), rtol=1e-4, atol=1e-5)
