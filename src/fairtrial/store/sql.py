"""A store in a SQL database, by SQLAlchemy: SQLite in a file by default."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, CursorResult, Row, Select, delete, func, insert, select, update

from fairtrial.errors import StoreError
from fairtrial.plan import plan
from fairtrial.records import EpochRecord, Machine, Outcome, Trial, TrialResult
from fairtrial.spec import METRICS, Study, content
from fairtrial.store import schema
from fairtrial.store.base import StoredStudy
from fairtrial.store.engine import DatabaseEngine

#: Most rows a statement names by hash: SQLite allows 32,766 parameters a statement, older releases 999.
CHUNK = 500


class SQLStore:
    """Keeps the promises of `store.base` in a SQL database.

    Args:
        place: a file's path or a database URL that SQLAlchemy understands.
        create: make the database if there is none; otherwise a missing one is an error.

    Raises:
        StoreError: the database can't be opened, or is not fairtrial's.
        StoreVersionError: a newer fairtrial wrote it.
    """

    def __init__(self, place: str, *, create: bool = True) -> None:
        self._database = DatabaseEngine(place, create=create)

    @property
    def beside(self) -> str:
        """Path beside which files of a run may lie: the database's own, or a name in the working folder."""
        return self._database.file or "fairtrial"

    def together(self) -> AbstractContextManager[None]:
        """Make one transaction of all that is written within: all of it is kept, or nothing. Not nested."""
        return self._database.together()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._database.close()

    def add_study(self, study: Study, trials: Sequence[Trial], at: datetime) -> None:
        """Record that a study runs, with its planned trials; known ones are left as they are."""
        with self._database.write() as connection:
            known = connection.scalar(select(schema.studies.c.hash).where(schema.studies.c.hash == study.hash))
            if known is not None:
                touch = update(schema.studies).where(schema.studies.c.hash == study.hash)
                connection.execute(touch.values(last_run_at=at))
                return
            row = {"hash": study.hash, "name": study.name, "toml": study.to_toml()}
            connection.execute(insert(schema.studies).values(**row, created_at=at, last_run_at=at))
            there = _known(connection, trials)
            new = [_trial_row(trial) for trial in trials if trial.hash not in there]
            links = [
                {"study": study.hash, "trial": trial.hash, "position": position}
                for position, trial in enumerate(trials)
            ]
            if new:
                connection.execute(insert(schema.trials), new)
            connection.execute(insert(schema.study_trials), links)

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""
        with self._database.read() as connection:
            rows = connection.execute(select(schema.studies).order_by(schema.studies.c.last_run_at.desc())).all()
            counts = connection.execute(_COUNTS).all()
        progress: dict[str, dict[tuple[str | None, bool], int]] = {}
        for study, outcome, begun, trials in counts:
            progress.setdefault(study, {})[outcome, bool(begun)] = trials
        return [_stored_study(row, progress.get(row.hash, {})) for row in rows]

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Look up by hash how trials ended; None for those that did not. Unknown ones are left out."""
        with self._database.read() as connection:
            return _known(connection, trials)

    def begin(self, trial: Trial, machine: Machine, at: datetime) -> int:
        """Record that a trial begins, and return the number of this attempt, from 1."""
        with self._database.write() as connection:
            begun = update(schema.trials).where(schema.trials.c.hash == trial.hash)
            _expect_one(
                connection.execute(
                    begun.values(
                        attempts=schema.trials.c.attempts + 1,
                        outcome=None,
                        detail="",
                        started_at=at,
                        ended_at=None,
                        machine=dataclasses.asdict(machine),
                        fingerprints={},
                    )
                ),
                trial,
            )
            return _attempt(connection, trial)

    def add_epoch(self, trial: Trial, attempt: int, record: EpochRecord) -> None:
        """Record an epoch of an attempt; a `StoreError` if another attempt has begun since."""
        row = {"trial": trial.hash, "epoch": record.epoch, **_metric_columns(record.metrics)}
        same = (schema.epoch_records.c.trial == trial.hash) & (schema.epoch_records.c.epoch == record.epoch)
        with self._database.write() as connection:
            _expect_current(connection, trial, attempt)
            connection.execute(delete(schema.epoch_records).where(same))  # of an attempt before
            connection.execute(insert(schema.epoch_records).values(**row, attempt=attempt))

    def add_fingerprints(self, trial: Trial, attempt: int, fingerprints: Mapping[str, str]) -> None:
        """Record an attempt's fingerprints in place of those it had; errors as `add_epoch`'s."""
        with self._database.write() as connection:
            _expect_current(connection, trial, attempt)
            told = update(schema.trials).where(schema.trials.c.hash == trial.hash)
            _expect_one(connection.execute(told.values(fingerprints=dict(fingerprints))), trial)

    def end(self, trial: Trial, attempt: int, outcome: Outcome, detail: str, at: datetime) -> None:
        """Record how an attempt ended, and drop what earlier ones left behind; errors as `add_epoch`'s."""
        with self._database.write() as connection:
            _expect_current(connection, trial, attempt)
            stale = schema.epoch_records.c.attempt < attempt
            connection.execute(delete(schema.epoch_records).where(schema.epoch_records.c.trial == trial.hash, stale))
            ended = update(schema.trials).where(schema.trials.c.hash == trial.hash)
            _expect_one(connection.execute(ended.values(outcome=outcome.value, detail=detail, ended_at=at)), trial)

    def results(self, study: Study) -> list[TrialResult]:
        """Read what is known of a study's trials; those that never began are left out."""
        hashes = [trial.hash for trial in plan(study)]
        rows: dict[str, Row[Any]] = {}
        records: dict[str, list[tuple[int, dict[str, float]]]] = {}
        with self._database.read() as connection:
            for some in _chunks(hashes):
                began = select(schema.trials).where(schema.trials.c.hash.in_(some), schema.trials.c.attempts > 0)
                rows |= {row.hash: row for row in connection.execute(began)}
                epochs = select(schema.epoch_records).where(schema.epoch_records.c.trial.in_(some))
                records |= _by_trial(
                    connection, epochs.order_by(schema.epoch_records.c.trial, schema.epoch_records.c.epoch)
                )
        return [_trial_result(rows[trial], records.get(trial, [])) for trial in hashes if trial in rows]


