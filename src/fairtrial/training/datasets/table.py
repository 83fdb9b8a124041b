"""Rows of a CSV or Parquet table, with one or more columns to predict from the others."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, StrictBool, StrictStr
from pydantic_core import PydanticCustomError

from fairtrial.errors import DataError
from fairtrial.registry import DATASETS, did_you_mean
from fairtrial.spec.messages import brief
from fairtrial.training.datasets.raw import Part, RawData, read_pinned

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns of a file, numbers that its rows become, and different texts of one column.
MOST_COLUMNS, MOST_NUMBERS, MOST_TEXTS = 20_000, 2**28, 1_000
#: Bytes of a CSV file's first line.
_LONGEST_HEAD = 2**22


def _list(value: object) -> object:
    """Read one name as a list of it."""
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not names or len(set(map(str, names))) < len(names):
        raise PydanticCustomError("columns", "must be the name of a column, or a list of different ones")
    return names


Columns = Annotated[tuple[StrictStr, ...], BeforeValidator(_list)]


@DATASETS.register("table")
class Table(RawData):
    """A CSV or Parquet file: predicts the column `target` from the others; texts become one column for each.

    Attributes:
        target: the column to predict, or several for regression.
        features: the columns to predict from; by default all others.
        drop: columns to leave out.
        split_column: a column that says ``train`` or ``test`` of each row; by default ``test_share`` of them are drawn.
        standardize: scale each feature and, for regression, each target to mean 0 and variance 1 of the training rows,
            those held out for validation included.
    """

    needs_path: ClassVar[bool] = True

    target: Columns
    features: Columns | None = None
    drop: Columns | None = None
    split_column: StrictStr | None = None
    standardize: StrictBool = True

    def parts(self) -> tuple[Part, Part | None]:
        """See `RawData.parts`."""
        path = Path(self.path or "").expanduser()
        table = read_table(read_pinned(path, self.path_sha256), path)
        columns = Reader(str(path), table)
        inputs = columns.numbers(self._features(columns))
        labels = self._labels(columns)
        if self.split_column is None:
            train, test = self.split(Part(inputs, labels))
        else:
            is_test = columns.is_test(self.split_column)
            train, test = Part(inputs[~is_test], labels[~is_test]), Part(inputs[is_test], labels[is_test])
        return self._scaled(train, test)

    def _features(self, columns: "Reader") -> list[str]:
        for name in (*self.target, *(self.features or ()), *(self.drop or ()), *filter(None, [self.split_column])):
            columns.check(name)
        others = {*self.target, *(self.drop or ()), self.split_column}
        chosen = [name for name in self.features or columns.names if name not in others]
        if not chosen:
            raise DataError(f"{columns.where}: no column is left to predict from")
        return chosen

    def _labels(self, columns: "Reader") -> NDArray[Any]:
        if self.is_regression:
            return np.column_stack([columns.number(name) for name in self.target])
        if len(self.target) > 1:
            raise DataError(f'{self.name}: has several targets; only task = "regression" has more than one')
        return columns.classes(self.target[0])

    def _scaled(self, train: Part, test: Part) -> tuple[Part, Part]:
        if not self.standardize:
            return train, test
        inputs = _standardized(train.inputs, test.inputs)
        labels = _standardized(train.labels, test.labels) if self.is_regression else (train.labels, test.labels)
        return Part(inputs[0], labels[0]), Part(inputs[1], labels[1])


def _standardized(train: NDArray[Any], test: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    mean, spread = train.mean(axis=0), train.std(axis=0)
    constant = np.ptp(train, axis=0) == 0  # but for rounding, its spread is 0 too
    mean[constant], spread[constant] = train[0, constant], 1
    return (train - mean) / spread, (test - mean) / spread


def read_table(content: bytes, path: Path) -> "pa.Table":
    """Read a table by the end of its name.

    Raises:
        DataError: it is damaged, no such table, or too large.
    """
    import pyarrow as pa  # noqa: PLC0415  (slow to import)

    read = {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet, ".pq": _read_parquet}.get(
        path.suffix.lower()
    )
    if read is None:
        raise DataError(f"{path}: the end of its name must be .csv, .tsv or .parquet")
    try:
        table = read(content, str(path))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable table ({brief(' '.join(str(error).split()), 200)})") from error
    if len(set(table.column_names)) < len(table.column_names):
        twice = next(name for name in table.column_names if table.column_names.count(name) > 1)
        raise DataError(f"{path}: two columns are called {brief(twice)!a}")
    if not table.num_rows:
        raise DataError(f"{path}: has no rows")
    return table


def _read_csv(content: bytes, where: str) -> "pa.Table":
    from pyarrow import csv  # noqa: PLC0415

    head = content[:_LONGEST_HEAD].removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0]
    delimiter = max(",;\t", key=lambda one: head.count(one.encode()))
    if head.count(delimiter.encode()) >= MOST_COLUMNS:
        raise DataError(f"{where}: has more than {MOST_COLUMNS:,} columns")
    return csv.read_csv(
        io.BytesIO(content),
        csv.ReadOptions(block_size=len(content) + 1, use_threads=False),  # so that all rows tell a column's type
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        csv.ConvertOptions(auto_dict_encode=True, auto_dict_max_cardinality=MOST_TEXTS, strings_can_be_null=True),
    )


def _read_parquet(content: bytes, where: str) -> "pa.Table":
    from pyarrow import parquet  # noqa: PLC0415

    with parquet.ParquetFile(io.BytesIO(content)) as file:
        columns, rows = len(file.schema_arrow), file.metadata.num_rows
        nested = [field.name for field in file.schema_arrow if field.type.num_fields]
        if nested:
            raise DataError(f"{where}: column {brief(nested[0])!a} is nested; keep one value in a cell")
        if columns > MOST_COLUMNS or columns * rows > MOST_NUMBERS:
            raise DataError(f"{where}: has {columns:,} columns and {rows:,} rows, more than is read")
        texts = [field.name for field in file.schema_arrow if _is_text(field.type)]
    with parquet.ParquetFile(io.BytesIO(content), read_dictionary=texts) as file:
        return file.read(use_threads=False)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa  # noqa: PLC0415

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


class Reader:
    """Reads the columns of a table as numbers and classes; an error names the column and the row, the first one 1."""

    def __init__(self, where: str, table: "pa.Table") -> None:
        self.where, self._table = where, table

    @property
    def names(self) -> Sequence[str]:
        """The columns' names."""
        return [str(name) for name in self._table.column_names]

    def check(self, name: str) -> None:
        """Raise a `DataError` unless there is a column of this name."""
        if name not in self.names:
            raise DataError(f"{self.where}: has no column {brief(name)!a}; {did_you_mean(name, self.names)}")

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Read columns of numbers, true and false, or texts as (rows, features): a column of 0 and 1 for each text."""
        columns: list[NDArray[Any]] = []
        for name in names:
            columns += [self.number(name)] if not self._has_texts(name) else self._one_hot(name)
            if len(columns) * self._table.num_rows > MOST_NUMBERS:
                raise DataError(f"{self.where}: its rows become more than {MOST_NUMBERS:,} numbers, the most allowed")
        return np.column_stack(columns)

    def number(self, name: str) -> NDArray[np.float64]:
        """Read a column of numbers."""
        import pyarrow as pa  # noqa: PLC0415

        column = self._column(name)
        kind = column.type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            raise self._error(name, f"has values of type {kind}; it must have numbers")
        values: NDArray[np.float64] = column.to_numpy(zero_copy_only=False).astype(np.float64)
        if not np.isfinite(values).all():
            row = int((~np.isfinite(values)).argmax())
            raise self._error(name, f"is {values[row]:g}", row)
        return values

    def classes(self, name: str) -> NDArray[np.int64]:
        """Read a column as class numbers: texts, integers, or true and false, in their order."""
        import pyarrow as pa  # noqa: PLC0415

        column = self._column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):
            raise self._error(name, 'has numbers with a fraction; to predict them, set task = "regression"')
        if not (_is_text(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
            raise self._error(name, f"has values of type {column.type}; it must have texts or integers")
        known, numbers = np.unique(
            column.to_numpy(zero_copy_only=False).astype(_numpy_kind(column)), return_inverse=True
        )
        if len(known) > MOST_TEXTS:
            advice = 'set task = "regression" to predict numbers'
            raise self._error(
                name, f"has {len(known):,} different values, at most {MOST_TEXTS:,} are classes; {advice}"
            )
        return numbers.reshape(-1).astype(np.int64)

    def is_test(self, name: str) -> NDArray[np.bool_]:
        """Read the column that says ``train`` or ``test``."""
        values = np.array([str(value) for value in self._column(name).to_pylist()])
        odd = ~np.isin(values, ["train", "test"])
        if odd.any():
            raise self._error(
                name, f'is {brief(str(values[odd.argmax()]))!a}; it must be "train" or "test"', int(odd.argmax())
            )
        return np.asarray(values == "test")

    def _column(self, name: str) -> Any:
        """A column as one array without missing values."""
        column = self._table.column(name)
        if column.null_count:
            row = int(column.is_null().to_numpy().argmax())
            raise self._error(
                name, f"is missing in {column.null_count:,} rows; fill it in, or leave it out by drop", row
            )
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

    def _has_texts(self, name: str) -> bool:
        return _is_text(self._table.schema.field(name).type)

    def _one_hot(self, name: str) -> list[NDArray[Any]]:
        column = self._column(name)
        column = column if hasattr(column, "dictionary") else column.dictionary_encode()
        texts = column.dictionary.to_pylist()
        if len(texts) > MOST_TEXTS:
            advice = "leave it out by drop"
            raise self._error(name, f"has {len(texts):,} different texts, at most {MOST_TEXTS:,} are allowed; {advice}")
        odd = [text for text in texts if not _is_number(text)]
        if 0 < len(odd) <= len(texts) // 2:  # a slip, rather than a column of words
            row = column.to_pylist().index(odd[0])
            raise self._error(name, f"is {brief(odd[0])!a}, where most others are numbers", row)
        numbers = column.indices.to_numpy(zero_copy_only=False)
        ordered = sorted(range(len(texts)), key=texts.__getitem__)
        return [(numbers == index).astype(np.float64) for index in ordered if (numbers == index).any()]

    def _error(self, name: str, what: str, row: int | None = None) -> DataError:
        there = "" if row is None else f", row {row + 1}"
        return DataError(f"{self.where}: column {brief(name)!a}{there} {what}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numpy_kind(column: Any) -> type:
    return str if _is_text(column.type) else np.int64
