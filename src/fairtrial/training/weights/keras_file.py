"""Read weights that Keras saved in HDF5, as a network's state_dict.

Keras's own reader matches layers by their order, not by their names, which have changed over the years; so does this
one. A file holds, in the order of the model, the names of its layers and those of each layer's arrays.
"""

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

if TYPE_CHECKING:
    import h5py

#: torch's name of each of Keras's arrays.
_NAMES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
#: Layers and arrays of a layer: far more than any network has.
_MOST_LAYERS, _MOST_ARRAYS = 10_000, 16


class NotKerasError(Exception):
    """A file is not what Keras saves; the message is the reason."""


class Layer(NamedTuple):
    """A layer with weights: its name, and its arrays by Keras's names for them, such as ``kernel``."""

    name: str
    arrays: dict[str, NDArray[Any]]


def read(content: bytes) -> list[Layer]:
    """Read the layers that have weights, in the model's order.

    Nothing but arrays of numbers within the file itself is read: no links to other files, no compressed parts.

    Raises:
        NotKerasError: h5py is missing, or the file is not of this kind. h5py raises what it likes for a damaged one.
    """
    try:
        import h5py  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise NotKerasError("Keras's weights need h5py: pip install 'fairtrial[keras]'") from error

    with h5py.File(io.BytesIO(content), "r") as file:
        group = file if _has(file, "layer_names") or "model_weights" not in file else _child(file, "model_weights")
        if not _has(group, "layer_names"):
            raise NotKerasError('names no layers: Keras 3\'s ".weights.h5" is another format; save the model as ".h5"')
        layers, left = [], len(content)
        for name in _names(group, "layer_names", _MOST_LAYERS):
            arrays: dict[str, NDArray[Any]] = {}
            layer = _child(group, name)
            for path in _names(layer, "weight_names", _MOST_ARRAYS):
                data = _child(layer, path)
                left -= _size(data, path)
                if left < 0:
                    raise NotKerasError("has more numbers than bytes")
                arrays[path.rpartition("/")[2].partition(":")[0]] = np.asarray(data)
            layers += [Layer(name, arrays)] if arrays else []
    return layers


def state_dict(layers: list[Layer], network: nn.Module) -> dict[str, torch.Tensor]:
    """Name and arrange the arrays of layers as the tensors of a network whose layers come in the same order.

    Layers that the network lacks keep Keras's names; the other way round, the network's last layers get nothing.
    """
    named = [
        (name, one) for name, one in network.named_modules() if next(one.parameters(recurse=False), None) is not None
    ]
    state: dict[str, torch.Tensor] = {}
    for index, layer in enumerate(layers):
        prefix, module = named[index] if index < len(named) else (layer.name, nn.Identity())
        for name, array in layer.arrays.items():
            kernel = name in {"kernel", "depthwise_kernel"}
            arranged = _as_torch(array, module) if kernel else array
            tensor = torch.from_numpy(np.ascontiguousarray(arranged.astype(arranged.dtype.newbyteorder("="))))
            state[f"{prefix}.{_NAMES.get(name, name)}"] = tensor
    counts = {name: one for name, one in network.named_buffers() if name.endswith("num_batches_tracked")}
    return state | counts  # which Keras lacks


def _as_torch(kernel: NDArray[Any], module: nn.Module) -> NDArray[Any]:
    """Keras's kernels end with the outputs: (height, width, in, out), or (height, width, in, 1) of depthwise ones."""
    if kernel.ndim == 4:
        is_depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
        return kernel.transpose((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
    return kernel.T


def _has(group: "h5py.Group", key: str) -> bool:
    return key in group.attrs or f"{key}0" in group.attrs


def _names(group: "h5py.Group", key: str, most: int) -> list[str]:
    """Read a list of names, which Keras divides among the attributes ``key0``, ``key1``, ... where it is long."""
    keys = [key] if key in group.attrs else [f"{key}{number}" for number in range(len(group.attrs))]
    found = [name for one in keys if one in group.attrs for name in np.atleast_1d(group.attrs[one])]
    if len(found) > most:
        raise NotKerasError(f"has more than {most:,} names in one list")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in found]


def _child(group: "h5py.Group", path: str) -> Any:
    """What a path leads to by links within the file alone."""
    import h5py  # noqa: PLC0415

    found: Any = group
    for part in filter(None, path.split("/")):
        if not isinstance(found, h5py.Group) or not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise NotKerasError(f"lacks {path!r}, which it names")
        found = found[part]
    return found


def _size(data: Any, path: str) -> int:
    """Bytes of an array of real numbers that lies in the file as it is."""
    import h5py  # noqa: PLC0415

    plain = isinstance(data, h5py.Dataset) and data.dtype.kind == "f" and data.dtype.itemsize <= 8
    if not plain or data.external or data.is_virtual or data.compression:
        raise NotKerasError(f"holds something other than plain numbers at {path!r}")
    return int(data.nbytes)
