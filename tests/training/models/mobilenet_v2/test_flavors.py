"""Keras's padding and batch norm, beyond the recorded vectors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairtrial.training.models.mobilenet_v2.flavors import (
    FLAVORS,
    BiasedBatchNorm2d,
    Flavor,
    OneSidedConv2d,
    round_to_eights,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@given(st.floats(1e-6, 1e5))
def test_rounding_to_eights(channels: float) -> None:
    rounded = round_to_eights(channels)
    assert rounded >= 8
    assert rounded % 8 == 0
    assert rounded >= 0.9 * channels
    assert rounded - channels < 8 or rounded == 8


@pytest.mark.parametrize("height", range(1, 6))
@pytest.mark.parametrize("width", range(1, 6))
def test_one_sided_padding(height: int, width: int) -> None:
    """A kernel that picks the center of its window shows where the windows lie."""
    conv = OneSidedConv2d(1, 1, 3, stride=2, bias=False)
    with torch.no_grad():
        conv.weight.zero_()[0, 0, 1, 1] = 1
    image = torch.arange(1.0, height * width + 1).reshape(1, 1, height, width)
    # Where an axis of even length starts at its second pixel, one of odd length starts at its first.
    expected = image[:, :, (height + 1) % 2 :: 2, (width + 1) % 2 :: 2]
    assert torch.equal(conv(image), expected)


def test_biased_variance_in_the_running_average() -> None:
    norm = BiasedBatchNorm2d(3, momentum=0.25)
    features = torch.randn(2, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    norm(features)
    biased = features.var(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(norm.running_var, 0.75 + 0.25 * biased)
    torch.testing.assert_close(norm.running_mean, 0.25 * features.mean(dim=(0, 2, 3)))
    assert norm.num_batches_tracked == 1


def test_biased_norm_normalizes_as_torchs() -> None:
    ours, plain = BiasedBatchNorm2d(3), nn.BatchNorm2d(3)
    assert list(ours.state_dict()) == list(plain.state_dict())
    features = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(features), plain(features))
    ours.eval()
    kept = ours.running_var.clone()
    ours(features)
    assert torch.equal(ours.running_var, kept)


@pytest.mark.parametrize("flavor", FLAVORS.values(), ids=FLAVORS)
def test_one_value_a_channel_is_torchs_own_error(flavor: Flavor) -> None:
    norm = flavor.batch_norm(3)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 3, 1, 1))
    assert norm.running_var.isfinite().all()
