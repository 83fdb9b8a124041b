"""Removes results from a store, but never what was asked: looks that were taken count, whatever is removed later.

A study that is removed leaves its row, without its text, its list of trials and its stages; a trial whose result is
removed leaves its row, as one that has not begun, with the time when it had ended. See `fairtrial.history`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update

from fairtrial.errors import StoreError
from fairtrial.failpoints import failpoint
from fairtrial.store import queries, schema, snapshots
from fairtrial.store.writer import NEW_TRIAL, update_trials
from fairtrial.trial import FINAL

_ROWS, _LINKS, _RECORDS = schema.studies.c, schema.study_trials.c, schema.epoch_records.c


@dataclass(frozen=True)
class Removal:
    """What goes with a study.

    Attributes:
        trials: hashes of the trials that no other study in the store plans.
        begun: how many of them have begun, and so have results to remove.
        records: how many epoch records these have.
        shared: how many trials other studies plan, too; they stay.
        sharing: labels of those studies.
    """

    trials: tuple[str, ...]
    begun: int
    records: int
    shared: int
    sharing: tuple[str, ...]


def removal(connection: Connection, study: str) -> Removal:
    """Find what goes with a study, by its hash; a StoreError if it is not in the store."""
    row = queries.known_study(connection, study)
    if row is None or not row.toml:
        raise StoreError(f"study {study[:8]} is not in this store any more")
    hashes = queries.planned(connection, study)
    others: set[str] = set()
    sharing: dict[str, str] = {}
    for chunk in queries.chunks(hashes):
        found = connection.execute(
            select(_LINKS.trial, _ROWS.hash, _ROWS.name)
            .join_from(schema.study_trials, schema.studies)
            .where(_LINKS.trial.in_(chunk), _ROWS.hash != study, _ROWS.toml != "")
        )
        for trial, other, name in found:
            others.add(trial)
            sharing[other] = f"{name}@{other[:8]}"
    own = [trial for trial in hashes if trial not in others]
    rows = queries.trial_rows(connection, own).values()
    records = sum(
        connection.scalar(select(func.count()).where(_RECORDS.trial.in_(chunk))) or 0 for chunk in queries.chunks(own)
    )
    begun = sum(row.attempt is not None for row in rows)
    return Removal(tuple(own), begun, records, len(others), tuple(sorted(sharing.values())))


def remove(connection: Connection, study: str) -> Removal:
    """Remove a study and what goes with it, in a transaction that writes."""
    found = removal(connection, study)
    row = queries.known_study(connection, study, lock=True)
    assert row is not None
    for chunk in queries.chunks(sorted(found.trials)):
        rows = queries.trial_rows(connection, chunk).values()
        connection.execute(delete(schema.epoch_records).where(_RECORDS.trial.in_(chunk)))
        snapshots.remove(connection, chunk)
        kept = ("hash", "arm", "seed", "settings_digest", "ended_at")
        update_trials(connection, [{**NEW_TRIAL, **{name: getattr(one, name) for name in kept}} for one in rows])
    empty = {"toml": "", "source": None, "assignments": None}
    values = schema.with_checksum(schema.studies, {**row._asdict(), **empty})
    connection.execute(update(schema.studies).where(_ROWS.hash == study).values(values))
    failpoint("removal.written")
    return found


def orphans(connection: Connection) -> tuple[Sequence[str], int]:
    """List the trials that no study plans, and how many bytes they take."""
    trials = schema.trials.c
    planned = select(_LINKS.trial).where(_LINKS.trial == trials.hash).exists()
    hashes = connection.scalars(select(trials.hash).where(~planned)).all()
    size = 0
    for chunk in queries.chunks(hashes):
        own = func.sum(func.length(trials.settings) + func.length(trials.detail))
        size += connection.scalar(select(own).where(trials.hash.in_(chunk))) or 0
        size += connection.scalar(select(func.sum(func.length(_RECORDS.metrics))).where(_RECORDS.trial.in_(chunk))) or 0
        size += snapshots.size(connection, chunk)
    return hashes, size


def remove_orphans(connection: Connection) -> None:
    """Remove the trials that no study plans."""
    hashes, _ = orphans(connection)
    for chunk in queries.chunks(hashes):
        connection.execute(delete(schema.epoch_records).where(_RECORDS.trial.in_(chunk)))
        snapshots.remove(connection, chunk)
        connection.execute(delete(schema.trials).where(schema.trials.c.hash.in_(chunk)))


@dataclass(frozen=True)
class Wanted:
    """What a store knows of trials, by hash.

    Attributes:
        known: all that studies plan, or planned before they were removed.
        unfinished: those that a study still plans to run, or may run again: their checkpoints are of use.
    """

    known: set[str]
    unfinished: set[str]


def wanted(connection: Connection) -> Wanted:
    """Read what a store knows of trials."""
    trials = schema.trials.c
    query = (
        select(trials.hash)
        .join_from(schema.trials, schema.study_trials)
        .join(schema.studies)
        .where(_ROWS.toml != "", trials.outcome.is_(None) | trials.outcome.not_in([one.value for one in FINAL]))
    )
    known = connection.scalars(select(_LINKS.trial).distinct())
    return Wanted({*known}, {*connection.scalars(query.distinct())})
