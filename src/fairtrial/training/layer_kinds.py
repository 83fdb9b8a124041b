"""Names and kinds of layers of the parameters that an optimizer trains."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from fairtrial.training.matrices import MuonAndAdamW

_NORMALIZATION = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

#: Classes of modules, and the kind of layer that each is.
_KINDS: tuple[tuple[Any, str], ...] = (
    (_NORMALIZATION, "normalization"),
    ((nn.Linear, nn.Bilinear), "linear"),
    ((nn.Embedding, nn.EmbeddingBag), "embedding"),
    (nn.MultiheadAttention, "attention"),
    (nn.RNNBase, "recurrent"),
)


@dataclass(frozen=True)
class Held:
    """A parameter that an optimizer trains.

    Attributes:
        parameter: the tensor.
        name: its name in the network; without a network, the optimizer's own, or the numbers of group and place.
        kind: the kind of its layer; without a network, its number of dimensions.
        group: the optimizer's parameter group, as it is now.
        state: the optimizer's state of it, which is empty before the first step.
    """

    parameter: Tensor
    name: str
    kind: str
    group: dict[str, Any]
    state: dict[str, Any]


def held(optimizer: torch.optim.Optimizer, network: nn.Module | None) -> list[Held]:
    """List what an optimizer trains, in its order; reading it changes nothing.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4))
        >>> [(one.name, one.kind) for one in held(torch.optim.SGD(network.parameters()), network)][:2]
        [('0.weight', 'depthwise convolution'), ('0.bias', 'depthwise convolution')]
    """
    known = {} if network is None else _of_network(network)
    found = []
    for parameter, group, state, fallback in _entries(optimizer):
        name, kind = known.get(id(parameter), (fallback, _dimensions(parameter)))
        found.append(Held(parameter, name, kind, group, state))
    return found


def _entries(optimizer: torch.optim.Optimizer) -> Iterable[tuple[Tensor, dict[str, Any], dict[str, Any], str]]:
    if isinstance(optimizer, MuonAndAdamW):
        for index, (parameter, group, state) in enumerate(optimizer.held()):
            yield parameter, group, state, str(index)
        return
    for number, group in enumerate(optimizer.param_groups):
        names = group.get("param_names") or ()
        for index, parameter in enumerate(group["params"]):
            name = names[index] if index < len(names) else f"{number}.{index}"
            yield parameter, group, optimizer.state.get(parameter) or {}, str(name)  # [] would make a state


def _of_network(network: nn.Module) -> dict[int, tuple[str, str]]:
    """The first name and the kind of each parameter of a network, by its id."""
    found: dict[int, tuple[str, str]] = {}
    for path, module in network.named_modules():
        kind = kind_of_layer(module)
        for name, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), (f"{path}.{name}".lstrip("."), kind))
    return found


def kind_of_layer(module: nn.Module) -> str:
    """Name the kind of a layer, such as ``"pointwise convolution"``; ``"other"`` if it is none of torch's."""
    if isinstance(module, _ConvNd):
        if module.groups == module.in_channels > 1:
            return "depthwise convolution"
        return "pointwise convolution" if all(size == 1 for size in module.kernel_size) else "convolution"
    return next((kind for classes, kind in _KINDS if isinstance(module, classes)), "other")


def _dimensions(parameter: Tensor) -> str:
    return "1 dimension" if parameter.ndim == 1 else f"{parameter.ndim} dimensions"
