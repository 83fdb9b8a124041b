"""Whether fast layers make a network faster, and whether they suit it."""

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from fairtrial.training.kernels.layers import ACTIVATIONS, accelerate, kind_of
from fairtrial.training.kernels.library import LayerKind


def gains(network: nn.Module) -> bool:
    """Tell whether fast layers gain: by the network's layers alone, so that the answer is the same everywhere.

    They do where at least half of the batch norms stand in a sequence, behind a convolution that the kernels know or
    before an activation, or where at least half of the convolutions are pointwise or depthwise. Dense 3x3 convolutions
    are torch's either way, and a batch norm alone is no faster: a ResNet of basic blocks takes as long with as without.

    Example:
        >>> gains(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8)))
        True
        >>> gains(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
        False
    """
    convs = [one for one in network.modules() if isinstance(one, nn.Conv2d)]
    fast = [one for one in convs if kind_of(one) in {LayerKind.POINTWISE, LayerKind.DEPTHWISE}]
    norms = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)]
    sequences = [one for one in network.modules() if isinstance(one, nn.Sequential)]
    joined = {norm for sequence in sequences for pair in pairwise(sequence) for norm in _joined(*pair)}
    return len(joined) * 2 >= len(norms) > 0 or len(fast) * 2 >= len(convs) > 0


def accelerate_if_it_suits(network: nn.Module, images: Tensor) -> nn.Module:
    """Turn the layers of anybody's network into fast ones, unless it then fails or gives something else.

    Fast layers return channels-last images, of which not every network can take what it takes of others (``view``).

    Args:
        network: in training mode; it is not changed if it does not suit.
        images: a few, (batch, channels, height, width), on the network's device.
    """
    try:
        plain, fast = copy.deepcopy(network).eval(), accelerate(copy.deepcopy(network)).eval()
        with torch.no_grad():
            suits = torch.allclose(plain(images), fast(images), rtol=1e-3, atol=1e-4)
    except Exception:  # noqa: BLE001  (whatever the user's code raises)
        return network
    return accelerate(network) if suits else network


def _joined(first: nn.Module, second: nn.Module) -> Iterator[nn.Module]:
    """The batch norm of two consecutive layers that the kernels compute together."""
    if isinstance(second, nn.BatchNorm2d) and isinstance(first, nn.Conv2d) and kind_of(first) is not None:
        yield second
    if isinstance(first, nn.BatchNorm2d) and type(second) in ACTIVATIONS:
        yield first
