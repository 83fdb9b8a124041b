"""The small network: shapes, initial weights by the seed alone, and learning."""

import pytest
import torch
from torch import nn

from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.training import loop
from fairtrial.training.kernels import layers
from fairtrial.training.models.small_cnn import SmallCNN
from fairtrial.trial import TrialContext


def build(seed=0, classes=10, image_size=32, channels=3, **settings):
    return SmallCNN(**settings).build(classes=classes, image_size=image_size, channels=channels, seed=seed)


@pytest.mark.parametrize(("image_size", "channels", "classes"), [(32, 3, 10), (28, 1, 7), (9, 2, 2)])
def test_it_takes_images_of_any_size_and_channels(image_size, channels, classes):
    network = build(image_size=image_size, channels=channels, classes=classes)
    assert network.training
    assert network(torch.zeros(4, channels, image_size, image_size)).shape == (4, classes)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_batch_of_one_image_is_no_trouble():
    assert build()(torch.zeros(1, 3, 32, 32)).isfinite().all()
    assert (
        Study(name="s", reference="a", arms={"a": {}}, data={"train": 65}, model={"name": "small_cnn"}).settings.model
        == SmallCNN()
    )


def test_weights_come_from_the_seed_and_leave_the_global_state_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again, other = (build(seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = {name for name, value in first.items() if value.dim() > 1}
    assert {name for name in first if not torch.equal(first[name], other[name])} == drawn


def test_weights_are_spread_as_kaiming_says():
    for module in build(width=64, classes=100).modules():
        if isinstance(module, nn.Conv2d):
            fan_out = 9 * module.out_channels
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.01, rel=0.1)
            assert not module.bias.any()


def test_the_fast_layers_compute_the_same():
    images = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, fast = build(width=8), layers.accelerate(build(width=8))
    torch.testing.assert_close(fast(images), plain(images), rtol=1e-4, atol=1e-5)


def test_it_learns_the_digits():
    study = Study(
        name="s",
        reference="a",
        arms={"a": {}},
        data={"name": "digits", "train": 300, "test": 100},
        model={"name": "small_cnn", "width": 16},
        training={"epochs": 4, "batch_size": 10},
        optimizer={"lr": 3e-3},
    )
    records = list(loop.train(TrialContext(plan(study)[0])))
    assert records[-1]["train_acc"] > 0.4 > records[0]["train_acc"]
