"""Tables: CSV, Parquet and JSON lines files, and data frames. Files are streamed, and only columns that are needed."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairtrial.errors import RunsError
from fairtrial.files import open_regular
from fairtrial.importers.base import Given, Importer, Source, path_of
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief, show

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes that are read at once; no line may be longer.
_BLOCK = 2**22
#: Rows of one batch of a file that is not read by bytes.
_ROWS = 2**15
#: Columns of a table, and rows of the first ones of JSON lines in which columns are looked for.
MOST_COLUMNS = 20_000

_CSV, _PARQUET, _JSON = (".csv", ".tsv", ".txt"), (".parquet", ".pq"), (".jsonl", ".ndjson")
_PACKED = (".gz", ".bz2", ".zst")


def is_table(given: Given) -> bool:
    """Tell whether it is a file whose name says that it is a table, or a data frame."""
    return _suffix(given) in {*_CSV, *_PARQUET, *_JSON} or _is_frame(given)


def open_table(given: Given) -> Source:
    """Open a table, by the end of its name or as a data frame."""
    if _is_frame(given):
        return _open_frame(given)
    path, suffix = Path(given), _suffix(given)
    with open_regular(path, follow=True):  # neither a pipe nor a folder
        pass
    with _readable(path):
        if suffix in _PARQUET:
            return _open_parquet(path)
        return _open_json_lines(path) if suffix in _JSON else _open_csv(path)


def _suffix(given: Given) -> str:
    """The end of a path's name, without that of a compressed file."""
    path = path_of(given)
    suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _is_frame(given: Given) -> bool:
    return not isinstance(given, str | Path) and hasattr(given, "columns") and hasattr(given, "__len__")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Word Arrow's errors about a file in one line."""
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield
    except UnicodeEncodeError as error:
        raise RunsError(f"{brief(str(path), 200)}: its name is not UTF-8; rename it") from error
    except (pa.ArrowException, EOFError) as error:
        raise RunsError(f"{brief(str(path), 200)}: {_reason(str(error))}") from error
    except OSError as error:
        raise RunsError(f"{brief(str(path), 200)}: {error.strerror or _reason(str(error))}") from error


def _reason(text: str) -> str:
    if "straddling" in text:
        return f"has a line of more than {_BLOCK // 2**20} MiB; is a quotation mark left open?"
    if "UTF8" in text or "UTF-8" in text:
        return "is not UTF-8 text; save it as UTF-8"
    if "Empty CSV" in text:
        return "is empty"
    return brief(" ".join(text.split()), 200)


def _open_csv(path: Path) -> Source:
    delimiter = _delimiter(path)
    with _csv_reader(path, delimiter) as reader:
        names = reader.schema.names
    return Source(path.name, _columns(path, names), lambda columns: _read_csv(path, delimiter, columns), first_row=2)


def _delimiter(path: Path) -> str:
    """The one of , ; and tab that is most frequent in the first line, outside quotation marks."""
    import pyarrow as pa  # noqa: PLC0415

    with pa.input_stream(str(path), compression="detect") as stream:
        head = stream.read(2**16)
    unquoted = b"".join(head.splitlines()[0].split(b'"')[::2]) if head.strip() else b""
    return max(",;\t", key=lambda one: unquoted.count(one.encode()))


