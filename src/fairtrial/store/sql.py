"""A store in a SQL database, by SQLAlchemy: SQLite in a file by default, PostgreSQL by its URL."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Self

from sqlalchemy import (
    Connection,
    CursorResult,
    Table,
    bindparam,
    delete,
    func,
    literal_column,
    null,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from fairtrial.errors import StoreError
from fairtrial.scheduler import plan
from fairtrial.spec import METRICS, Study
from fairtrial.store import queries, schema
from fairtrial.store.base import StoredStudy
from fairtrial.store.engine import PATIENCE, Database
from fairtrial.store.transactions import Transaction
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialResult


class SQLStore:
    """Keeps the promises of `store.base` in a SQL database.

    Args:
        place: a file's path or a database URL: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
        create: make the database if there is none, and bring the tables of an earlier release up to date; otherwise a
            missing one is an error, and earlier tables are read as they are.
        patience: seconds to wait for another process that holds the database, and for a server that went away.

    Raises:
        StoreError: the database can't be opened, or is not fairtrial's.
        StoreMissingError: there is none, and ``create`` is false.
        StoreVersionError: a newer fairtrial wrote it.
    """

    def __init__(self, place: str, *, create: bool = True, patience: float = PATIENCE) -> None:
        self._database = Database(place, create=create, patience=patience)
        self.attempts: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._database.close()

    @property
    def name(self) -> str:
        """The store's path or URL, without its password."""
        return self._database.name

    @property
    def beside(self) -> str:
        """Path beside which files of a run may lie: the database's own, or a name in the working folder."""
        return str(self._database.file or "fairtrial")

    def check(self) -> str:
        """Have the database look for damage in itself; returns what it found, or nothing. Only SQLite can."""
        return self._database.check()

    def hold(self, study: Study) -> AbstractContextManager[None]:
        """Keep other runs of this study in this store away; see `Store.hold`."""
        return self._database.hold(study.hash, study.label)

    lock = hold

    def write(self, work: Callable[["_Writer"], object]) -> None:
        """Make one transaction of what `work` writes."""
        with self.together():
            work(_Writer(self))

    def together(self) -> AbstractContextManager[None]:
        """Make one transaction of all writing calls of this thread within a context; see `Store.together`."""
        return self._database.together()

    def add_study(
        self,
        study: Study,
        trials: Sequence[Trial],
        at: datetime,
        *,
        source: str | None = None,
        assignments: Sequence[str] | None = None,
    ) -> None:
        """Record that a study runs, with its planned trials; see `Store.add_study`."""
        row = {"hash": study.hash, "name": study.name, "toml": study.to_toml(), "created_at": at, "last_run_at": at}
        origin = {} if source is None else {"source": source, "assignments": list(assignments or ()) or None}
        links = [{"study": study.hash, "trial": one.hash, "position": place} for place, one in enumerate(trials)]

        def work(transaction: Transaction) -> None:
            connection = transaction.connection
            known = connection.execute(
                update(schema.studies).where(schema.studies.c.hash == study.hash).values(last_run_at=at, **origin)
            )
            if known.rowcount == 0:
                # Sorted: two runs at once that share trials would otherwise wait for each other.
                new = sorted((queries.trial_row(trial) for trial in trials), key=lambda trial: str(trial["hash"]))
                connection.execute(self._new(schema.studies), row | origin)
                connection.execute(self._new(schema.trials), new)
                connection.execute(self._new(schema.study_trials), links)

        self._database.write(work)

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""
        wanted = (schema.studies.c.source, schema.studies.c.assignments)
        older = self._database.version < 2  # and being read as it is
        origin = [null().label(column.name) if older else column for column in wanted]

        def work(connection: Connection) -> list[StoredStudy]:
            found = connection.execute(_STUDIES.add_columns(*origin)).all()
            progress: dict[str, dict[tuple[str | None, bool], int]] = {}
            for study, outcome, begun, trials in connection.execute(_COUNTS):
                progress.setdefault(study, {})[outcome, bool(begun)] = trials
            return [queries.stored_study(row, progress.get(row.hash, {})) for row in found]

        return self._database.read(work)

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Look up by hash how trials ended; None for those that did not. Unknown ones are left out."""
        hashes = [trial.hash for trial in trials]

        def work(connection: Connection) -> dict[str, Outcome | None]:
            known: dict[str, Outcome | None] = {}
            for some in queries.chunks(hashes):
                found = select(schema.trials.c.hash, schema.trials.c.outcome).where(schema.trials.c.hash.in_(some))
                known |= {row.hash: Outcome(row.outcome) if row.outcome else None for row in connection.execute(found)}
            return known

        return self._database.read(work)

    def begin(self, trial: Trial, machine: Machine, at: datetime, forced: str = "") -> int:
        """Record that a trial begins, and return the number of this attempt, from 1."""
        row = {"trial_hash": trial.hash, "machine": dataclasses.asdict(machine) | {"forced": forced}, "started_at": at}

        def work(transaction: Transaction) -> int:
            _expect_one(transaction.connection.execute(_BEGIN, row), trial)
            transaction.attempts.pop(trial.hash, None)
            return _attempt(transaction, trial)

        return self._database.write(work)

    def add_epoch(self, trial: Trial, attempt: int, record: EpochRecord) -> None:
        """Record an epoch of an attempt; a `StoreError` if another attempt has begun since."""
        row = queries.epoch_row(trial, attempt, record)
        statement = _EPOCH[self._database.dialect]
        self._write(trial, attempt, lambda connection: connection.execute(statement, row))

    def add_fingerprints(self, trial: Trial, attempt: int, fingerprints: Mapping[str, str]) -> None:
        """Record an attempt's fingerprints in place of those it had; errors as `add_epoch`'s."""
        row = {"trial_hash": trial.hash, "fingerprints": dict(fingerprints)}
        self._write(trial, attempt, lambda connection: connection.execute(_FINGERPRINTS, row))

    def end(self, trial: Trial, attempt: int, outcome: Outcome, detail: str, at: datetime) -> None:
        """Record how an attempt ended, and drop what earlier ones left behind; errors as `add_epoch`'s."""
        row = {"trial_hash": trial.hash, "outcome": outcome.value, "detail": queries.storable(detail), "ended_at": at}

        def work(connection: Connection) -> None:
            if attempt > 1:
                connection.execute(_DROP_STALE, {"trial_hash": trial.hash, "current": attempt})
            connection.execute(_END, row)

        self._write(trial, attempt, work)

    def results(self, study: Study) -> list[TrialResult]:
        """Read what is known of a study's trials; those that never began are left out."""

        def work(connection: Connection) -> list[TrialResult]:
            if connection.scalar(select(schema.studies.c.hash).where(schema.studies.c.hash == study.hash)) is not None:
                return queries.results_of_study(connection, study.hash)  # and spare us the hashes of its whole plan
            return queries.results_of_trials(connection, [trial.hash for trial in plan(study)])

        return self._database.read(work)

    def _write(self, trial: Trial, attempt: int, work: Callable[[Connection], object]) -> None:
        """Write something of an attempt, if it is the current one."""

        def checked(transaction: Transaction) -> None:
            if _attempt(transaction, trial) != attempt:
                raise StoreError(
                    f"trial {trial.arm}, seed {trial.seed} was begun again by another run in this store; this run "
                    "gives way"
                )
            work(transaction.connection)

        self._database.write(checked)

    def _new(self, table: Table) -> Any:
        """Build an insertion that leaves rows alone which are there already."""
        return _INSERT[self._database.dialect](table).on_conflict_do_nothing()


