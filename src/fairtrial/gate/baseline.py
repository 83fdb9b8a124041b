"""Stored baselines: the runs of one arm in a Parquet file, with its study, and what they ran on.

The table is that of ``fairtrial export --format parquet``: a row for each epoch. All else is JSON in the file's
metadata, so that a reader needs numbers from the table alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

import fairtrial
from fairtrial.digests import digest_results
from fairtrial.errors import FairtrialError
from fairtrial.files import read_bounded
from fairtrial.report.export import HEAD, TAIL, export
from fairtrial.report.files import write_document
from fairtrial.spec import Study, digest, parse_toml
from fairtrial.spec.messages import brief
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult

if TYPE_CHECKING:
    import pyarrow as pa

#: Raise it when the file's layout changes.
FORMAT = 1

#: The largest file that is read, and the most numbers in its table.
MOST_BYTES, MOST_NUMBERS = 256 * 2**20, 20_000_000

_METADATA = b"fairtrial.baseline"


class BaselineError(FairtrialError):
    """A baseline can't be read, or can't be compared with."""


@dataclass(frozen=True)
class Run:
    """One trial of a baseline, but for its records."""

    trial: str
    seed: int
    outcome: Outcome
    detail: str
    started: datetime
    ended: datetime
    machine: Machine
    fingerprints: Mapping[str, str]


@dataclass(frozen=True)
class Head:
    """What a baseline's metadata say.

    Attributes:
        format: see `FORMAT`.
        fairtrial: the version that wrote it.
        study: the study as TOML, every default written out.
        arm: the arm's name.
        saved: when it was saved, in UTC.
        digest: SHA-256 of the study, the runs and their records.
        runs: its trials.
    """

    format: int
    fairtrial: str
    study: str
    arm: str
    saved: datetime
    digest: str
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Baseline:
    """The runs of a baseline, seeds from 0, in order."""

    path: Path
    head: Head
    results: tuple[TrialResult, ...]

    @property
    def table(self) -> dict[str, Any]:
        """Its study."""
        return dict(parse_toml(self.head.study))


_HEAD = TypeAdapter(Head)


def write_baseline(path: Path, study: Study, results: Sequence[TrialResult]) -> Baseline:
    """Write the trials of a study with one arm, which have all ended, to a file."""
    import pyarrow.parquet as pq  # noqa: PLC0415  (slow to load)

    keys = [*Run.__dataclass_fields__]
    runs = tuple(Run(**{key: getattr(result, key) for key in keys}) for result in results)
    toml, now = study.to_toml(), datetime.now(UTC)
    head = Head(FORMAT, fairtrial.__version__, toml, study.reference, now, _digest(toml, runs, results), runs)
    table = pq.read_table(BytesIO(export(study, results, "parquet")))
    metadata = {**(table.schema.metadata or {}), _METADATA: _HEAD.dump_json(head)}
    out = BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), out)
    write_document(path, out.getvalue())
    return Baseline(path, head, tuple(results))


def read_baseline(path: Path) -> Baseline:
    """Read a baseline.

    Raises:
        BaselineError: it is missing, too large, damaged, no baseline, or of another format.
    """
    import pyarrow as pa  # noqa: PLC0415  (slow to load)
    import pyarrow.parquet as pq  # noqa: PLC0415

    try:
        file = pq.ParquetFile(BytesIO(read_bounded(path, MOST_BYTES)))
        head = _read_head(path, file.schema_arrow)
        names = [name for name in file.schema_arrow.names if name not in {"study", "hash", "arm", *TAIL}]
        if file.metadata.num_rows * len(names) > MOST_NUMBERS:
            raise BaselineError(f"{path}: has more than {MOST_NUMBERS:,} numbers, the most that is read")
        if not all(
            pa.types.is_floating(kind) or pa.types.is_integer(kind) for kind in _types(file.schema_arrow, names)
        ):
            raise BaselineError(f"{path}: is damaged: its records are no numbers")
        rows = file.read(names).to_pylist()
    except OSError as error:
        raise BaselineError(f"{path}: can't be read: {brief(error.strerror or str(error))}") from error
    except pa.ArrowException as error:
        first = str(error).partition("\n")[0]
        raise BaselineError(f"{path}: is no Parquet file, or damaged: {brief(first)}") from error
    results = tuple(_results(head, rows))
    seeds = [result.seed for result in results]
    if _digest(head.study, head.runs, results) != head.digest or seeds != list(range(len(seeds))):
        raise BaselineError(f"{path}: is damaged or was edited: its runs are not those that were saved")
    return Baseline(path, head, results)


def _types(schema: "pa.Schema", names: Sequence[str]) -> Iterator["pa.DataType"]:
    return (schema.field(name).type for name in names)


def _read_head(path: Path, schema: "pa.Schema") -> Head:
    content = (schema.metadata or {}).get(_METADATA)
    if content is None:
        raise BaselineError(f"{path}: is no baseline; fairtrial gate STUDY --save FILE writes one")
    try:
        table = json.loads(content)
        if isinstance(table, dict) and table.get("format") not in {FORMAT, None}:
            raise BaselineError(f"{path}: was written by another release of fairtrial; save it again with this one")
        return _HEAD.validate_python(_HEAD.validate_json(content))
    except (ValidationError, ValueError, RecursionError) as error:
        raise BaselineError(f"{path}: is damaged: its metadata are not those of a baseline") from error


def _results(head: Head, rows: Sequence[Mapping[str, Any]]) -> Iterator[TrialResult]:
    """Join the trials with their records."""
    records: dict[int, list[EpochRecord]] = {}
    for row in rows:
        values = {_metric(name): value for name, value in row.items() if name not in {"seed", "epoch"}}
        metrics = {name: float(value) for name, value in values.items() if value is not None}
        records.setdefault(row["seed"], []).append(EpochRecord(head.arm, row["seed"], row["epoch"], metrics))
    for run in sorted(head.runs, key=lambda one: one.seed):
        epochs = sorted(records.get(run.seed, ()), key=lambda record: record.epoch)
        fields = {name: getattr(run, name) for name in Run.__dataclass_fields__}
        yield TrialResult(arm=head.arm, epochs=tuple(epochs), **fields)


def _metric(column: str) -> str:
    """The name of the metric in a column; see `report.export`."""
    bare = column.removeprefix("metrics.")
    return bare if bare in {*HEAD, *TAIL} else column


def _digest(toml: str, runs: Sequence[Run], results: Sequence[TrialResult]) -> str:
    told = [asdict(run) | {"started": run.started.isoformat(), "ended": run.ended.isoformat()} for run in runs]
    return digest({"study": toml, "runs": told, "records": digest_results(results)})


def under_study(baseline: Baseline, study: Study, trials: Mapping[int, str]) -> tuple[TrialResult, ...]:
    """The runs as those of a gate's reference, whose trials have these hashes by seed; seeds beyond it are left out."""
    arm = study.reference
    return tuple(
        replace(
            result, arm=arm, trial=trials[result.seed], epochs=tuple(replace(one, arm=arm) for one in result.epochs)
        )
        for result in baseline.results
        if result.seed in trials
    )