def _csv_reader(path: Path, delimiter: str, columns: Sequence[str] | None = None) -> Any:
    """Open a CSV file whose cells are text, however they look: a number of one block may be a word in the next."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import csv  # noqa: PLC0415

    convert = csv.ConvertOptions(
        strings_can_be_null=True,
        null_values=[""],
        include_columns=None if columns is None else list(columns),
        column_types=None if columns is None else dict.fromkeys(columns, pa.string()),
    )
    return csv.open_csv(
        pa.input_stream(str(path), compression="detect"),
        csv.ReadOptions(block_size=_BLOCK, use_threads=False),
        csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert,
    )


def _read_csv(path: Path, delimiter: str, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    with _readable(path), _csv_reader(path, delimiter, columns) as reader:
        yield from reader


def _open_parquet(path: Path) -> Source:
    from pyarrow import parquet  # noqa: PLC0415

    with parquet.ParquetFile(path) as file:
        names = [file.schema_arrow.field(index).name for index in range(len(file.schema_arrow))]
    return Source(path.name, _columns(path, names), lambda columns: _read_parquet(path, columns))


def _read_parquet(path: Path, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    from pyarrow import parquet  # noqa: PLC0415

    with _readable(path), parquet.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(_ROWS, columns=list(columns)):
            yield batch.select(list(columns))


def _open_json_lines(path: Path) -> Source:
    names: dict[str, None] = {}
    for _, row in zip(range(_ROWS), _json_rows(path), strict=False):
        names.update(dict.fromkeys(row))
        if len(names) > MOST_COLUMNS:
            break
    return Source(path.name, _columns(path, list(names)), lambda columns: _read_json_lines(path, columns))


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, one a line, those within them under dotted names."""
    import pyarrow as pa  # noqa: PLC0415

    with _readable(path), pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(_lines(stream), 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise RunsError(f"{brief(path.name, 200)}: line {number:,} is no JSON") from error
            if not isinstance(row, dict):
                raise RunsError(f"{brief(path.name, 200)}: line {number:,} is no JSON object, such as {{...}}")
            yield _flat(row)


def _lines(stream: Any) -> Iterator[bytes]:
    """Split a stream into lines of at most a block."""
    rest = b""
    while block := stream.read(_BLOCK):
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if len(rest) > _BLOCK:
            raise EOFError("straddling")
    yield rest


def _flat(row: dict[str, Any], prefix: str = "", depth: int = 4) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict) and depth:
            flat |= _flat(value, f"{prefix}{key}.", depth - 1)
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _read_json_lines(path: Path, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    cells: list[list[str | None]] = []
    for row in _json_rows(path):
        cells.append([_text(row.get(column)) for column in columns])
        if len(cells) == _ROWS:
            yield _batch(cells, columns)
            cells = []
    yield _batch(cells, columns)


def _text(value: object) -> str | None:
    """Write a cell as text; `Infinity` and `NaN` of JSON are Python's."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float | int) and not isinstance(value, bool):
        return repr(value)
    return json.dumps(value)


def _batch(cells: list[list[str | None]], columns: Sequence[str]) -> "pa.RecordBatch":
    import pyarrow as pa  # noqa: PLC0415

    by_column = zip(*cells, strict=True) if cells else ((),) * len(columns)
    return pa.RecordBatch.from_arrays([pa.array(list(column), pa.string()) for column in by_column], list(columns))


def _open_frame(frame: Any) -> Source:
    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame  # Arrow's and Polars's
    names = [str(name) for name in frame.columns]
    return Source("the data frame", _columns(Path("the data frame"), names), _frame_reader(frame), first_row=1)


def _frame_reader(frame: Any) -> "Callable[[Sequence[str]], Iterator[pa.RecordBatch]]":
    import pyarrow as pa  # noqa: PLC0415

    def array(column: Any) -> Any:
        try:
            made = pa.array(column, from_pandas=True)
            return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # numbers and text in one column
            return pa.array([None if cell is None or cell != cell else str(cell) for cell in column], pa.string())  # noqa: PLR0124

    def read(columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        names = [str(name) for name in frame.columns]
        for first in range(0, len(frame), _ROWS):
            part = frame[first : first + _ROWS]
            arrays = [array(part.iloc[:, names.index(column)]) for column in columns]
            yield pa.RecordBatch.from_arrays(arrays, list(columns))

    return read


def _columns(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Check the names of a table's columns."""
    where = brief(str(path), 200)
    if not names or not any(name.strip() for name in names):
        raise RunsError(f"{where}: has no columns")
    if len(names) > MOST_COLUMNS:
        raise RunsError(f"{where}: has {len(names):,} columns; at most {MOST_COLUMNS:,} are read")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise RunsError(f"{where}: has two columns {show(name)}; rename one")
        seen.add(name)
    return tuple(names)


IMPORTERS.register("table")(
    Importer(
        "a CSV, Parquet or JSON lines file (.csv, .tsv, .parquet, .jsonl), or a data frame",
        is_table,
        open_table,
        general=True,
    )
)
