"""Cells of a column as labels or numbers, in NumPy arrays; what is neither is an error that names the row."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from fairtrial.errors import RunsError
from fairtrial.spec.messages import show

if TYPE_CHECKING:
    import pyarrow as pa

Integers: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Mask: TypeAlias = npt.NDArray[np.bool_]

#: Cells that say that there is no number; an empty one is missing anyway.
_MISSING = ("NA", "N/A", "n/a", "null", "None", "-", "#N/A")
_WHOLE = re.compile(r"(-?\d{1,300})\.0+")

#: Stands for a label that is missing.
NO_LABEL = -1


class TooManyError(Exception):
    """A column has more different labels than are kept."""


class Labels:
    """Numbers the different labels of a column in the order in which they appear, batch after batch.

    Whole numbers that were written as fractions are the same label: pandas turns 1 into 1.0 where others are missing.
    """

    def __init__(self, most: int) -> None:
        self.known: dict[str, int] = {}
        self._most = most

    @property
    def texts(self) -> Sequence[str]:
        """The labels, by their numbers."""
        return tuple(self.known)

    def of(self, column: "pa.Array") -> Integers:
        """Number the labels of a batch; `NO_LABEL` where there is none."""
        encoded = text_of(column).dictionary_encode()
        table = np.array([*map(self._number, encoded.dictionary.to_pylist()), NO_LABEL], dtype=np.int64)
        numbers: Integers = table[encoded.indices.fill_null(len(table) - 1).to_numpy(zero_copy_only=False)]
        return numbers

    def _number(self, text: str | None) -> int:
        label = "" if text is None else text.strip()
        if not label:
            return NO_LABEL
        if whole := _WHOLE.fullmatch(label):
            label = whole[1]
        number = self.known.setdefault(label, len(self.known))
        if number >= self._most:
            raise TooManyError
        return number


def text_of(column: "pa.Array") -> "pa.Array":
    """Write cells of any type as text."""
    import pyarrow as pa  # noqa: PLC0415

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:
        return column.cast(pa.string())
    except pa.ArrowException:  # lists, tables, bytes that are no text
        return pa.array([None if cell is None else str(cell)[:200] for cell in column.to_pylist()], pa.string())


@dataclass(frozen=True)
class Numbers:
    """The numbers of a batch; ``known`` tells where there is one, which may be NaN or infinite."""

    values: Floats
    known: Mask


def numbers_of(column: "pa.Array", name: str, rows: Integers) -> Numbers:
    """Read numbers from cells of any type.

    Raises:
        RunsError: a cell is no number; with its row.
    """
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    plain = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
    if not plain:
        text = compute.utf8_trim_whitespace(text_of(column))
        missing = compute.is_in(text, value_set=pa.array(["", *_MISSING]))
        column = compute.if_else(missing, pa.scalar(None, pa.string()), text)
    try:
        found = column.cast(pa.float64(), safe=False)
    except pa.ArrowException as error:
        raise _no_number(column, name, rows) from error
    values = found.fill_null(0.0).to_numpy(zero_copy_only=False)
    return Numbers(values, found.is_valid().to_numpy(zero_copy_only=False))


def _no_number(column: "pa.Array", name: str, rows: Integers) -> RunsError:
    """Say which cell is no number, and what to write instead where that is plain."""
    import pyarrow as pa  # noqa: PLC0415

    for row, cell in zip(rows, column, strict=True):
        try:
            cell.cast(pa.float64())
        except pa.ArrowException:
            text = cell.as_py()
            hint = ""
            if re.fullmatch(r"-?\d+(\.\d+)?\s*%", text):
                hint = "; write it without the %"
            elif re.fullmatch(r"-?\d*,\d+", text):
                hint = "; write it with a point"
            return RunsError(f"{show(name)} in row {row:,}: {show(text)} is not a number{hint}")
    raise AssertionError("every cell is a number")
