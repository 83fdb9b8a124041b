"""Arrays from a NumPy file, ``.npz``: nothing in it is unpickled, and no header makes this read more than there is."""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fairtrial.errors import DataError
from fairtrial.files import size_text
from fairtrial.registry import DATASETS
from fairtrial.spec.limits import LARGEST_DATA
from fairtrial.training.datasets.raw import Part, RawData, named_parts, read_pinned

#: Arrays in one file.
_MOST_ARRAYS = 100


@DATASETS.register("npz")
class Npz(RawData):
    """Arrays in a NumPy file: `x_train`, `y_train`, `x_test` and `y_test`, or `x` and `y`, which are split."""

    needs_path: ClassVar[bool] = True

    def parts(self) -> tuple[Part, Part | None]:
        """See `RawData.parts`."""
        path = Path(self.path or "").expanduser()
        return named_parts(read_npz(read_pinned(path, self.path_sha256), str(path)), str(path))


def read_npz(content: bytes, where: str) -> dict[str, NDArray[Any]]:
    """Read the arrays of a ``.npz`` file.

    Raises:
        DataError: it is damaged, has arrays of objects, or is too large when unpacked.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > _MOST_ARRAYS or sum(one.file_size for one in members) > LARGEST_DATA:
                limits = f"{_MOST_ARRAYS} arrays and {size_text(LARGEST_DATA)}"
                raise DataError(f"{where}: has more than {limits} when unpacked, the most that is read")
            return {
                one.filename.removesuffix(".npy"): _read_npy(archive.read(one), f"{where}: {one.filename!a}")
                for one in members
            }
    except (zipfile.BadZipFile, OSError, EOFError, zlib.error, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(f"{where}: not a readable .npz file ({' '.join(str(error).split())})") from error


def _read_npy(content: bytes, where: str) -> NDArray[Any]:
    """Read one array. Its size must be that which its header claims, before anything is made for it."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, SyntaxError, TypeError, EOFError, RecursionError, MemoryError, OverflowError) as error:
        raise DataError(f"{where}: not a NumPy array ({' '.join(str(error).split())[:200]})") from error
    if dtype.hasobject:
        raise DataError(f"{where}: is an array of Python objects, which are not unpickled; save numbers or texts")
    data = memoryview(content)[file.tell() :]
    if any(length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise DataError(f"{where}: its header says {dtype} {shape}, but there are {len(data):,} bytes")
    array = np.frombuffer(data, dtype) if dtype.itemsize and len(data) else np.empty(shape, dtype)
    return array.reshape(shape, order="F" if fortran else "C")
