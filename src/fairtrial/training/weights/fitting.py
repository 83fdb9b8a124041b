"""Replace the initial weights of a network by those in a file, if they fit."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fairtrial.errors import WeightsError
from fairtrial.spec.messages import brief
from fairtrial.training.weights import files
from fairtrial.training.weights.published import Published


def load(network: nn.Module, path: Path, *, sha256: str | None = None, published: Published | None = None) -> None:
    """Replace the weights of a network, running statistics included, by those in a file.

    The names and shapes in the file must be the network's; a Keras file's layers come in the network's order. There is
    one exception, for fine-tuning: where the file's classifier is for another number of classes (ImageNet's 1000
    against 10), or the file has none, the network keeps its own.

    Raises:
        WeightsError: the file can't be read, has another digest or does not fit. The network is unchanged.
    """
    own, head = network.state_dict(), classifier_of(network)
    tensors = files.decode(files.read(path, sha256=sha256, published=published), path, network)
    if tensors.keys().isdisjoint(head) or _is_for_other_classes(tensors, own, head):
        tensors |= {name: own[name] for name in head}
    if misfit := _misfit(tensors, own):
        raise WeightsError(f"{path}: does not fit the model: {misfit}")
    network.load_state_dict(tensors)


def classifier_of(network: nn.Module) -> tuple[str, ...]:
    """Name the tensors of the classifier in the state_dict: those of the last linear layer, the matrix first.

    Example:
        >>> classifier_of(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2)))
        ('2.weight', '2.bias')
    """
    linear = [(name, one) for name, one in network.named_modules() if isinstance(one, nn.Linear)]
    return tuple(f"{linear[-1][0]}.{name}" for name, _ in linear[-1][1].named_parameters()) if linear else ()


def _is_for_other_classes(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], head: tuple[str, ...]
) -> bool:
    """Whether the file's classifier is complete and differs from the network's only in the number of classes."""
    if any(name not in tensors or tensors[name].dim() != own[name].dim() for name in head):
        return False
    classes = {tensors[name].shape[0] for name in head}
    features_agree = all(tensors[name].shape[1:] == own[name].shape[1:] for name in head)
    return features_agree and len(classes) == 1 and classes != {own[head[0]].shape[0]}


def _misfit(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    """How a file's tensors differ from a network's, with the first of each kind; empty if they fit."""
    parts = []
    if missing := [name for name in own if name not in tensors]:
        parts.append(f"{len(missing)} missing, the first is {missing[0]}")
    if unexpected := [name for name in tensors if name not in own]:
        parts.append(f"{len(unexpected)} unexpected, the first is {brief(repr(unexpected[0]))}")
    shared = [name for name in own if name in tensors]
    if misshapen := [name for name in shared if tensors[name].shape != own[name].shape]:
        name = misshapen[0]
        parts.append(
            f"{len(misshapen)} of another shape, the first is {name}: "
            f"{tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        )
    if mistyped := [name for name in shared if tensors[name].is_floating_point() != own[name].is_floating_point()]:
        name = mistyped[0]
        parts.append(f"{len(mistyped)} of another type, the first is {name}: {tensors[name].dtype} in the file")
    return "; ".join(parts)
