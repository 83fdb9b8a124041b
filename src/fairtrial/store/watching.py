"""A store as the live page reads it: cheap looks for changes, and short transactions that hinder no run.

A run's commit in SQLite waits until nobody reads. So nothing here reads all of a study at once: a look at what has
changed takes milliseconds, and results are read a few trials at a time, each at most once for every change. Counts come
from the database's own sums, unlike those of `Store.studies`, which compare every row with its checksum; results are
compared with theirs, as everywhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, func, select

from fairtrial.errors import StoreMissingError
from fairtrial.store import queries, schema
from fairtrial.store.base import StoredStudy
from fairtrial.store.sql import SQLStore
from fairtrial.trial import Outcome, TrialResult

#: Trials whose results one transaction reads.
TRIALS_PER_READ = 200


@dataclass(frozen=True)
class ListedStudy:
    """A study in a list, with its progress as the database counts it.

    Attributes:
        hash: its content hash.
        name: its name.
        last_run: when it last began to run, in UTC.
        trials: how many trials it plans.
        outcomes: how many of them have ended, by outcome.
        started: how many have begun but not ended: they are running, or were interrupted.
        running: whether a process runs it now.
    """

    hash: str
    name: str
    last_run: datetime
    trials: int
    outcomes: dict[Outcome, int]
    started: int
    running: bool

    @property
    def label(self) -> str:
        """The study's name with the head of its hash."""
        return f"{self.name}@{self.hash[:8]}"


@dataclass(frozen=True)
class Mark:
    """A trial of a plan, how far it is, and a mark that changes whenever anything of the trial does.

    Attributes:
        trial: its hash.
        arm: the arm's name.
        seed: the replicate.
        mark: the checksum of all that the store has of it but its settings.
        attempt: of its last attempt; None if it has not begun.
        outcome: how it ended; None if it has not.
        started: when its last attempt began, in UTC.
        ended: when an attempt last ended, in UTC.
        epochs: number of its last epoch record.
    """

    trial: str
    arm: str
    seed: int
    mark: str
    attempt: str | None
    outcome: str | None
    started: datetime | None
    ended: datetime | None
    epochs: int

    @property
    def begun(self) -> bool:
        """Whether the trial has begun, however it ended."""
        return self.attempt is not None

    @property
    def open(self) -> bool:
        """Whether it has begun and not ended: it is running, or was interrupted."""
        return self.begun and self.outcome is None


class WatchedStore(SQLStore):
    """A store that is opened to read, and is looked at again and again.

    Args:
        url: a file's path or a database URL, as of `SQLStore`.
        patience: seconds to wait for another process that uses the database, and for a server that went away.

    Attributes:
        url: as given, for whoever opens the store once more.

    Example:
        >>> with SQLStore("watched.db"), WatchedStore("watched.db") as watched:
        ...     watched.version() == watched.version(), watched.listed()
        (True, [])
    """

    def __init__(self, url: str, *, patience: float = 2.0) -> None:
        super().__init__(url, create=False, patience=patience, writes=False)
        self.url = url

    def version(self) -> tuple[Any, ...]:
        """Return what differs whenever something was written since; equal while nothing was.

        That is SQLite's own counter of changes, with the file's number; of a server, its newest transactions, so that
        it may differ for another database's sake. This takes a fraction of a millisecond, or one message.

        Raises:
            StoreMissingError: the file is not there any more.
        """

        def work(connection: Connection) -> tuple[Any, ...]:
            if connection.dialect.name == "postgresql":
                return (connection.exec_driver_sql("SELECT CAST(txid_current_snapshot() AS text)").scalar(),)
            counted = id(connection.connection.dbapi_connection)  # the counter is that of one connection
            return counted, connection.exec_driver_sql("PRAGMA data_version").scalar()

        return *self._file_number(), *self._read(work)

    def _file_number(self) -> tuple[int, ...]:
        if self.file is None:
            return ()
        try:
            found = self.file.stat()
        except OSError as error:
            raise StoreMissingError(f"the store {self.name} is not there any more: {error.strerror}") from error
        return found.st_dev, found.st_ino

    def listed(self) -> list[ListedStudy]:
        """List all studies with their progress, the one that ran last first; not those that were removed."""

        def work(connection: Connection) -> list[ListedStudy]:
            rows = connection.execute(_STUDIES).all()
            counts: dict[str, dict[tuple[bool, str | None], int]] = {row.hash: {} for row in rows}
            for study, begun, outcome, number in connection.execute(_COUNTS):
                counts.get(study, {})[bool(begun), outcome] = number
            return [
                ListedStudy(
                    hash=row.hash,
                    name=row.name,
                    last_run=row.last_run_at,
                    trials=sum(counts[row.hash].values()),
                    outcomes={outcome: counts[row.hash].get((True, outcome.value), 0) for outcome in Outcome},
                    started=counts[row.hash].get((True, None), 0),
                    running=self._is_locked(connection, row.hash),
                )
                for row in rows
            ]

        return self._read(work)

    def study(self, study: str) -> StoredStudy | None:
        """Read the study whose hash begins so, without its progress.

        None if it is not in the store, was removed, or is one of several.
        """

        def work(connection: Connection) -> StoredStudy | None:
            hashes = schema.studies.c.hash
            beginning = select(hashes).where(hashes.startswith(study, autoescape=True), schema.studies.c.toml != "")
            found = connection.scalars(beginning.limit(2)).all()
            row = queries.known_study(connection, found[0]) if len(found) == 1 else None
            if row is None:
                return None
            return StoredStudy(row.name, row.hash, row.toml, row.last_run_at, 0, {}, 0)

        return self._read(work)

    def is_running(self, study: str) -> bool:
        """Whether a process runs a study, by its hash, in this store now."""
        return self._read(lambda connection: self._is_locked(connection, study))

    def marks(self, study: str) -> list[Mark]:
        """List the trials of a study's plan, by its hash, each with a mark that changes with the trial."""
        links, trials = schema.study_trials.c, schema.trials.c
        query = (
            select(trials.hash, trials.arm, trials.seed, trials.checksum, trials.attempt, trials.outcome)
            .add_columns(trials.started_at, trials.ended_at, trials.last_epoch)
            .join(schema.study_trials, links.trial == trials.hash)
            .where(links.study == study)
            .order_by(links.position)
        )
        return self._read(lambda connection: [Mark(*row) for row in connection.execute(query)])

    def read_trials(self, trials: Sequence[str]) -> Iterator[TrialResult]:
        """Read the results of trials that have begun, by hash, a few in each transaction."""
        for start in range(0, len(trials), TRIALS_PER_READ):
            part = trials[start : start + TRIALS_PER_READ]
            yield from self._read(partial(queries.results, hashes=part))


_STUDIES = (
    select(schema.studies.c.hash, schema.studies.c.name, schema.studies.c.last_run_at)
    .where(schema.studies.c.toml != "")
    .order_by(schema.studies.c.last_run_at.desc())
)
_BEGUN = schema.trials.c.attempt.is_not(None)
_COUNTS = (
    select(schema.study_trials.c.study, _BEGUN, schema.trials.c.outcome, func.count())
    .join(schema.trials, schema.trials.c.hash == schema.study_trials.c.trial)
    .group_by(schema.study_trials.c.study, _BEGUN, schema.trials.c.outcome)
)
