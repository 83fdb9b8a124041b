"""Converts a training loop's state to JSON and arrays, and back to the same bits. Nothing is pickled."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Arrays by name, as they are written.
Arrays = dict[str, npt.NDArray[Any]]

#: Kinds of NumPy arrays, in the machine's byte order, that can be written.
_DTYPES = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES |= {"bool", "float16", "float32", "float64"}


@dataclass(frozen=True)
class ArrayType:
    """A type, such as torch's tensors, whose values are written as an array of bytes and a description in JSON.

    Its ``pack`` returns the two and its ``unpack`` the value; a TypeError of ``pack`` says which values it can't write.
    """

    name: str
    type: type
    pack: Callable[[Any], tuple[npt.NDArray[np.uint8], dict[str, Any]]]
    unpack: Callable[[npt.NDArray[np.uint8], Mapping[str, Any]], Any]


_ARRAY_TYPES: dict[str, ArrayType] = {}


def register(array_type: ArrayType) -> None:
    """Allow values of another type in checkpoints."""
    _ARRAY_TYPES[array_type.name] = array_type


def pack(state: object) -> tuple[Any, Arrays]:
    """Convert a state to a tree for JSON, and the arrays that the tree names.

    The arrays may share memory with the state: write them before it changes. `TrialContext.save` says what a state may
    contain; a TypeError says where something else is.
    """
    arrays: Arrays = {}
    return _pack(state, "state", arrays), arrays


def unpack(tree: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    """Convert back what `pack` returned; tensors are on the CPU, with the strides that they had if these were dense."""
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
        case _ if kind in _ARRAY_TYPES:
            return _ARRAY_TYPES[kind].unpack(arrays[value["array"]], value)
    raise ValueError(f"{kind}: no such type of value is registered")


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
    for known in _ARRAY_TYPES.values():
        if isinstance(value, known.type):
            try:
                content, description = known.pack(value)
            except TypeError as error:
                raise TypeError(f"{where} is {error}") from error
            return {known.name: {"array": _store(content, arrays), **description}}
    raise TypeError(
        f"{where} is a {type(value).__name__}: a checkpoint takes dictionaries, lists, tuples, strings, numbers, "
        "NumPy arrays and torch tensors"
    )


def _key(key: object, where: str) -> Any:
    if type(key) in {str, int, float, bool}:
        return _pack(key, where, {})
    raise TypeError(f"{where} has the key {key!r}: keys in a checkpoint are strings or numbers")


def _store(array: npt.NDArray[Any], arrays: Arrays) -> str:
    name = str(len(arrays))
    arrays[name] = array
    return name
