"""Reads studies and trials from the database, many rows at a time, and compares each with its checksum."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Row, select

from fairtrial.spec import digest
from fairtrial.store import schema
from fairtrial.store.base import StoredStudy
from fairtrial.store.checksums import EMPTY, MISMATCH, MISSING, DamageError, extend, record_of
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult

T = TypeVar("T")

#: Most rows that a statement names by hash: SQLite allows 32,766 parameters a statement, older releases 999.
CHUNK = 500

#: An epoch record: its number, its attempt, and its metrics as JSON.
EpochRow: TypeAlias = tuple[int, str, str]


def all_studies(connection: Connection) -> list[StoredStudy]:
    """Read all studies with their progress, the one that ran last first; not those that were removed."""
    rows = study_rows(connection)
    links: dict[str, list[str]] = defaultdict(list)
    for study, trial in connection.execute(_LINKS):
        links[study].append(trial)
    trials = {row.hash: _progress(row) for row in connection.execute(_TRIALS)}
    return [_stored(row, links[row.hash], trials) for row in rows if row.toml]


def study_rows(connection: Connection) -> Sequence[Row[Any]]:
    """Read the rows of all studies, those that were removed too, the one that ran last first."""
    rows = connection.execute(_STUDIES.order_by(schema.studies.c.last_run_at.desc())).all()
    for row in rows:
        _check_study(row)
    check_count(connection, "studies", [row.hash for row in rows])
    return rows


#: Whether a trial has begun, and its outcome; or what is damaged.
_Progress: TypeAlias = tuple[bool, str | None] | DamageError


def _progress(row: Row[Any]) -> _Progress:
    if not schema.matches(row):
        return DamageError(record_of(row.arm, row.seed), MISMATCH)
    return row.attempt is not None, row.outcome


def _stored(row: Row[Any], links: Sequence[str], trials: Mapping[str, _Progress]) -> StoredStudy:
    """A study with its progress. Damage of its trials is told, and the other studies can be read."""
    damage = [] if schema.plan_checksum(links) == row.trials else [_wrong_plan(row)]
    damage += [DamageError(f"the record of trial {str(one)[:12]}", MISSING) for one in links if one not in trials]
    found = [trials[one] for one in links if one in trials]
    damage += [one for one in found if isinstance(one, DamageError)]
    begun = Counter(one[1] for one in found if not isinstance(one, DamageError) and one[0])
    return StoredStudy(
        name=row.name,
        hash=row.hash,
        toml=row.toml,
        last_run=row.last_run_at,
        trials=len(links),
        outcomes={outcome: begun[outcome.value] for outcome in Outcome},
        started=begun[None],
        source=row.source,
        assignments=tuple(json.loads(row.assignments)) if row.assignments else (),
        damage=str(damage[0]) if damage else "",
    )


def check_all(connection: Connection) -> None:
    """Check all studies, and all trials with their settings and epoch records."""
    for study in study_rows(connection):
        hashes = planned(connection, study.hash)
        results(connection, hashes)
        for _ in settings(connection, trial_rows(connection, hashes)):
            pass


def check_count(connection: Connection, table: str, keys: Iterable[object]) -> None:
    """Check that a table has as many rows, with different keys, as the row of the version says."""
    count = connection.scalar(select(schema.schema_version.c[table]))
    if len({*keys}) != count:
        raise DamageError(f"one or more rows of the table {table}", "are missing or there twice")


def _check_study(row: Row[Any]) -> None:
    if not schema.matches(row):
        raise DamageError(f"the record of study {_label(row)}", MISMATCH)


def _label(row: Row[Any]) -> str:
    return f"{row.name}@{str(row.hash)[:8]}"


def known_study(connection: Connection, study: str, *, lock: bool = False) -> Row[Any] | None:
    """Read the row of a study by its hash, None if it is not in the store; lock it until the transaction ends."""
    query = _STUDIES.where(schema.studies.c.hash == study)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is not None:
        _check_study(row)
    return row


def planned(connection: Connection, study: str) -> Sequence[str]:
    """Read the hashes of a study's trials, in the order of its plan; none if the study is not in the store."""
    row = known_study(connection, study)
    if row is None:
        return ()
    hashes = [trial for _, trial in connection.execute(_LINKS.where(schema.study_trials.c.study == study))]
    if schema.plan_checksum(hashes) != row.trials:
        raise _wrong_plan(row)
    return hashes


def _wrong_plan(study: Row[Any]) -> DamageError:
    return DamageError(f"the list of trials of study {_label(study)}", MISMATCH)


def trial_rows(connection: Connection, hashes: Sequence[str]) -> dict[str, Row[Any]]:
    """Read the rows of trials, in the order of their hashes; those that the store does not know are left out."""
    found: dict[str, Row[Any]] = {}
    for chunk in chunks(hashes):
        for row in connection.execute(_TRIALS.where(schema.trials.c.hash.in_(chunk))):
            if not schema.matches(row):
                raise DamageError(record_of(row.arm, row.seed), MISMATCH, row.hash)
            found[row.hash] = row
        _check_unknown(connection, [one for one in chunk if one not in found])
    return {one: found[one] for one in hashes if one in found}


