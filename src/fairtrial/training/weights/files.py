"""Read weights files: safetensors, torch's own without unpickling code, or Keras's."""

import hashlib
import io
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from fairtrial.errors import WeightsError
from fairtrial.files import read_bounded
from fairtrial.spec.limits import LARGEST_WEIGHTS
from fairtrial.spec.messages import brief, show
from fairtrial.training import pickles
from fairtrial.training.weights import keras_file
from fairtrial.training.weights.published import KERAS_SUFFIX, Published

_NOT_TORCH = "damaged, not a file of torch's, or one that holds more than tensors and plain containers"

#: The suffixes other than Keras's that can be read, and what is wrong with a file that can't be decoded.
_REFUSED = {".safetensors": "damaged, or not a safetensors file", ".pt": _NOT_TORCH, ".pth": _NOT_TORCH}


def read(path: Path, *, sha256: str | None = None, published: Published | None = None) -> bytes:
    """Read a file whose name ends as a weights file's does, and check its digest if that is given.

    Raises:
        WeightsError: the file can't be read, or has another digest.
    """
    if path.suffix not in {*_REFUSED, KERAS_SUFFIX}:
        raise WeightsError(
            f"{path}: the name of a weights file must end in one of {', '.join((*_REFUSED, KERAS_SUFFIX))}"
        )
    try:
        content = read_bounded(path, LARGEST_WEIGHTS)
    except OSError as error:
        raise WeightsError(f"{path}: can't read the weights: {error.strerror}") from error
    if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise WeightsError(f"{path}: the file's SHA-256 is {found}, not {sha256} as weights_sha256 states")
    if published is not None:
        published.check(content, path)
    return content


def decode(content: bytes, path: Path, network: nn.Module) -> dict[str, torch.Tensor]:
    """Decode a file's content to a state_dict on the CPU; of a Keras file, to that of a network.

    No code in the file is run: safetensors contains none, and torch's format is read with ``weights_only=True``. Nor
    does it decode to more bytes than it has, or hang: see `pickles`. Checked bytes are the decoded bytes, even if the
    file is replaced in the meantime.

    Raises:
        WeightsError: it is damaged, or holds something else.
    """
    try:
        if path.suffix == KERAS_SUFFIX:
            return keras_file.state_dict(keras_file.read(content), network)
        if path.suffix == ".safetensors":
            decoded: object = safetensors.torch.load(content)
        else:
            _check_torch(content)
            decoded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _CompressedError as error:
        raise WeightsError(f"{path}: holds compressed parts, which torch.save never writes; save it again") from error
    except keras_file.NotKerasError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:  # no library documents what a damaged file raises
        raise WeightsError(f"{path}: {_REFUSED.get(path.suffix, 'damaged, or not an HDF5 file')}") from error
    return _checked(decoded, path)


def _checked(decoded: object, path: Path) -> dict[str, torch.Tensor]:
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
