"""Reads studies and trials from the database, many rows at a time."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from sqlalchemy import JSON, Column, ColumnElement, Connection, Row, Text, cast, func, select

from fairtrial.store import schema
from fairtrial.store.base import StoredStudy
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult

#: Most rows that a statement names by hash: SQLite allows 32,766 parameters a statement, older releases 999.
CHUNK = 500

#: A row of epoch records: the trial's hash, the epoch, and its metrics as JSON.
_Epoch: TypeAlias = tuple[str, int, str]


def all_studies(connection: Connection) -> list[StoredStudy]:
    """Read all studies with their progress, the one that ran last first."""
    progress: dict[str, dict[tuple[str | None, bool], int]] = defaultdict(dict)
    for study, outcome, begun, trials in connection.execute(_COUNTS):
        progress[study][outcome, bool(begun)] = trials
    rows = connection.execute(select(schema.studies).order_by(schema.studies.c.last_run_at.desc()))
    return [
        StoredStudy(
            name=row.name,
            hash=row.hash,
            toml=row.toml,
            last_run=row.last_run_at,
            trials=sum(progress[row.hash].values()),
            outcomes={outcome: progress[row.hash].get((outcome.value, True), 0) for outcome in Outcome},
            started=progress[row.hash].get((None, True), 0),
            source=row.source,
            assignments=tuple(row.assignments or ()),
        )
        for row in rows
    ]


def planned(connection: Connection, study: str) -> Sequence[str]:
    """Read the hashes of a study's trials, in the order of its plan; none if the study is not in the store."""
    links = schema.study_trials.c
    return connection.scalars(select(links.trial).where(links.study == study).order_by(links.position)).all()


def outcomes(connection: Connection, hashes: Sequence[str]) -> dict[str, Outcome | None]:
    """Read how trials ended, those in the store."""
    found: dict[str, Outcome | None] = {}
    for chunk in _chunks(hashes):
        rows = select(schema.trials.c.hash, schema.trials.c.outcome).where(schema.trials.c.hash.in_(chunk))
        found |= {row.hash: Outcome(row.outcome) if row.outcome else None for row in connection.execute(rows)}
    return found


def results(connection: Connection, hashes: Sequence[str]) -> list[TrialResult]:
    """Read the trials that have begun among these, in this order."""
    trials: dict[str, Row[Any]] = {}
    epochs: dict[str, list[_Epoch]] = {}
    for chunk in _chunks(hashes):
        trials |= {row.hash: row for row in connection.execute(_TRIALS.where(schema.trials.c.hash.in_(chunk)))}
        rows = connection.execute(_EPOCHS.where(schema.epoch_records.c.trial.in_(chunk))).all()
        epochs |= {trial: list(group) for trial, group in groupby(rows, key=itemgetter(0))}
    machines: dict[str, Machine] = {}
    return [
        TrialResult(
            arm=row.arm,
            seed=row.seed,
            trial=row.hash,
            outcome=Outcome(row.outcome) if row.outcome else None,
            detail=row.detail,
            started=row.started_at,
            ended=row.ended_at if row.outcome else None,
            machine=machines.get(row.machine) or machines.setdefault(row.machine, Machine(**json.loads(row.machine))),
            epochs=_epochs(row.arm, row.seed, epochs.get(row.hash, ())),
            fingerprints=json.loads(row.fingerprints),
            forced=row.forced,
            reads=None if row.reads is None else tuple(json.loads(row.reads)),
        )
        for row in (trials[one] for one in hashes if one in trials)
    ]


def _chunks(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    return (hashes[start : start + CHUNK] for start in range(0, len(hashes), CHUNK))


def _plain(column: Column[Any]) -> ColumnElement[Any]:
    """Read JSON as text: much of it is the same in all rows, or decoded many rows at a time."""
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


def _epochs(arm: str, seed: int, rows: Sequence[_Epoch]) -> tuple[EpochRecord, ...]:
    joined = ",".join([metrics for _, _, metrics in rows])
    decoded = json.loads(f"[{joined}]")  # all at once: twice as fast as one by one
    if ':"' in joined:  # NaN and infinities, which JSON does not know, are text
        decoded = [{name: float(value) for name, value in metrics.items()} for metrics in decoded]
    return tuple(EpochRecord(arm, seed, row[1], metrics) for row, metrics in zip(rows, decoded, strict=True))
