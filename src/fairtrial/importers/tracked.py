"""Make a `Source` of runs that a tracker or a logger keeps one by one: settings, labels, and metrics by step."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from fairtrial.errors import RunsError
from fairtrial.importers.base import Source
from fairtrial.spec.messages import brief, show

if TYPE_CHECKING:
    import pyarrow as pa

#: Values of metrics, by step and name.
Steps: TypeAlias = Mapping[int, Mapping[str, float]]

#: Runs of one source, and columns of all of them together.
MOST_RUNS, MOST_COLUMNS = 100_000, 20_000
#: Characters of a setting that is a list or a table.
_LONGEST = 1_000
#: The type of a run in which fairtrial itself notes a study's verdicts for W&B: no run of anything.
SUMMARY = "fairtrial verdicts"
#: Rows of a batch.
_ROWS = 2**15


@dataclass(frozen=True)
class Run:
    """One run of a tracker.

    Attributes:
        name: tells it apart from the others of its source.
        metrics: the names of what it logged.
        read: gives the values of the named metrics, by step; called when they are needed, and again.
        settings: its settings, which may be nested.
        labels: what else is known of it, such as its group.
        status: how it ended, as in `Source`.
    """

    name: str
    metrics: Collection[str]
    read: Callable[[Collection[str]], Steps]
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    status: str | None = None


def source_of(name: str, runs: Sequence[Run], *, epoch: str = "step", notes: Iterable[str] = ()) -> Source:
    """Make a source of runs: columns for run, status and step, then for labels, settings and metrics.

    Where two have the same name, the metric keeps it; a setting is then ``config.NAME``, a label ``run.NAME``. A run
    has a row for each step that has one of the metrics that are asked for, and one without numbers if no step has.

    Raises:
        RunsError: there are no runs, or too many.
    """
    if not runs:
        raise RunsError(f"{brief(name, 200)}: has no runs")
    if len(runs) > MOST_RUNS:
        raise RunsError(f"{brief(name, 200)}: has {len(runs):,} runs; at most {MOST_RUNS:,} are read")
    flat = [flatten(run.settings) for run in runs]
    has_status = any(run.status for run in runs)
    columns: dict[str, tuple[str, str]] = {"run": ("own", "run"), epoch: ("own", "step")}
    if has_status:
        columns["status"] = ("own", "status")
    for kind, prefix, keys in (
        ("metric", "metric.", [run.metrics for run in runs]),
        ("setting", "config.", flat),
        ("label", "run.", [run.labels for run in runs]),
    ):
        for key in dict.fromkeys(key for some in keys for key in some):
            columns[_free(storable(key), prefix, columns)] = (kind, key)
            if len(columns) > MOST_COLUMNS:
                raise RunsError(f"{brief(name, 200)}: has more than {MOST_COLUMNS:,} settings and metrics")
    return Source(
        name=name,
        columns=tuple(columns),
        read=lambda wanted: _read([(column, *columns[column]) for column in wanted], runs, flat),
        run="run",
        epoch=epoch,
        status="status" if has_status else None,
        settings=tuple(column for column, (kind, _) in columns.items() if kind == "setting"),
        notes=tuple(notes),
    )


def note_on_repeats(repeated: Collection[str]) -> list[str]:
    """Say which metrics have several values at one step; no sentence if none has."""
    if not repeated:
        return []
    shown = ", ".join(show(name)[1:-1] for name in sorted(repeated)[:3]) + (", ..." if len(repeated) > 3 else "")
    was = "was" if len(repeated) == 1 else "were"
    return [f"{shown} {was} logged more than once at a step; the last value counts."]


def merge(known: dict[str, float], values: Mapping[str, float]) -> set[str]:
    """Add a step's values to those known of it; return the names that had another value.

    Example:
        >>> merge({"loss": 1.0, "acc": 0.5}, {"acc": 0.6, "epoch": 1.0})
        {'acc'}
    """
    changed = {
        name
        for name, value in values.items()
        if name in known and known[name] != value and not _both_nan(known[name], value)
    }
    known.update(values)
    return changed


def _both_nan(one: float, other: float) -> bool:
    return math.isnan(one) and math.isnan(other)


def number(text: object) -> float | None:
    """Read a number as loggers write it, or None if it is none.

    Example:
        >>> number("0.5"), number("NaN"), number(True), number("a")
        (0.5, nan, 1.0, None)
    """
    if not isinstance(text, str | float | int):
        return None
    try:
        return float(text)
    except (ValueError, OverflowError):
        return None


def step_of(text: object) -> int | None:
    """Read a step: a whole number."""
    value = number(text)
    return int(value) if value is not None and math.isfinite(value) and abs(value) < 2**63 else None


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write nested settings under dotted names, and lists as JSON.

    Example:
        >>> flatten({"model": {"layers": 2, "sizes": [8, 8]}, "seed": 0})
        {'model.layers': 2, 'model.sizes': '[8, 8]', 'seed': 0}
    """
    flat: dict[str, Any] = {}

    def add(prefix: str, table: Mapping[Any, Any], depth: int) -> None:
        for key, value in table.items():
            if len(flat) > MOST_COLUMNS:  # aliases of YAML can make a small file endless
                return
            name = f"{prefix}{key}"
            if isinstance(value, Mapping) and value and depth:
                add(f"{name}.", value, depth - 1)
            else:
                flat[name] = text_of(value)

    add("", settings, 8)
    return flat


