"""Read one batch file of the python version of CIFAR-10 without letting it run anything.

Those files are pickles, and a pickle is a program: `pickle.load` calls whatever the file names. The files
need three names only, all NumPy's, and here even these stand for small records that do nothing but keep what
they are given; the array is then built from the record by us. Any other name is refused.
"""

import io
import pickle
import pickletools
from typing import NoReturn

import numpy as np

from fairtrial.errors import DataError
from fairtrial.training.datasets.layout import Pixels

#: All that pickle's machinery raises on a stream that is damaged or made up.
_BROKEN_PICKLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def read_batch(content: bytes, images: int, image_bytes: int, where: str) -> tuple[Pixels, Pixels]:
    """The images and labels of one batch file.

    Args:
        content: the file's bytes: a pickled dictionary with ``data``, an array of uint8, and ``labels``, a
            list.
        images: how many images it must hold.
        image_bytes: bytes of one image.
        where: the file's name, for messages.

    Returns:
        Pixels (images, image_bytes), planes of red, green and blue one after the other as in the file; labels
        (images,).

    Raises:
        DataError: the file is damaged, asks for anything to be imported, or holds something else.
    """
    try:
        _check_memo(content)
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
    except _BROKEN_PICKLE as error:
        raise DataError(f"{where}: not a batch of CIFAR-10 ({_line(error)})") from error
    if not isinstance(batch, dict):
        raise DataError(f"{where}: holds a {type(batch).__name__}, expected a dictionary")
    return (
        _pixels(batch.get(b"data"), (images, image_bytes), where),
        _labels(batch.get(b"labels"), images, where),
    )


def _check_memo(content: bytes) -> None:
    """Refuse a stream that numbers its memories beyond reason.

    They count up from 0, but pickle makes room for any number that it meets, up to 32 GiB at once.
    """
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in {"PUT", "LONG_BINPUT"} and int(str(argument)) > len(content):
            raise pickle.UnpicklingError("it is damaged or was made up")


class _Dtype:
    """Stands for `numpy.dtype`: keeps the type's code."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment follow; they mean nothing for single bytes."""


class _Array:
    """Stands for the empty array that `numpy`'s ``_reconstruct`` makes: keeps the state that follows."""

    state: tuple[object, ...] = ()

    def __init__(self, *_: object) -> None:
        """The arguments describe an empty array; what counts comes as the state."""

    def __setstate__(self, state: tuple[object, ...]) -> None:
        self.state = state


class _Reader(pickle.Unpickler):
    """An unpickler for which three names exist: those in the official files, written by Python 2."""

    _KNOWN: dict[tuple[str, str], object] = {  # noqa: RUF012  (never written to)
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): "numpy.ndarray",
        ("numpy", "dtype"): _Dtype,
    }

    def find_class(self, module_name: str, global_name: str, /) -> object:
        """Look a name up among the known ones; import nothing."""
        try:
            return self._KNOWN[module_name, global_name]
        except KeyError:
            self._refuse(f"{module_name}.{global_name}")

    def persistent_load(self, pid: object) -> NoReturn:  # noqa: ARG002  (pickle's own signature)
        """Refuse references to things outside the file."""
        self._refuse("a persistent object")

    @staticmethod
    def _refuse(name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {name}, which no batch needs; nothing was run")


def _pixels(data: object, shape: tuple[int, int], where: str) -> Pixels:
    match data:
        case _Array(state=(_, found, _Dtype(code="u1"), False, bytes(raw))) if found == shape:
            if len(raw) == shape[0] * shape[1]:
                return np.frombuffer(raw, np.uint8).reshape(shape)
    raise DataError(f"{where}: its data must be {shape[0]} x {shape[1]} bytes in C order")


def _labels(labels: object, images: int, where: str) -> Pixels:
    if isinstance(labels, list) and len(labels) == images and all(_is_label(label) for label in labels):
        return np.array(labels, np.uint8)
    raise DataError(f"{where}: its labels must be a list of {images} class numbers")


def _is_label(label: object) -> bool:
    return isinstance(label, int) and 0 <= label <= 255


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
