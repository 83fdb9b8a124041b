"""Writes studies and what happens to their trials, within one transaction."""
# ruff: noqa: D102  (`store.base.Writer` describes the methods)

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, TypeAlias

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert as insert_on_sqlite

from fairtrial.errors import StoreError, TrialRestartedError
from fairtrial.scheduler import plan
from fairtrial.spec import Study, content, digest
from fairtrial.store import queries, schema, snapshots
from fairtrial.store.checksums import EMPTY, MISMATCH, DamageError, extend, record_of
from fairtrial.store.snapshots import SnapshotRow
from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot, Trial

#: By a trial's hash: the attempt that a transaction found first, and those that it began itself.
Attempts: TypeAlias = dict[str, tuple[str | None, set[str]]]


@dataclass
class _Changed:
    """A trial that a transaction changes: its row, and what is to be written of its epoch records."""

    row: dict[str, Any]
    attempt: str | None  # that calls of this transaction may continue
    stored: int  # number of the last epoch record in the database
    epochs: dict[int, tuple[str, str]] = field(default_factory=dict)  # attempt and metrics of new ones, by epoch
    snapshots: list[SnapshotRow] = field(default_factory=list)  # new ones
    ended: str | None = None  # attempt whose records alone stay, once it has ended


def add_study(connection: Connection, study: Study, at: datetime) -> None:
    """Record that a study runs, and its trials if it is new; see `Store.add_study`."""
    source, overrides = study.origin.source, study.origin.overrides
    assignments = schema.to_json(overrides) if overrides else None
    changes = {"toml": study.to_toml(), "last_run_at": at}
    changes |= {} if source is None else {"source": source, "assignments": assignments}
    known = queries.known_study(connection, study.hash, lock=True)
    if known is None:
        _add_new(connection, study, {"source": None, "assignments": None, "created_at": at, **changes})
        return
    row = schema.with_checksum(schema.studies, {**known._asdict(), **changes})
    values = {name: row[name] for name in (*changes, "checksum")}
    connection.execute(update(schema.studies).where(schema.studies.c.hash == study.hash).values(values))


def _add_new(connection: Connection, study: Study, row: Mapping[str, Any]) -> None:
    add, trials = _insert(connection.dialect.name), plan(study)
    contents = {arm.name: content(arm.settings) for arm in study.arms}
    settings = {arm: {"settings": schema.to_json(one), "settings_digest": digest(one)} for arm, one in contents.items()}
    new = [
        schema.with_checksum(
            schema.trials, {**NEW_TRIAL, "hash": one.hash, "arm": one.arm, "seed": one.seed, **settings[one.arm]}
        )
        for one in sorted(trials, key=lambda one: one.hash)  # two runs that share trials must not deadlock
    ]
    links = [{"study": study.hash, "trial": one.hash, "position": n} for n, one in enumerate(trials)]
    head = {"hash": study.hash, "name": study.name, "trials": schema.plan_checksum(one.hash for one in trials)}
    row = schema.with_checksum(schema.studies, {**head, **row})
    insert = add(schema.studies).on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    added = connection.execute(insert, row).rowcount
    connection.execute(add(schema.trials).on_conflict_do_nothing(), new)
    connection.execute(add(schema.study_trials).on_conflict_do_nothing(), links)
    connection.execute(update(schema.schema_version).values(studies=schema.schema_version.c.studies + added))


#: A trial that has not begun.
NEW_TRIAL: Mapping[str, Any] = {
    **{column.name: None for column in schema.trials.c},
    "detail": "",
    "forced": "",
    "last_epoch": 0,
    "records": EMPTY,
}


