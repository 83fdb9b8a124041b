"""Read one batch file of the python version of CIFAR-10 or CIFAR-100 without running anything in it.

Those files are pickles, and `pickle.load` calls whatever a pickle names. The files need only three names, all NumPy's.
Here they mean small records that only store their arguments; the array is built from them. Any other name is refused.
"""

import io
import pickle
from typing import NoReturn

import numpy as np

from fairtrial.errors import DataError
from fairtrial.spec.messages import brief
from fairtrial.training import pickles
from fairtrial.training.datasets.layout import Pixels


def read_batch(
    content: bytes, images: int, image_bytes: int, where: str, labels: bytes = b"labels"
) -> tuple[Pixels, Pixels]:
    """Read pixels (images, image_bytes), planes of red, green and blue, and labels (images,), by their key."""
    try:
        pickles.check(io.BytesIO(content))
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(
            f"{where}: not a batch of CIFAR images ({brief(' '.join(str(error).split()) or type(error).__name__, 200)})"
        ) from error
    if not isinstance(batch, dict):
        raise DataError(f"{where}: holds a {type(batch).__name__}, expected a dictionary")
    return (_pixels(batch.get(b"data"), (images, image_bytes), where), _labels(batch.get(labels), images, where))


class _Dtype:
    """In place of `numpy.dtype`: the type's code."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and alignment, which single bytes lack."""


class _Array:
    """In place of the empty array that NumPy's ``_reconstruct`` makes: the state that follows."""

    state: tuple[object, ...] = ()

    def __init__(self, *_: object) -> None:
        """Ignore the arguments, which describe an empty array."""

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """An unpickler that knows only the three names in the official files, which Python 2 wrote."""

    _KNOWN: dict[tuple[str, str], object] = {  # noqa: RUF012  (never written to)
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): "numpy.ndarray",
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> object:
        """Look up a known name; import nothing."""
        if (module_name, global_name) not in self._KNOWN:
            raise _refused(f"{module_name}.{global_name}")
        return self._KNOWN[module_name, global_name]

    def persistent_load(self, pid: object) -> NoReturn:  # noqa: ARG002  (pickle's own signature)
        """Refuse references to objects outside the file."""
        raise _refused("a persistent object")


def _refused(name: str) -> pickle.UnpicklingError:
    return pickle.UnpicklingError(f"it asks for {name}, which no batch needs; nothing was run")


def _pixels(data: object, shape: tuple[int, int], where: str) -> Pixels:
    match data:
        case _Array(state=(_, found, _Dtype(code="u1"), False, bytes(raw))) if found == shape:
            if len(raw) == shape[0] * shape[1]:
                return np.frombuffer(raw, np.uint8).reshape(shape)
    raise DataError(f"{where}: its data must be {shape[0]} x {shape[1]} bytes in C order")


def _labels(labels: object, images: int, where: str) -> Pixels:
    if isinstance(labels, list) and len(labels) == images and all(label in range(256) for label in labels):
        return np.array(labels, np.uint8)
    raise DataError(f"{where}: its labels must be a list of {images} class numbers")
