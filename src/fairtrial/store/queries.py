"""From rows of the database to what the package speaks of, for many rows at a time, and back."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Column, ColumnElement, Connection, Row, Select, Text, cast, select

from fairtrial.spec import METRICS, content
from fairtrial.store import schema
from fairtrial.store.base import StoredStudy
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialResult

#: Most rows that a statement names by hash: SQLite allows 32,766 parameters a statement, older releases 999.
CHUNK = 500

_NO_JSON = {None, "null"}  # the first release wrote the word where there was nothing


def chunks(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a list into pieces that a statement can name."""
    return (hashes[start : start + CHUNK] for start in range(0, len(hashes), CHUNK))


def results_of_study(connection: Connection, study: str) -> list[TrialResult]:
    """Read the trials of a study that have begun, in the order of its plan, by the study's hash."""
    links = schema.study_trials.c
    planned = links.study == study
    trials = _TRIALS.join(schema.study_trials, links.trial == schema.trials.c.hash).where(planned)
    epochs = _EPOCHS.join(schema.study_trials, links.trial == schema.epoch_records.c.trial).where(planned)
    return _results(connection.execute(trials.order_by(links.position)).all(), _records(connection, epochs))


def results_of_trials(connection: Connection, hashes: Sequence[str]) -> list[TrialResult]:
    """Read the trials that have begun among these, in this order."""
    trials: dict[str, Row[Any]] = {}
    epochs: dict[str, list[Sequence[Any]]] = {}
    for some in chunks(hashes):
        rows = connection.execute(_TRIALS.where(schema.trials.c.hash.in_(some)))
        trials |= {row.hash: row for row in rows}
        epochs |= _records(connection, _EPOCHS.where(schema.epoch_records.c.trial.in_(some)))
    return _results([trials[one] for one in hashes if one in trials], epochs)


def trial_row(trial: Trial) -> dict[str, Any]:
    """Write a trial that has not begun."""
    settings = content(trial.settings)
    return {"hash": trial.hash, "arm": trial.arm, "seed": trial.seed, "settings": settings, "attempts": 0, "detail": ""}


def epoch_row(trial: Trial, attempt: int, record: EpochRecord) -> dict[str, Any]:
    """Write an epoch record: the usual metrics in columns of their own, the others as JSON.

    JSON has no NaN and no infinity, so these are text there. NaN is always there: SQLite's columns take it for NULL.
    """
    row: dict[str, Any] = dict.fromkeys(METRICS)
    extra: dict[str, float | str] = {}
    for name, value in record.metrics.items():
        if name in row and not math.isnan(value):
            row[name] = value
        else:
            extra[name] = value if math.isfinite(value) else str(value)
    return row | {"trial": trial.hash, "epoch": record.epoch, "attempt": attempt, "extra": extra or None}


def storable(text: str) -> str:
    """Escape what databases refuse in a text: NUL (PostgreSQL), and halves of characters (which are not UTF-8)."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def stored_study(row: Row[Any], progress: Mapping[tuple[str | None, bool], int]) -> StoredStudy:
    """Build a study from its row and the number of its trials by outcome and whether they have begun."""
    return StoredStudy(
        name=row.name,
        hash=row.hash,
        toml=row.toml,
        last_run=row.last_run_at,
        trials=sum(progress.values()),
        outcomes={outcome: progress.get((outcome.value, True), 0) for outcome in Outcome},
        started=progress.get((None, True), 0),
        source=row.source,
        assignments=tuple(row.assignments or ()),
    )


def _plain(column: Column[Any]) -> ColumnElement[Any]:
    """Read JSON as the text that it is: most of it is not there, or the same in all rows."""
    return cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column


_TRIALS = select(*(_plain(column) for column in schema.trials.c if column.name != "settings")).where(
    schema.trials.c.attempts > 0
)
_EPOCHS = select(
    schema.epoch_records.c.trial,
    schema.epoch_records.c.epoch,
    _plain(schema.epoch_records.c.extra),
    *(schema.epoch_records.c[name] for name in METRICS),
).order_by(schema.epoch_records.c.trial, schema.epoch_records.c.epoch)


def _records(connection: Connection, epochs: Select[Any]) -> dict[str, list[Sequence[Any]]]:
    records: dict[str, list[Sequence[Any]]] = {}
    trial: str | None = None
    own: list[Sequence[Any]] = []
    for row in connection.execute(epochs).all():
        if row[0] != trial:
            trial, own = row[0], []
            records[trial] = own
        own.append(row)
    return records


def _results(trials: Iterable[Row[Any]], epochs: Mapping[str, Sequence[Sequence[Any]]]) -> list[TrialResult]:
    machines: dict[str, tuple[Machine, str]] = {}
    return [
        TrialResult(
            arm=row.arm,
            seed=row.seed,
            trial=row.hash,
            outcome=Outcome(row.outcome) if row.outcome else None,
            detail=row.detail,
            started=row.started_at,
            ended=row.ended_at,
            machine=(machines.get(row.machine) or machines.setdefault(row.machine, _machine(row.machine)))[0],
            forced=machines[row.machine][1],
            epochs=_epochs(row.arm, row.seed, epochs.get(row.hash, ())),
            fingerprints={} if row.fingerprints in _NO_JSON else json.loads(row.fingerprints),
        )
        for row in trials
    ]


def _machine(text: str) -> tuple[Machine, str]:
    table = json.loads(text)
    forced = table.pop("forced", "")
    return Machine(**table), forced


def _epochs(arm: str, seed: int, rows: Iterable[Sequence[Any]]) -> tuple[EpochRecord, ...]:
    return tuple(EpochRecord(arm, seed, row[1], _metrics(row[2], row[3:])) for row in rows)


def _metrics(extra: str | None, values: Sequence[float | None]) -> dict[str, float]:
    metrics = {name: value for name, value in zip(METRICS, values, strict=True) if value is not None}
    if extra is not None and extra not in _NO_JSON:
        metrics |= {name: float(value) for name, value in json.loads(extra).items()}
    return metrics
