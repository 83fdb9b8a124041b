"""Read trials and studies from rows of the database, many at a time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Column, ColumnElement, Connection, Row, Select, Text, cast, func, select

from fairtrial.store import schema
from fairtrial.store.base import StoredStudy
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult

#: Most rows that a statement names by hash: SQLite allows 32,766 parameters a statement, older releases 999.
CHUNK = 500


def all_studies(connection: Connection) -> list[StoredStudy]:
    """Read all studies with their progress, the one that ran last first."""
    progress: dict[str, dict[tuple[str | None, bool], int]] = {}
    for study, outcome, begun, trials in connection.execute(_COUNTS):
        progress.setdefault(study, {})[outcome, bool(begun)] = trials
    rows = connection.execute(select(schema.studies).order_by(schema.studies.c.last_run_at.desc()))
    return [_stored_study(row, progress.get(row.hash, {})) for row in rows]


def outcomes_of_trials(connection: Connection, hashes: Sequence[str]) -> dict[str, Outcome | None]:
    """Read how the known ones among these trials ended."""
    known: dict[str, Outcome | None] = {}
    for some in _chunks(hashes):
        found = select(schema.trials.c.hash, schema.trials.c.outcome).where(schema.trials.c.hash.in_(some))
        known |= {row.hash: Outcome(row.outcome) if row.outcome else None for row in connection.execute(found)}
    return known


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
    epochs: dict[str, _Records] = {}
    for some in _chunks(hashes):
        rows = connection.execute(_TRIALS.where(schema.trials.c.hash.in_(some)))
        trials |= {row.hash: row for row in rows}
        epochs |= _records(connection, _EPOCHS.where(schema.epoch_records.c.trial.in_(some)))
    return _results([trials[one] for one in hashes if one in trials], epochs)


def _chunks(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a list into pieces that a statement can name."""
    return (hashes[start : start + CHUNK] for start in range(0, len(hashes), CHUNK))


def _stored_study(row: Row[Any], progress: Mapping[tuple[str | None, bool], int]) -> StoredStudy:
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
    """Read JSON as the text that it is: much of it is the same in all rows, or decoded many rows at a time."""
    return cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column


_BEGUN = schema.trials.c.attempt.is_not(None)
_COUNTS = (
    select(schema.study_trials.c.study, schema.trials.c.outcome, _BEGUN.label("begun"), func.count())
    .join(schema.trials)
    .group_by(schema.study_trials.c.study, schema.trials.c.outcome, _BEGUN)
)
_TRIALS = select(*(_plain(column) for column in schema.trials.c if column.name != "settings")).where(_BEGUN)
_EPOCHS = select(
    schema.epoch_records.c.trial, schema.epoch_records.c.epoch, _plain(schema.epoch_records.c.metrics)
).order_by(schema.epoch_records.c.trial, schema.epoch_records.c.epoch)

#: Epochs of a trial, and the metrics of each as JSON.
_Records = tuple[list[int], list[str]]


def _records(connection: Connection, epochs: Select[Any]) -> dict[str, _Records]:
    records: dict[str, _Records] = {}
    trial: str | None = None
    numbers: list[int] = []
    texts: list[str] = []
    for one, epoch, metrics in connection.execute(epochs).all():
        if one != trial:
            trial, numbers, texts = one, [], []
            records[one] = (numbers, texts)
        numbers.append(epoch)
        texts.append(metrics)
    return records


def _results(trials: Iterable[Row[Any]], epochs: Mapping[str, _Records]) -> list[TrialResult]:
    machines: dict[str, Machine] = {}
    return [
        TrialResult(
            arm=row.arm,
            seed=row.seed,
            trial=row.hash,
            outcome=Outcome(row.outcome) if row.outcome else None,
            detail=row.detail,
            started=row.started_at,
            ended=row.ended_at,
            machine=machines.get(row.machine) or machines.setdefault(row.machine, Machine(**json.loads(row.machine))),
            epochs=_epochs(row.arm, row.seed, *epochs.get(row.hash, ((), ()))),
            fingerprints=json.loads(row.fingerprints),
            forced=row.forced,
        )
        for row in trials
    ]


def _epochs(arm: str, seed: int, numbers: Sequence[int], texts: Sequence[str]) -> tuple[EpochRecord, ...]:
    joined = ",".join(texts)
    decoded = json.loads(f"[{joined}]")  # all at once: twice as fast as one by one
    if ':"' in joined:  # NaN and infinities, which JSON does not know, are text
        decoded = [{name: float(value) for name, value in metrics.items()} for metrics in decoded]
    return tuple(EpochRecord(arm, seed, *row) for row in zip(numbers, decoded, strict=True))