class _Writer:
    """Writes attempts that have names."""

    def __init__(self, store: SQLStore) -> None:
        self._store = store

    def begin(self, trial: Trial, attempt: str, machine: Machine, at: datetime, forced: str = "") -> None:
        self._store.attempts[attempt] = self._store.begin(trial, machine, at, forced)

    def add_epoch(self, trial: Trial, attempt: str, record: EpochRecord) -> None:
        self._store.add_epoch(trial, self._store.attempts[attempt], record)

    def add_fingerprints(self, trial: Trial, attempt: str, fingerprints: Mapping[str, str]) -> None:
        self._store.add_fingerprints(trial, self._store.attempts[attempt], fingerprints)

    def end(self, trial: Trial, attempt: str, outcome: Outcome, detail: str, at: datetime) -> None:
        self._store.end(trial, self._store.attempts[attempt], outcome, detail, at)


def _attempt(transaction: Transaction, trial: Trial) -> int:
    """Look up a trial's current attempt, and make sure that it stays so until the transaction ends."""
    if trial.hash not in transaction.attempts:
        attempt = transaction.connection.scalar(_ATTEMPT, {"trial_hash": trial.hash})
        if not attempt:
            raise StoreError(f"trial {trial.arm}, seed {trial.seed} has not begun in this store")
        transaction.attempts[trial.hash] = int(attempt)
    return transaction.attempts[trial.hash]


def _expect_one(result: CursorResult[Any], trial: Trial) -> None:
    if result.rowcount != 1:
        raise StoreError(f"trial {trial.arm}, seed {trial.seed} is not in this store")


# Statements, built once: each is used for every message of every trial.

_INSERT: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_THIS = schema.trials.c.hash == bindparam("trial_hash")

_ATTEMPT = select(schema.trials.c.attempts).where(_THIS).with_for_update(key_share=True)
_BEGIN = (
    update(schema.trials)
    .where(_THIS)
    .values(
        attempts=schema.trials.c.attempts + 1,
        outcome=null(),
        detail="",
        started_at=bindparam("started_at"),
        ended_at=null(),
        machine=bindparam("machine"),
        fingerprints={},
    )
)
_FINGERPRINTS = update(schema.trials).where(_THIS).values(fingerprints=bindparam("fingerprints"))
_DROP_STALE = delete(schema.epoch_records).where(
    schema.epoch_records.c.trial == bindparam("trial_hash"), schema.epoch_records.c.attempt < bindparam("current")
)
_END = (
    update(schema.trials)
    .where(_THIS)
    .values(outcome=bindparam("outcome"), detail=bindparam("detail"), ended_at=bindparam("ended_at"))
)


def _put_epoch(dialect: str) -> Any:
    """Build the statement that records an epoch, in place of one that an attempt before left behind."""
    put = _INSERT[dialect](schema.epoch_records)
    changed = {name: put.excluded[name] for name in ("attempt", *METRICS, "extra")}
    return put.on_conflict_do_update(index_elements=["trial", "epoch"], set_=changed)


_EPOCH = {dialect: _put_epoch(dialect) for dialect in _INSERT}

_STUDIES = (
    select(*(schema.studies.c[name] for name in ("hash", "name", "toml", "last_run_at")))
    .select_from(schema.studies)
    .order_by(schema.studies.c.last_run_at.desc())
)
_BEGUN = (schema.trials.c.attempts > 0).label("begun")
_COUNTS = (
    select(schema.study_trials.c.study, schema.trials.c.outcome, _BEGUN, func.count())
    .join(schema.trials)
    .group_by(schema.study_trials.c.study, schema.trials.c.outcome, literal_column("begun"))
)
