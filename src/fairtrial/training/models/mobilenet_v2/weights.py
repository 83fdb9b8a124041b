"""Files of weights: safetensors, or torch's own read without unpickling code."""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from fairtrial.errors import WeightsError

#: The classifier's tensors by their names in the state_dict. Their first axis is the number of classes.
CLASSIFIER = ("classifier.1.weight", "classifier.1.bias")

_NOT_TORCH = "damaged, not a file of torch's, or one that holds more than tensors and plain containers"

#: What to say of a file that can't be decoded, by its suffix. The keys are the suffixes that can be read.
_REFUSED = {".safetensors": "damaged, or not a safetensors file", ".pt": _NOT_TORCH, ".pth": _NOT_TORCH}


def load(network: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Replace the weights of ``network``, running statistics included, by those in a file.

    The names and shapes in the file must be the network's own. There is one exception, for fine-tuning: where
    the file's classifier is for another number of classes (ImageNet's 1000 against 10), the network keeps its
    own classifier and takes all the rest.

    Args:
        network: the network, on any device; its dtype stays.
        path: a file that `read` can read.
        sha256: the digest that the file must have, in lower-case hexadecimal.

    Raises:
        WeightsError: if the file can't be read, has another digest or does not fit. The network is unchanged.
    """
    own = network.state_dict()
    tensors = read(path, sha256=sha256)
    if _is_for_other_classes(tensors, own):
        tensors |= {name: own[name] for name in CLASSIFIER}
    if misfit := _misfit(tensors, own):
        raise WeightsError(f"{path}: does not fit the model: {misfit}")
    network.load_state_dict(tensors)


def read(path: Path, *, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a state_dict from a file, to the CPU.

    No code in the file is run: safetensors holds none, and torch's format is read with ``weights_only=True``.

    Args:
        path: a file whose name ends in ``.safetensors``, ``.pt`` or ``.pth``.
        sha256: the digest that the file must have, in lower-case hexadecimal. The bytes that are checked are
            the bytes that are decoded, even if the file is replaced meanwhile.

    Returns:
        The tensors by name.

    Raises:
        WeightsError: if the file can't be read or has another digest.
    """
    if path.suffix not in _REFUSED:
        raise WeightsError(f"{path}: the name of a weights file must end in one of {', '.join(_REFUSED)}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: can't read the weights: {error.strerror}") from error
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise WeightsError(f"{path}: the file's SHA-256 is {found}, not {sha256} as weights_sha256 states")
    try:
        decoded = _decode(content, path.suffix)
    except Exception as error:  # neither library says what a damaged file raises, and torch's unpickler varies
        raise WeightsError(f"{path}: {_REFUSED[path.suffix]}") from error
    return _plain_tensors(decoded, path)


def _decode(content: bytes, suffix: str) -> object:
    if suffix == ".safetensors":
        return safetensors.torch.load(content)
    decoded: object = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return decoded


def _plain_tensors(decoded: object, path: Path) -> dict[str, torch.Tensor]:
    """Check that what was decoded is a state_dict: names to dense tensors that lie in memory."""
    if not isinstance(decoded, dict):
        raise WeightsError(f"{path}: holds a {type(decoded).__name__}, not a state_dict (names to tensors)")
    for name, value in decoded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(f"{path}: not a state_dict (names to tensors): {name!r} is a {type(value).__name__}")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise WeightsError(f"{path}: {name} is not a dense tensor")
    return dict(decoded)


def _is_for_other_classes(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> bool:
    """Whether the file's classifier is whole and differs from the network's in the number of classes only."""
    if any(name not in tensors or tensors[name].dim() != own[name].dim() for name in CLASSIFIER):
        return False
    classes = {tensors[name].shape[0] for name in CLASSIFIER}
    features_agree = all(tensors[name].shape[1:] == own[name].shape[1:] for name in CLASSIFIER)
    return features_agree and len(classes) == 1 and classes != {own[CLASSIFIER[0]].shape[0]}


def _misfit(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> str:
    """Say how a file's tensors differ from a network's, naming the first of each kind; empty if they fit."""
    parts = []
    if missing := [name for name in own if name not in tensors]:
        parts.append(f"{len(missing)} missing, the first is {missing[0]}")
    if unexpected := [name for name in tensors if name not in own]:
        parts.append(f"{len(unexpected)} unexpected, the first is {unexpected[0]!r}")
    shared = [name for name in own if name in tensors]
    if misshapen := [name for name in shared if tensors[name].shape != own[name].shape]:
        name = misshapen[0]
        parts.append(
            f"{len(misshapen)} of another shape, the first is {name}: "
            f"{tuple(tensors[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        )
    floats = {name: own[name].is_floating_point() for name in shared}
    if mistyped := [name for name in shared if tensors[name].is_floating_point() != floats[name]]:
        name = mistyped[0]
        parts.append(f"{len(mistyped)} of another type, the first is {name}: {tensors[name].dtype} in the file")
    return "; ".join(parts)
