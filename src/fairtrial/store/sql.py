"""A store in a SQL database, by SQLAlchemy: SQLite in a file by default, PostgreSQL by its URL."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from typing import Self, TypeVar

from sqlalchemy import Connection, select, update

from fairtrial.scheduler import plan
from fairtrial.spec import Study, content
from fairtrial.store import queries, schema
from fairtrial.store.base import StoredStudy, Writer
from fairtrial.store.database import PATIENCE, Database
from fairtrial.store.writer import INSERT, History, SQLWriter
from fairtrial.trial import Outcome, Trial, TrialResult

T = TypeVar("T")


class SQLStore:
    """Keeps the promises of `store.base` in a SQL database.

    Args:
        place: a file's path or a database URL: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
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

    def __init__(self, place: str, *, create: bool = True, patience: float = PATIENCE) -> None:
        self._database = Database(place, create=create, patience=patience)

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

    def lock(self, study: Study) -> AbstractContextManager[None]:
        """Lock a study in this store against other runs; see `Store.lock`."""
        return self._database.lock(study.hash, study.label)

    def write(self, work: Callable[[Writer], T]) -> T:
        """Run a function that writes, as one transaction; see `Store.write`."""
        history: History = {}
        return self._database.write(lambda connection: work(SQLWriter(connection, history)))

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
        known = update(schema.studies).where(schema.studies.c.hash == study.hash).values(last_run_at=at, **origin)
        insert = INSERT[self._database.dialect]

        def work(connection: Connection) -> None:
            if connection.execute(known).rowcount == 0:
                # Sorted: two runs at once that share trials would otherwise wait for each other.
                new = [
                    {"hash": one.hash, "arm": one.arm, "seed": one.seed, "settings": content(one.settings)}
                    for one in sorted(trials, key=lambda one: one.hash)
                ]
                connection.execute(insert(schema.studies).on_conflict_do_nothing(), row | origin)
                connection.execute(insert(schema.trials).on_conflict_do_nothing(), new)
                connection.execute(insert(schema.study_trials).on_conflict_do_nothing(), links)

        self._database.write(work)

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""
        return self._database.read(queries.all_studies)

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Look up by hash how trials ended; None for those that did not. Unknown ones are left out."""
        return self._database.read(partial(queries.outcomes_of_trials, hashes=[trial.hash for trial in trials]))

    def results(self, study: Study) -> list[TrialResult]:
        """Read what is known of a study's trials; those that never began are left out."""

        def work(connection: Connection) -> list[TrialResult]:
            if connection.scalar(select(schema.studies.c.hash).where(schema.studies.c.hash == study.hash)) is not None:
                return queries.results_of_study(connection, study.hash)  # and spare us the hashes of its whole plan
            return queries.results_of_trials(connection, [trial.hash for trial in plan(study)])

        return self._database.read(work)
