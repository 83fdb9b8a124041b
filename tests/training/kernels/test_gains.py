"""Where fast layers are used: where they gain, by a network's layers alone."""

import pytest
import torch
from torch import nn

from fairtrial.training.kernels.gains import accelerate_if_it_suits, gains
from fairtrial.training.kernels.layers import FastConv2d, FastSequential
from fairtrial.training.models.mlp import MLP
from fairtrial.training.models.mobilenet_v2 import MobileNetV2
from fairtrial.training.models.resnet import ResNet18, ResNet20
from fairtrial.training.models.small_cnn import SmallCNN


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (MobileNetV2(), True),
        (MobileNetV2(flavor="keras", stem="cifar"), True),
        (SmallCNN(), True),
        (MLP(), False),
        (ResNet18(width=8), False),
        (ResNet20(), False),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_the_answer_for_fairtrials_own_models(settings, expected):
    assert gains(settings.build(classes=10, image_size=32, channels=3, seed=0)) == expected


def test_pointwise_convolutions_count_wherever_they_are():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3)

    block = Block()
    assert gains(block)
    block.third = nn.Conv2d(8, 8, 3)
    assert not gains(block)


def test_a_network_that_changes_or_fails_keeps_its_layers():
    class Views(nn.Sequential):
        def forward(self, images):
            return super().forward(images).view(len(images), -1)

    layers = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    images = torch.rand(2, 3, 8, 8)
    suits = accelerate_if_it_suits(nn.Sequential(*layers), images)
    assert isinstance(suits, FastSequential)
    assert isinstance(suits[0], FastConv2d)
    refused = Views(nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()))
    kept = accelerate_if_it_suits(refused, images)
    assert kept is refused
    assert type(kept[0]) is nn.Sequential
    assert kept.training