class SQLWriter:
    """Writes in an open transaction; the promises are those of `store.base.Writer`.

    Nothing is sent to the database before `flush`: a trial's row has a checksum of all that is written of it.

    A transaction that is retried, because its connection was lost, finds a trial in the attempt that it found first, or
    in one that it began itself: then it had been committed, and writes the same again. Any other attempt is another
    process's. ``attempts`` remembers both: empty at first, and the same object in every retry.
    """

    def __init__(self, connection: Connection, attempts: Attempts) -> None:
        self._connection = connection
        self._attempts = attempts
        self._changed: dict[str, _Changed] = {}  # no other process can change these before the transaction ends

    def begin(self, trial: Trial, attempt: str, machine: Machine, at: datetime, forced: str = "") -> None:
        changed = self._read(trial)
        # ended_at stays: whoever looked at this trial before it was run again has seen it.
        changed.row |= {"attempt": attempt, "outcome": None, "detail": "", "started_at": at, "reads": None}
        changed.row |= {"machine": schema.to_json(dataclasses.asdict(machine)), "fingerprints": "{}"}
        changed.row |= {"forced": storable(forced)}
        self._attempts[trial.hash][1].add(attempt)
        changed.attempt = attempt

    def add_epoch(self, trial: Trial, attempt: str, record: EpochRecord) -> None:
        changed = self._check(trial, attempt)
        numbers = {name: float(value) for name, value in record.metrics.items()}
        metrics = {name: x if math.isfinite(x) else str(x) for name, x in numbers.items()}  # JSON has no NaN or inf
        changed.epochs[record.epoch] = attempt, schema.to_json(metrics)

    def add_fingerprints(self, trial: Trial, attempt: str, fingerprints: Mapping[str, str]) -> None:
        self._check(trial, attempt).row["fingerprints"] = schema.to_json(dict(fingerprints))

    def add_snapshot(self, trial: Trial, attempt: str, snapshot: Snapshot) -> None:
        self._check(trial, attempt).snapshots.append(snapshots.encode(attempt, snapshot))

    def end(
        self,
        trial: Trial,
        attempt: str,
        outcome: Outcome,
        detail: str,
        at: datetime,
        *,
        reads: Sequence[str] | None = None,
    ) -> None:
        changed = self._check(trial, attempt)
        known = None if reads is None else schema.to_json([storable(name) for name in reads])
        changed.row |= {"outcome": outcome.value, "detail": storable(detail), "ended_at": at, "reads": known}
        changed.epochs = {epoch: one for epoch, one in changed.epochs.items() if one[0] == attempt}
        changed.snapshots = [one for one in changed.snapshots if one.attempt == attempt]
        changed.ended = attempt

    def flush(self) -> None:
        """Send to the database what was written."""
        for trial, changed in self._changed.items():
            self._add_records(trial, changed)
        epochs = [
            {"trial": trial, "epoch": epoch, "attempt": attempt, "metrics": metrics}
            for trial, changed in self._changed.items()
            for epoch, (attempt, metrics) in changed.epochs.items()
        ]
        if epochs:
            self._connection.execute(_replace_epoch(self._connection.dialect.name), epochs)
        taken = {trial: changed.snapshots for trial, changed in self._changed.items() if changed.snapshots}
        ended = {trial: changed.ended for trial, changed in self._changed.items() if changed.ended is not None}
        if taken or ended:
            snapshots.write(self._connection, taken, ended)
        update_trials(self._connection, [changed.row for changed in self._changed.values()])

    def _add_records(self, trial: str, changed: _Changed) -> None:
        """Bring the checksum of a trial's epoch records up to date, and drop those of earlier attempts if it ended."""
        new, last, records = changed.epochs, changed.stored, changed.row["records"]
        if last and (changed.ended or (new and min(new) <= last)):
            rows = self._connection.execute(_STORED, {"trial_hash": trial}).all()
            if extend(EMPTY, schema.records_text(map(tuple, rows))) != records:
                raise DamageError(record_of(changed.row["arm"], changed.row["seed"]), MISMATCH)
            kept = {row.epoch: (row.attempt, row.metrics) for row in rows if changed.ended in {None, row.attempt}}
            if stale := [{"trial_hash": trial, "number": row.epoch} for row in rows if row.epoch not in kept]:
                self._connection.execute(_DROP, stale)
            new, last, records = {**kept, **new}, 0, EMPTY
        added = schema.records_text((epoch, *one) for epoch, one in sorted(new.items()))
        changed.row |= {"records": extend(records, added), "last_epoch": max(new, default=last)}

    def _check(self, trial: Trial, attempt: str) -> _Changed:
        changed = self._read(trial)
        if changed.attempt is None:
            raise StoreError(f"trial {trial.arm}, seed {trial.seed} has not begun in this store")
        if changed.attempt != attempt:
            raise _restarted(trial)
        return changed

    def _read(self, trial: Trial) -> _Changed:
        """Read a trial's row, and lock it until the transaction ends."""
        if trial.hash not in self._changed:
            row = self._connection.execute(_TRIAL, {"trial_hash": trial.hash}).first()
            if row is None:
                raise StoreError(f"trial {trial.arm}, seed {trial.seed} is not in this store")
            if not schema.matches(row):
                raise DamageError(record_of(trial.arm, trial.seed), MISMATCH)
            first, own = self._attempts.setdefault(trial.hash, (row.attempt, set()))
            if row.attempt not in {first, *own}:
                raise _restarted(trial)
            self._changed[trial.hash] = _Changed(row._asdict(), first, row.last_epoch)
        return self._changed[trial.hash]


def update_trials(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the changed rows of trials, with new checksums; their settings stay."""
    checked = [schema.with_checksum(schema.trials, row) for row in rows]
    if checked:
        connection.execute(_ROW, [{f"new_{name}": row[name] for name in ("hash", *_CHANGING)} for row in checked])


def storable(text: str) -> str:
    """Escape what databases refuse in a text: NUL (PostgreSQL), and unpaired surrogates (not UTF-8)."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def _restarted(trial: Trial) -> TrialRestartedError:
    return TrialRestartedError(f"stopping: another process restarted this trial (arm {trial.arm}, seed {trial.seed})")


# Statements, built once: each is used for every message of every trial.

_RECORDS = schema.epoch_records.c
_TRIAL = (
    select(*schema.covered(schema.trials))
    .where(schema.trials.c.hash == bindparam("trial_hash"))
    .with_for_update(key_share=True)
)
_CHANGING = [
    column.name
    for column in schema.covered(schema.trials)
    if column.name not in {"hash", "arm", "seed", "settings_digest"}
]
_ROW = (
    update(schema.trials)
    .where(schema.trials.c.hash == bindparam("new_hash"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGING})
)
_STORED = (
    select(_RECORDS.epoch, _RECORDS.attempt, _RECORDS.metrics)
    .where(_RECORDS.trial == bindparam("trial_hash"))
    .order_by(_RECORDS.epoch)
)
_DROP = delete(schema.epoch_records).where(
    _RECORDS.trial == bindparam("trial_hash"), _RECORDS.epoch == bindparam("number")
)


def _insert(dialect: str) -> Any:
    """Find the function that makes an INSERT with a database's own clauses; PostgreSQL's takes long to import."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_on_postgresql  # noqa: PLC0415  (see above)

        return insert_on_postgresql
    return insert_on_sqlite


@cache
def _replace_epoch(dialect: str) -> Any:
    insert = _insert(dialect)(schema.epoch_records)
    changed = {name: insert.excluded[name] for name in ("attempt", "metrics")}
    return insert.on_conflict_do_update(index_elements=["trial", "epoch"], set_=changed)
