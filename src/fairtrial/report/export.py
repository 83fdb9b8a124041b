"""Every epoch record, trial or snapshot of a study, for other programs: CSV, Parquet, JSON."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import fairtrial
from fairtrial.errors import ReportError
from fairtrial.report.csv_text import csv_text
from fairtrial.report.files import write_document
from fairtrial.report.snapshot_rows import snapshot_rows
from fairtrial.report.trials import Row, plain, trial_rows
from fairtrial.spec import METRICS, Study
from fairtrial.stats.joined import join
from fairtrial.trial import TrialResult

if TYPE_CHECKING:
    import pandas as pd

Format = Literal["csv", "parquet", "json"]
Rows = Literal["epochs", "trials", "snapshots"]

#: Columns of every export, before the metrics and after them.
HEAD = ("study", "hash", "arm", "seed", "epoch")
TAIL = ("outcome",)


def export(
    study: Study,
    results: Sequence[TrialResult],
    format: Format,  # noqa: A002
    path: Path | None = None,
    rows: Rows = "epochs",
) -> bytes:
    """Write every epoch record, one row each: by arm in the study's order, then by seed and epoch.

    With ``rows="trials"``, write every trial that has started, with its outcome, traceback, settings, machine and code;
    see `fairtrial.report.trials.trial_rows`. With ``rows="snapshots"``, write every snapshot that the results hold; see
    `fairtrial.report.snapshot_rows.snapshot_rows`.

    The columns are study, hash, arm, seed, epoch, each metric that was recorded, and the outcome of the record's trial
    (nothing for a trial that was interrupted or still runs). Losses are in nats, accuracies fractions, times seconds.

    | format | missing metric | NaN | infinite |
    |---|---|---|---|
    | csv, UTF-8 | empty | ``nan`` | ``inf``, ``-inf`` |
    | json, a list of objects | null | null | null |
    | parquet | null | NaN | infinity |

    A Parquet file's schema also has the study as TOML (``fairtrial.study``) and the version of fairtrial
    (``fairtrial.version``). CSV marks texts that a spreadsheet would take for formulas; see `report.csv_text`.

    With a path, the content is also written to that file, whole or not at all.

    Raises:
        ReportError: there is no such format, there are no such rows, or the file can't be written.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    if format not in get_args(Format):
        raise ReportError(f'export format "{format}": must be one of {", ".join(get_args(Format))}')
    if rows not in get_args(Rows):
        raise ReportError(f'rows = "{rows}": must be one of {", ".join(get_args(Rows))}')
    if rows == "epochs":
        columns, table = _epochs(study, results)
    elif rows == "trials":
        columns, table = _trials(study, results, nested=format == "json")
    else:
        columns, table = snapshot_rows(study, results)
    if format == "parquet":
        content = _parquet(columns, table, study)
    elif format == "csv":
        content = csv_text(columns, ([row[column] for column in columns] for row in table)).encode()
    else:
        content = rows_json(table).encode()
    if path is not None:
        write_document(path, content)
    return content


def _epochs(study: Study, results: Sequence[TrialResult]) -> tuple[list[str], list[Row]]:
    trials = list(join(study, results).values())
    metrics = _metrics(trials)
    return [*HEAD, *metrics.values(), *TAIL], [row for trial in trials for row in _rows(study, trial, metrics)]


def _trials(study: Study, results: Sequence[TrialResult], *, nested: bool) -> tuple[list[str], list[Row]]:
    rows = trial_rows(study, results)
    return list(rows[0]) if rows else [], rows if nested else plain(rows)


def _metrics(trials: Sequence[TrialResult]) -> dict[str, str]:
    """Name the column of each recorded metric: fairtrial's own first, then the user's, sorted.

    A metric with the name of another column becomes ``metrics.NAME``.
    """
    recorded = {name for trial in trials for record in trial.epochs for name in record.metrics}
    ordered = [name for name in METRICS if name in recorded] + sorted(recorded.difference(METRICS))
    return {name: f"metrics.{name}" if name in {*HEAD, *TAIL} else name for name in ordered}


def _rows(study: Study, trial: TrialResult, metrics: Mapping[str, str]) -> list[Row]:
    head: Row = {"study": study.name, "hash": study.hash, "arm": trial.arm, "seed": trial.seed}
    tail: Row = {"outcome": None if trial.outcome is None else trial.outcome.value}
    rows = []
    for record in sorted(trial.epochs, key=lambda record: record.epoch):
        values = {metrics[name]: float(value) for name, value in record.metrics.items()}
        rows.append({**head, "epoch": record.epoch, **dict.fromkeys(metrics.values()), **values, **tail})
    return rows


def rows_json(rows: Sequence[Row]) -> str:
    """Write rows as a JSON list of objects, with null for numbers that are not finite."""
    return json.dumps(_finite(rows), indent=1, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Write null for what JSON has no number for, also within lists and tables."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _arrow_type(values: Sequence[object]) -> str:
    """Name the type of a column; one without any value, such as a metric that no trial finished with, is of numbers."""
    kinds = {type(value) for value in values if value is not None}
    return {frozenset({str}): "string", frozenset({bool}): "bool", frozenset({int}): "int64"}.get(
        frozenset(kinds), "double"
    )


def _parquet(columns: Sequence[str], rows: Sequence[Row], study: Study) -> bytes:
    import pyarrow as pa  # noqa: PLC0415  (slow to load, and needed for this format alone)
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = {column: _arrow_type([row[column] for row in rows]) for column in columns}
    types |= dict.fromkeys(("study", "hash", "arm", "outcome"), "string") | {"seed": "int64", "epoch": "int64"}
    types |= {"step": "int64"} if "scope" in columns else {}  # of snapshots, whose texts may all be missing
    metadata = {"fairtrial.study": study.to_toml(), "fairtrial.version": fairtrial.__version__}
    schema = pa.schema([(column, types[column]) for column in columns], metadata=metadata)
    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()


def data_frame(write: Callable[[], bytes]) -> "pd.DataFrame":
    """Make a data frame of what a function writes as Parquet; a ReportError if pandas is not installed."""
    try:
        import pandas as pd  # noqa: PLC0415  (optional)
    except ImportError as error:
        raise ReportError("to_pandas needs pandas: pip install pandas") from error
    return pd.read_parquet(BytesIO(write()))