_COUNTS = (
    select(
        schema.study_trials.c.study,
        schema.trials.c.outcome,
        (schema.trials.c.attempts > 0).label("begun"),
        func.count(),
    )
    .join(schema.trials)
    .group_by(schema.study_trials.c.study, schema.trials.c.outcome, schema.trials.c.attempts > 0)
)


def _chunks(hashes: Sequence[str]) -> Iterator[Sequence[str]]:
    return (hashes[start : start + CHUNK] for start in range(0, len(hashes), CHUNK))


def _known(connection: Connection, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
    known: dict[str, Outcome | None] = {}
    for hashes in _chunks([trial.hash for trial in trials]):
        rows = connection.execute(
            select(schema.trials.c.hash, schema.trials.c.outcome).where(schema.trials.c.hash.in_(hashes))
        )
        known |= {row.hash: Outcome(row.outcome) if row.outcome else None for row in rows}
    return known


def _attempt(connection: Connection, trial: Trial) -> int:
    attempt = connection.scalar(select(schema.trials.c.attempts).where(schema.trials.c.hash == trial.hash))
    if not attempt:
        raise StoreError(f"trial {trial.arm}, seed {trial.seed} has not begun in this store")
    return int(attempt)


def _expect_current(connection: Connection, trial: Trial, attempt: int) -> None:
    current = _attempt(connection, trial)
    if current != attempt:
        raise StoreError(
            f"trial {trial.arm}, seed {trial.seed} was begun again by another run in this store; this run gives way"
        )


def _expect_one(result: CursorResult[Any], trial: Trial) -> None:
    if result.rowcount != 1:
        raise StoreError(f"trial {trial.arm}, seed {trial.seed} is not in this store")


def _trial_row(trial: Trial) -> dict[str, Any]:
    settings = content(trial.settings)
    return {"hash": trial.hash, "arm": trial.arm, "seed": trial.seed, "settings": settings, "attempts": 0, "detail": ""}


def _metric_columns(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Spread metrics over the columns of their own, and the rest as JSON, which has no NaN and no infinity."""
    columns: dict[str, Any] = {name: metrics[name] for name in METRICS if name in metrics}
    extra = {name: _json_number(value) for name, value in metrics.items() if name not in METRICS}
    return columns | {"extra": extra or None}


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _by_trial(connection: Connection, epochs: Select[Any]) -> dict[str, list[tuple[int, dict[str, float]]]]:
    records: dict[str, list[tuple[int, dict[str, float]]]] = {}
    for row in connection.execute(epochs):
        trial, epoch, _, *values, extra = row
        metrics = {name: value for name, value in zip(METRICS, values, strict=True) if value is not None}
        metrics |= {name: float(value) for name, value in (extra or {}).items()}
        records.setdefault(trial, []).append((epoch, metrics))
    return records


def _trial_result(row: Row[Any], records: Sequence[tuple[int, dict[str, float]]]) -> TrialResult:
    return TrialResult(
        arm=row.arm,
        seed=row.seed,
        trial=row.hash,
        outcome=Outcome(row.outcome) if row.outcome else None,
        detail=row.detail,
        started=row.started_at,
        ended=row.ended_at,
        machine=Machine(**row.machine),
        epochs=tuple(EpochRecord(row.arm, row.seed, epoch, metrics) for epoch, metrics in records),
        fingerprints=row.fingerprints or {},
    )


def _stored_study(row: Row[Any], progress: Mapping[tuple[str | None, bool], int]) -> StoredStudy:
    return StoredStudy(
        name=row.name,
        hash=row.hash,
        toml=row.toml,
        last_run=row.last_run_at,
        trials=sum(progress.values()),
        outcomes={outcome: progress.get((outcome.value, True), 0) for outcome in Outcome},
        started=progress.get((None, True), 0),
    )
