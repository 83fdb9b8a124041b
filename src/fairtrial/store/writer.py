"""Writes what happens to trials, within one transaction."""
# ruff: noqa: D102  (`store.base.Writer` describes the methods)

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, bindparam, delete, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from fairtrial.errors import StoreError
from fairtrial.store import schema
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

#: By a trial's hash: the attempt that a transaction found first, and those that it began itself.
Attempts: TypeAlias = dict[str, tuple[str | None, set[str]]]

INSERT: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class SQLWriter:
    """Writes in an open transaction; the promises are those of `store.base.Writer`.

    A transaction that is retried, because its connection was lost, finds a trial in the attempt that it found first, or
    in one that it began itself: then it had been committed, and writes the same again. Any other attempt is another
    process's. ``attempts`` remembers both: empty at first, and the same object in every retry.
    """

    def __init__(self, connection: Connection, attempts: Attempts) -> None:
        self._connection = connection
        self._attempts = attempts
        self._current: dict[str, str | None] = {}  # no other process can change these before the transaction ends

    def begin(self, trial: Trial, attempt: str, machine: Machine, at: datetime, forced: str = "") -> None:
        self._attempt(trial)
        row = {"attempt": attempt, "machine": dataclasses.asdict(machine), "started_at": at}
        self._connection.execute(_BEGIN, {"trial_hash": trial.hash, "forced": _storable(forced), **row})
        self._attempts[trial.hash][1].add(attempt)
        self._current[trial.hash] = attempt

    def add_epoch(self, trial: Trial, attempt: str, record: EpochRecord) -> None:
        self._check(trial, attempt)
        numbers = {name: float(value) for name, value in record.metrics.items()}
        metrics = {name: x if math.isfinite(x) else str(x) for name, x in numbers.items()}  # JSON has no NaN or inf
        row = {"trial": trial.hash, "epoch": record.epoch, "attempt": attempt, "metrics": metrics}
        self._connection.execute(_EPOCH[self._connection.dialect.name], row)

    def add_fingerprints(self, trial: Trial, attempt: str, fingerprints: Mapping[str, str]) -> None:
        self._check(trial, attempt)
        self._connection.execute(_FINGERPRINTS, {"trial_hash": trial.hash, "fingerprints": dict(fingerprints)})

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
        self._check(trial, attempt)
        self._connection.execute(_DROP_STALE, {"trial_hash": trial.hash, "current": attempt})
        known = None if reads is None else [_storable(name) for name in reads]
        row = {"outcome": outcome.value, "detail": _storable(detail), "ended_at": at, "reads": known}
        self._connection.execute(_END, {"trial_hash": trial.hash, **row})

    def _check(self, trial: Trial, attempt: str) -> None:
        current = self._attempt(trial)
        if current is None:
            raise StoreError(f"trial {trial.arm}, seed {trial.seed} has not begun in this store")
        if current != attempt:
            raise _restarted(trial)

    def _attempt(self, trial: Trial) -> str | None:
        """Read a trial's current attempt, and lock it until the transaction ends."""
        if trial.hash not in self._current:
            row = self._connection.execute(_ATTEMPT, {"trial_hash": trial.hash}).first()
            if row is None:
                raise StoreError(f"trial {trial.arm}, seed {trial.seed} is not in this store")
            first, own = self._attempts.setdefault(trial.hash, (row.attempt, set()))
            if row.attempt not in {first, *own}:
                raise _restarted(trial)
            self._current[trial.hash] = first
        return self._current[trial.hash]


def _storable(text: str) -> str:
    """Escape what databases refuse in a text: NUL (PostgreSQL), and unpaired surrogates (not UTF-8)."""
    return text.replace("\0", "\\x00").encode(errors="backslashreplace").decode()


def _restarted(trial: Trial) -> StoreError:
    return StoreError(f"stopping: another process restarted this trial (arm {trial.arm}, seed {trial.seed})")


# Statements, built once: each is used for every message of every trial.

_THIS = schema.trials.c.hash == bindparam("trial_hash")


def _update(**values: Any) -> Any:
    return update(schema.trials).where(_THIS).values(**values)


_ATTEMPT = select(schema.trials.c.attempt).where(_THIS).with_for_update(key_share=True)
_BEGIN = _update(
    **{name: bindparam(name) for name in ("attempt", "machine", "started_at", "forced")},
    outcome=null(),
    detail="",
    # ended_at stays: whoever looked at this trial before it was run again has seen it.
    fingerprints={},
    reads=null(),
)
_FINGERPRINTS = _update(fingerprints=bindparam("fingerprints"))
_END = _update(**{name: bindparam(name) for name in ("outcome", "detail", "ended_at", "reads")})
_DROP_STALE = delete(schema.epoch_records).where(
    schema.epoch_records.c.trial == bindparam("trial_hash"), schema.epoch_records.c.attempt != bindparam("current")
)


def _replace_epoch(dialect: str) -> Any:
    insert = INSERT[dialect](schema.epoch_records)
    changed = {name: insert.excluded[name] for name in ("attempt", "metrics")}
    return insert.on_conflict_do_update(index_elements=["trial", "epoch"], set_=changed)


_EPOCH = {dialect: _replace_epoch(dialect) for dialect in INSERT}
