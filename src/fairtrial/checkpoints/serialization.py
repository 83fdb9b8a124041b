"""From a training loop's state to JSON and arrays, and back. Nothing is pickled; all comes back to the bit."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: Arrays by name, as they are written.
Arrays = dict[str, npt.NDArray[Any]]

#: Kinds of NumPy arrays, in the machine's byte order, that can be written. Torch's are all kept as bytes.
_DTYPES = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES |= {"bool", "float16", "float32", "float64"}


def pack(state: object) -> tuple[Any, Arrays]:
    """Take a state apart.

    Args:
        state: dictionaries, lists, tuples, texts, numbers, True, False and None, NumPy arrays and scalars, and torch
            tensors, in any nesting. Keys of dictionaries are texts or numbers.

    Returns:
        What JSON can hold, and the arrays that it points to by name. These may share memory with the state: write them
        before it changes.

    Raises:
        TypeError: something else is in it; the message says where.
    """
    arrays: Arrays = {}
    return _pack(state, "state", arrays), arrays


def unpack(tree: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Put a state together again; tensors come back on the CPU, with the strides that they had where these were dense.

    Args:
        tree: what `pack` returned first.
        arrays: what it returned second.
    """
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    match kind:
        case "dict":
            return {unpack(key, arrays): unpack(item, arrays) for key, item in value}
        case "list":
            return [unpack(item, arrays) for item in value]
        case "tuple":
            return tuple(unpack(item, arrays) for item in value)
        case "float":
            return float(value)
        case "numpy":
            return arrays[value].copy()
        case "scalar":
            return arrays[value][()]
        case _:
            return _to_tensor(arrays[value["array"]], value["dtype"], value["shape"], value["stride"])


def _pack(value: object, where: str, arrays: Arrays) -> Any:
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Mapping):
        return {"dict": [[_key(key, where), _pack(item, f"{where}[{key!r}]", arrays)] for key, item in value.items()]}
    if type(value) in {list, tuple}:
        items = [_pack(item, f"{where}[{index}]", arrays) for index, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
        return {type(value).__name__: items}
    if type(value) is np.ndarray or isinstance(value, np.generic):
        array = np.asarray(value)
        if array.dtype.name in _DTYPES and array.dtype.isnative:
            kind = "scalar" if isinstance(value, np.generic) else "numpy"
            return {kind: _store(np.ascontiguousarray(array).reshape(array.shape), arrays)}
        raise TypeError(f"{where} is a NumPy array of {array.dtype!r}: a checkpoint takes {', '.join(sorted(_DTYPES))}")
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise TypeError(f"{where} is a sparse, quantized or meta tensor: a checkpoint takes plain ones")
        return {"torch": _from_tensor(value, torch, arrays)}
    raise TypeError(
        f"{where} is a {type(value).__name__}: a checkpoint takes dictionaries, lists, tuples, texts, numbers, "
        "NumPy arrays and torch tensors"
    )


def _key(key: object, where: str) -> Any:
    if type(key) in {str, int, float, bool}:
        return _pack(key, where, {})
    raise TypeError(f"{where} has the key {key!r}: keys in a checkpoint are texts or numbers")


def _store(array: npt.NDArray[Any], arrays: Arrays) -> str:
    name = str(len(arrays))
    arrays[name] = array
    return name


def _from_tensor(tensor: Any, torch: Any, arrays: Arrays) -> dict[str, Any]:
    """Keep a tensor as the bytes of its memory: NumPy does not know all of torch's types.

    The order in memory is kept, such as channels last, because kernels that walk over several tensors side by side rely
    on it; a tensor whose memory has gaps or overlaps becomes contiguous.
    """
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    if not _is_dense(values.shape, values.stride()):
        values = values.contiguous()
    flat = values.as_strided((values.numel(),), (1,)).view(torch.uint8).numpy()
    dtype = str(values.dtype).removeprefix("torch.")
    layout = {"shape": list(values.shape), "stride": list(values.stride())}
    return {"array": _store(flat, arrays), "dtype": dtype, **layout}


def _is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a tensor's elements fill its memory without gaps or overlaps, in whatever order."""
    expected = 1
    for step, size in sorted((step, size) for size, step in zip(shape, stride, strict=True) if size != 1):
        if step != expected:
            return False
        expected *= size
    return True


def _to_tensor(flat: npt.NDArray[Any], dtype: str, shape: list[int], stride: list[int]) -> Any:
    torch: Any = sys.modules["torch"]  # loaded in every process that trains, and needed in no other
    kind = getattr(torch, dtype)
    if not flat.size:  # NumPy gives it strides with which torch can't view it as anything else
        return torch.empty(shape, dtype=kind)
    return torch.from_numpy(flat.copy()).view(kind).as_strided(shape, stride)
