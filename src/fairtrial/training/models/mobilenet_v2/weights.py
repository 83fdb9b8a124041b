"""Read weights files: safetensors, or torch's own without unpickling code."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from fairtrial.errors import WeightsError
from fairtrial.files import read_bounded
from fairtrial.spec.limits import LARGEST_WEIGHTS
from fairtrial.spec.messages import brief, show
from fairtrial.training import pickles

#: The classifier's tensors by their names in the state_dict. Their first axis is the number of classes.
CLASSIFIER = ("classifier.1.weight", "classifier.1.bias")

_NOT_TORCH = "damaged, not a file of torch's, or one that holds more than tensors and plain containers"

#: The suffixes that can be read, and what is wrong with a file that can't be decoded.
_REFUSED = {".safetensors": "damaged, or not a safetensors file", ".pt": _NOT_TORCH, ".pth": _NOT_TORCH}


def load(network: nn.Module, path: Path, *, sha256: str | None = None) -> None:
    """Replace the weights of a network, running statistics included, by those in a file.

    The names and shapes in the file must be the network's. There is one exception, for fine-tuning: if the file's
    classifier is for another number of classes (ImageNet's 1000 against 10), the network keeps its own classifier.

    Raises:
        WeightsError: the file can't be read, has another digest or does not fit. The network is unchanged.
    """
    own = network.state_dict()
    tensors = read(path, sha256=sha256)
    if _is_for_other_classes(tensors, own):
        tensors |= {name: own[name] for name in CLASSIFIER}
    if misfit := _misfit(tensors, own):
        raise WeightsError(f"{path}: does not fit the model: {misfit}")
    network.load_state_dict(tensors)


def read(path: Path, *, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Read a state_dict from a ``.safetensors``, ``.pt`` or ``.pth`` file to the CPU, and check its digest if given.

    No code in the file is run: safetensors contains none, and torch's format is read with ``weights_only=True``. Nor
    does it decode to more bytes than it has, or hang: see `pickles`. The checked bytes are the decoded bytes, even if
    the file is replaced in the meantime. Errors are `load`'s.
    """
    if path.suffix not in _REFUSED:
        raise WeightsError(f"{path}: the name of a weights file must end in one of {', '.join(_REFUSED)}")
    try:
        content = read_bounded(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise WeightsError(f"{path}: can't read the weights: {error.strerror}") from error
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise WeightsError(f"{path}: the file's SHA-256 is {found}, not {sha256} as weights_sha256 states")
    try:
        if path.suffix == ".safetensors":
            decoded: object = safetensors.torch.load(content)
        else:
            _check_torch(content)
            decoded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _CompressedError as error:
        raise WeightsError(f"{path}: holds compressed parts, which torch.save never writes; save it again") from error
    except Exception as error:  # neither library documents what a damaged file raises
        raise WeightsError(f"{path}: {_REFUSED[path.suffix]}") from error
    if not isinstance(decoded, dict):
        raise WeightsError(f"{path}: holds a {type(decoded).__name__}, not a state_dict (names to tensors)")
    for name, value in decoded.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            shown = brief(repr(name)) if isinstance(name, str) else show(name)
            raise WeightsError(f"{path}: not a state_dict (names to tensors): {shown} is a {type(value).__name__}")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise WeightsError(f"{path}: {brief(name)} is not a dense tensor")
    return dict(decoded)


class _CompressedError(Exception):
    """A zip archive decodes to more bytes than it has."""


def _check_torch(content: bytes) -> None:
    """Raise an exception if reading one of torch's files could hang, or take more memory than the file's size."""
    file = io.BytesIO(content)
    if not content.startswith(b"PK"):  # the older format: four pickles, a fifth with the names of what follows
        for _ in range(5):
            pickles.check(file, _is_allowed)
        return
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(content):
            raise _CompressedError
        for entry in archive.infolist():
            if entry.filename.endswith(".pkl"):
                pickles.check(io.BytesIO(archive.read(entry)), _is_allowed)


def _is_allowed(name: str) -> bool:
    """Whether a pickle may ask for a name: torch allows a few others, some of which allocate any memory."""
    module, _, _ = name.partition(" ")
    return name == "collections OrderedDict" or module.partition(".")[0] == "torch"


def _is_for_other_classes(tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> bool:
    """Whether the file's classifier is complete and differs from the network's only in the number of classes."""
    if any(name not in tensors or tensors[name].dim() != own[name].dim() for name in CLASSIFIER):
        return False
    classes = {tensors[name].shape[0] for name in CLASSIFIER}
    features_agree = all(tensors[name].shape[1:] == own[name].shape[1:] for name in CLASSIFIER)
    return features_agree and len(classes) == 1 and classes != {own[CLASSIFIER[0]].shape[0]}


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