def storable(text: str) -> str:
    """Replace what UTF-8 can't hold, such as Python's marks in names of files that are not UTF-8."""
    return text.encode("utf-8", "replace").decode()


def text_of(value: object) -> object:
    """Write a list or a table of a setting as JSON, of bounded length; leave numbers and text."""
    if value is None or isinstance(value, str | int | float):
        return value
    written = ""
    try:
        for part in json.JSONEncoder(default=str).iterencode(value):
            written += part
            if len(written) > _LONGEST:
                break
    except (ValueError, RecursionError):  # it contains itself
        return "..."
    return written if len(written) <= _LONGEST else f"{written[:_LONGEST]}..."


def _free(key: str, prefix: str, taken: Collection[str]) -> str:
    while key in taken:
        key = prefix + key
    return key


def _read(
    wanted: Sequence[tuple[str, str, str]], runs: Sequence[Run], flat: Sequence[Mapping[str, Any]]
) -> "Iterator[pa.RecordBatch]":
    """Stream columns, each given by its name, its kind and the key that it has there."""
    metrics = [key for _, kind, key in wanted if kind == "metric"]
    rows: list[list[Any]] = []
    for run, settings in zip(runs, flat, strict=True):
        values: dict[str, Mapping[str, Any]] = {
            "own": {"run": run.name, "status": run.status},
            "setting": settings,
            "label": run.labels,
        }
        fixed = [None if kind == "metric" else _cell(values[kind].get(key)) for _, kind, key in wanted]
        own = set(run.metrics).intersection(metrics)
        steps = run.read(own) if own else {}
        rows.extend(_rows(wanted, fixed, steps))
        if len(rows) >= _ROWS:
            yield _batch(wanted, rows)
            rows = []
    yield _batch(wanted, rows)


def _rows(wanted: Sequence[tuple[str, str, str]], fixed: list[Any], steps: Steps) -> Iterator[list[Any]]:
    if not steps:
        yield fixed
    changing = [
        index for index, (_, kind, key) in enumerate(wanted) if kind == "metric" or (kind, key) == ("own", "step")
    ]
    for step in sorted(steps):
        row = list(fixed)
        for index in changing:
            _, kind, key = wanted[index]
            row[index] = step if kind == "own" else steps[step].get(key)
        yield row


def _cell(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return storable(value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _batch(wanted: Sequence[tuple[str, str, str]], rows: list[list[Any]]) -> "pa.RecordBatch":
    import pyarrow as pa  # noqa: PLC0415

    types = {"metric": pa.float64(), "step": pa.int64()}
    by_column = zip(*rows, strict=True) if rows else [()] * len(wanted)
    arrays = [
        pa.array(list(cells), types.get("step" if (kind, key) == ("own", "step") else kind, pa.string()))
        for cells, (_, kind, key) in zip(by_column, wanted, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, [column for column, _, _ in wanted])
