"""A store in a SQL database, by SQLAlchemy: SQLite in a file by default, PostgreSQL by its URL."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, update

from fairtrial.scheduler import plan
from fairtrial.spec import Study, content
from fairtrial.store import queries, schema
from fairtrial.store.base import StoredStudy, Writer
from fairtrial.store.database import Database
from fairtrial.store.writer import INSERT, History, SQLWriter
from fairtrial.trial import Outcome, Trial, TrialResult

T = TypeVar("T")


class SQLStore(Database):
    """Keeps studies and results in a SQL database; the promises are those of `store.base`.

    Args:
        url: a file's path or a database URL: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
        create: make the database if there is none; otherwise a missing one is an error.
        patience: seconds to wait for another process that uses the database, and for a server that went away.

    Raises:
        StoreError: the database can't be opened, or is not fairtrial's.
        StoreMissingError: there is none, and ``create`` is false.
        StoreVersionError: a newer or a development version of fairtrial made it.

    Example:
        >>> with SQLStore(":memory:") as store:
        ...     store.studies()
        []
    """

    def lock(self, study: Study) -> AbstractContextManager[None]:
        """Lock a study in this store against other runs; see `Store.lock`."""
        return self._lock(study.hash, study.label)

    def write(self, work: Callable[[Writer], T]) -> T:
        """Run a function that writes, as one transaction; see `Store.write`."""
        history: History = {}
        return self._write(lambda connection: work(SQLWriter(connection, history)))

    def add_study(self, study: Study, at: datetime) -> None:
        """Record that a study runs; see `Store.add_study`."""
        row = {"hash": study.hash, "name": study.name, "toml": study.to_toml(), "created_at": at, "last_run_at": at}
        source, overrides = study.origin.source, study.origin.overrides
        origin = {} if source is None else {"source": source, "assignments": list(overrides) or None}
        known = update(schema.studies).where(schema.studies.c.hash == study.hash).values(last_run_at=at, **origin)
        insert = INSERT[self._url.dialect]

        def work(connection: Connection) -> None:
            if connection.execute(known).rowcount == 0:
                trials = plan(study)
                new = [
                    {"hash": one.hash, "arm": one.arm, "seed": one.seed, "settings": content(one.settings)}
                    for one in sorted(trials, key=lambda one: one.hash)  # two runs that share trials must not deadlock
                ]
                links = [{"study": study.hash, "trial": one.hash, "position": n} for n, one in enumerate(trials)]
                connection.execute(insert(schema.studies).on_conflict_do_nothing(), row | origin)
                connection.execute(insert(schema.trials).on_conflict_do_nothing(), new)
                connection.execute(insert(schema.study_trials).on_conflict_do_nothing(), links)

        self._write(work)

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""
        return self._read(queries.all_studies)

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Return by hash how trials ended; see `Store.outcomes`."""
        return self._read(partial(queries.outcomes, hashes=[trial.hash for trial in trials]))

    def results(self, study: Study) -> list[TrialResult]:
        """Read the results of a study's trials; see `Store.results`."""

        def work(connection: Connection) -> list[TrialResult]:
            planned = queries.planned(connection, study.hash)  # faster than hashing all trials again
            return queries.results(connection, planned or [trial.hash for trial in plan(study)])

        return self._read(work)