def _check_unknown(connection: Connection, hashes: Sequence[str]) -> None:
    """Check that no study plans trials that were not found."""
    links = schema.study_trials.c
    lost = connection.scalar(select(links.trial).where(links.trial.in_(hashes)).limit(1)) if hashes else None
    if lost is not None:
        raise DamageError(f"the record of trial {str(lost)[:12]}", MISSING, str(lost))


def ended(connection: Connection, hashes: Sequence[str]) -> dict[str, datetime]:
    """Read when trials ended that have ended once, by hash."""
    return {
        row.hash: row.ended_at
        for chunk in chunks(hashes)
        for row in trial_rows(connection, chunk).values()
        if row.ended_at is not None
    }


def settings(connection: Connection, trials: Mapping[str, Row[Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read the settings of trials, each with the trial's hash, given the trials' rows, which have their digests."""
    known: dict[str, tuple[str, Mapping[str, Any]]] = {}  # digest and settings by JSON, which many trials share
    columns = schema.trials.c
    for chunk in chunks([*trials]):
        for row in connection.execute(select(columns.hash, columns.settings).where(columns.hash.in_(chunk))):
            trial = trials[row.hash]
            found, decoded = known.get(row.settings) or known.setdefault(row.settings, _decoded(row.settings))
            if found != trial.settings_digest:
                raise DamageError(f"the settings of trial {trial.arm}, seed {trial.seed}", "do not match their digest")
            yield row.hash, decoded


def _decoded(text: str) -> tuple[str, Mapping[str, Any]]:
    """Settings and their digest, which is empty if they are damaged."""
    try:
        decoded = json.loads(text)
        return digest(decoded), decoded
    except (TypeError, ValueError):
        return "", {}


def outcomes(connection: Connection, hashes: Sequence[str]) -> dict[str, Outcome | None]:
    """Read how trials ended, those in the store."""
    rows = trial_rows(connection, hashes).values()
    return {row.hash: Outcome(row.outcome) if row.outcome else None for row in rows}


def results(connection: Connection, hashes: Sequence[str]) -> list[TrialResult]:
    """Read the trials that have begun among these, in this order."""
    rows = [row for row in trial_rows(connection, hashes).values() if row.attempt is not None]
    machines: dict[str, Machine] = {}
    found: list[TrialResult] = []
    for chunk in chunks(rows):  # so that only some of the records are there twice
        epochs = epoch_rows(connection, [row.hash for row in chunk])
        found += [_result(row, epochs.get(row.hash, ()), machines) for row in chunk]
    return found


def epoch_rows(connection: Connection, hashes: Sequence[str]) -> dict[str, list[EpochRow]]:
    """Read the epoch records of trials, at most `CHUNK`, as they are in the database; see `check_records`."""
    query = _EPOCHS.where(schema.epoch_records.c.trial.in_(hashes))
    groups = groupby(connection.execute(query), key=itemgetter(0))
    return {trial: [tuple(row[1:]) for row in group] for trial, group in groups}


def check_records(trial: Row[Any], rows: Sequence[EpochRow]) -> str:
    """Check a trial's epoch records, and return them as one text; see `schema.records_text`."""
    text = schema.records_text(rows)
    if extend(EMPTY, text) != trial.records:
        raise DamageError(record_of(trial.arm, trial.seed), MISMATCH, trial.hash)
    return text


def _result(row: Row[Any], epochs: Sequence[EpochRow], machines: dict[str, Machine]) -> TrialResult:
    return TrialResult(
        arm=row.arm,
        seed=row.seed,
        trial=row.hash,
        outcome=Outcome(row.outcome) if row.outcome else None,
        detail=row.detail,
        started=row.started_at,
        ended=row.ended_at if row.outcome else None,
        machine=machines.get(row.machine) or machines.setdefault(row.machine, Machine(**json.loads(row.machine))),
        epochs=_epochs(row, epochs),
        fingerprints=json.loads(row.fingerprints),
        forced=row.forced,
        reads=None if row.reads is None else tuple(json.loads(row.reads)),
    )


def _epochs(trial: Row[Any], rows: Sequence[EpochRow]) -> tuple[EpochRecord, ...]:
    text = check_records(trial, rows)
    decoded = json.loads(f"[{text[1:]}]")[2::3]  # all at once: twice as fast as one by one
    if ':"' in text:  # NaN and infinities, which JSON does not know, are text
        decoded = [{name: float(value) for name, value in metrics.items()} for metrics in decoded]
    arm, seed = trial.arm, trial.seed
    return tuple([EpochRecord(arm, seed, row[0], metrics) for row, metrics in zip(rows, decoded, strict=True)])


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split what a statement names by hash."""
    return (items[start : start + CHUNK] for start in range(0, len(items), CHUNK))


_STUDIES = select(*schema.covered(schema.studies))
_TRIALS = select(*schema.covered(schema.trials))
_LINKS = select(schema.study_trials.c.study, schema.study_trials.c.trial).order_by(
    schema.study_trials.c.study, schema.study_trials.c.position
)
_RECORDS = schema.epoch_records.c
_EPOCHS = select(_RECORDS.trial, _RECORDS.epoch, _RECORDS.attempt, _RECORDS.metrics).order_by(
    _RECORDS.trial, _RECORDS.epoch
)
