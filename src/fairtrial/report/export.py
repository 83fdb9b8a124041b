"""Every epoch record of a study, for other programs: CSV, Parquet, JSON."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import fairtrial
from fairtrial.errors import ReportError
from fairtrial.report.files import write_document
from fairtrial.spec import METRICS, Study
from fairtrial.stats.joined import join
from fairtrial.trial import TrialResult

Format = Literal["csv", "parquet", "json"]

#: Columns of every export, before the metrics and after them.
HEAD = ("study", "hash", "arm", "seed", "epoch")
TAIL = ("outcome",)

Row = dict[str, Any]


def export(study: Study, results: Sequence[TrialResult], format: Format, path: Path | None = None) -> bytes:  # noqa: A002
    """Write every epoch record, one row each: by arm in the study's order, then by seed and epoch.

    The columns are study, hash, arm, seed, epoch, each metric that was recorded, and the outcome of the record's trial
    (nothing for a trial that was interrupted or still runs). Losses are in nats, accuracies fractions, times seconds.

    | format | missing metric | NaN | infinite |
    |---|---|---|---|
    | csv, UTF-8 | empty | ``nan`` | ``inf``, ``-inf`` |
    | json, a list of objects | null | null | null |
    | parquet | null | NaN | infinity |

    A Parquet file's schema also has the study as TOML (``fairtrial.study``) and the version of fairtrial
    (``fairtrial.version``).

    With a path, the content is also written to that file, whole or not at all.

    Raises:
        ReportError: there is no such format, or the file can't be written.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    if format not in get_args(Format):
        raise ReportError(f'export format "{format}": must be one of {", ".join(get_args(Format))}')
    trials = list(join(study, results).values())
    metrics = _metrics(trials)
    columns = [*HEAD, *metrics.values(), *TAIL]
    rows = [row for trial in trials for row in _rows(study, trial, metrics)]
    if format == "parquet":
        content = _parquet(columns, rows, study)
    else:
        content = (_csv(columns, rows) if format == "csv" else _json(rows)).encode()
    if path is not None:
        write_document(path, content)
    return content


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


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    out = StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _json(rows: Sequence[Row]) -> str:
    finite = [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in rows
    ]
    return json.dumps(finite, indent=1, allow_nan=False) + "\n"


def _parquet(columns: Sequence[str], rows: Sequence[Row], study: Study) -> bytes:
    import pyarrow as pa  # noqa: PLC0415  (slow to load, and needed for this format alone)
    import pyarrow.parquet as pq  # noqa: PLC0415

    types = dict.fromkeys(("study", "hash", "arm", "outcome"), pa.string()) | {"seed": pa.int64(), "epoch": pa.int64()}
    metadata = {"fairtrial.study": study.to_toml(), "fairtrial.version": fairtrial.__version__}
    schema = pa.schema([(column, types.get(column, pa.float64())) for column in columns], metadata=metadata)
    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), out)
    return out.getvalue()
