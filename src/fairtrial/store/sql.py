"""A store in a SQL database, by SQLAlchemy: SQLite in a file by default, PostgreSQL by its URL."""

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, event, insert
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from fairtrial.errors import StoreDamagedError, StoreError, StoreLockedError, StoreMissingError
from fairtrial.failpoints import failpoint
from fairtrial.history import History
from fairtrial.scheduler import plan
from fairtrial.snapshots import Snapshot
from fairtrial.spec import Study
from fairtrial.store import locks, merging, queries, removal, schema, sharing, snapshots, stages, tables
from fairtrial.store.base import StoredStudy, Writer
from fairtrial.store.checksums import DamageError, named
from fairtrial.store.engine import DELETED, explain, is_damage, is_lost, make_engine
from fairtrial.store.url import DatabaseURL
from fairtrial.store.writer import Attempts, SQLWriter, add_study
from fairtrial.trial import Outcome, Trial, TrialResult

T = TypeVar("T")

#: Between two tries to reach a server.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0

#: Servers that this process has reached: only these are waited for when a store is opened; another may be misspelled.
_REACHED: set[str] = set()


class SQLStore:
    """Keeps studies and results in a SQL database; the promises are those of `store.base`.

    Args:
        url: a file's path or a database URL: ``sqlite:///PATH`` or ``postgresql://USER@HOST/DATABASE``.
        create: make the database if there is none; otherwise a missing one is an error.
        patience: seconds to wait for another process that uses the database, and for a server that went away.
        writes: whether anything will be written; if not, the database refuses it. By default as ``create``.

    Raises:
        StoreError: the database can't be opened, or is not fairtrial's.
        StoreMissingError: there is none, and ``create`` is false.
        StoreVersionError: a newer or a development version of fairtrial made it.
        StoreDamagedError: it is damaged; also of every method, if what it reads is.

    Example:
        >>> with SQLStore(":memory:") as store:
        ...     store.studies()
        []
    """

    _opened: Path | None = None  # the file's full path, once it is open

    def __init__(self, url: str, *, create: bool = True, patience: float = 30.0, writes: bool | None = None) -> None:
        self._url = DatabaseURL.of(url)
        self._patience = patience
        self._file = self._url.file  # None in memory, and on a server
        if not create and self._file is not None and not self._file.exists():
            raise StoreMissingError(f"no store at {self.name}: run a study first, or name another with --store")
        in_memory = self._url.is_sqlite and self._file is None  # then all threads share one connection
        self._one_thread = threading.RLock() if in_memory else contextlib.nullcontext()
        self._locks: list[locks.AdvisoryLock] = []
        with self._explained("can't be opened"):
            writes = create if writes is None else writes
            self._engine = make_engine(self._url, patience, writes=writes)
            check, reached = partial(self._check_tables, create=create, writes=writes), self.name in _REACHED
            event.listen(self._engine, "connect", lambda *_: _REACHED.add(self.name))
            try:
                self._retry(check) if reached else check()
            except BaseException:
                self._engine.dispose()  # a connection that is left open would keep others from the database
                raise
        if self._file is not None:
            self._opened = self._file.resolve()
            event.listen(self._engine, "do_connect", self._check_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._engine.dispose()

    @property
    def name(self) -> str:
        """The store's path or URL, without its password."""
        return self._url.name

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None for one in memory, or on a server."""
        return self._opened

    @property
    def beside(self) -> str:
        """Path to which suffixes are added for files of a run; see `Store.beside`."""
        return str(self._file or "fairtrial")

    def check(self) -> str:
        """Look for damage in the whole database, and return a line about what was found first, or nothing."""

        def work(connection: Connection) -> None:
            if found := self._structure(connection, "integrity_check"):
                raise DamageError("its structure", f"is broken ({found})")
            queries.check_all(connection)
            snapshots.check_all(connection)
            stages.all_stages(connection)

        try:
            self._read(work)
        except StoreDamagedError as error:
            return str(error)
        return ""

    def _structure(self, connection: Connection, check: str) -> str:
        """Let SQLite check the database's own structure, and return what it found, or nothing."""
        if not self._url.is_sqlite:
            return ""  # a server has no such check
        found = connection.exec_driver_sql(f"PRAGMA {check}(1)").scalar()
        return "" if found == "ok" else str(found)

    def lock(self, study: Study | StoredStudy) -> AbstractContextManager[None]:
        """Lock a study in this store against other runs; see `Store.lock`."""
        if not self._url.is_sqlite:
            return self._lock_on_server(study)
        if self._opened is None:  # in memory: no other process can open it
            return locks.lock_in_process((id(self), study.hash), study.label)
        return locks.lock_file(self._lock_file(study.hash), study.label)

    def write(self, work: Callable[[Writer], T]) -> T:
        """Run a function that writes, as one transaction; see `Store.write`."""
        attempts: Attempts = {}

        def transaction(connection: Connection) -> T:
            writer = SQLWriter(connection, attempts)
            result = work(writer)
            writer.flush()
            return result

        return self._write(transaction)

    def add_study(self, study: Study, at: datetime) -> None:
        """Record that a study runs; see `Store.add_study`."""

        def work(connection: Connection) -> None:
            add_study(connection, study, sharing.in_turn(connection, at))
            stages.register(connection, study, at)

        self._write(work)

    def register(self, study: Study, at: datetime) -> None:
        """Register what a study in the store asks; see `Store.register`."""
        self._write(lambda connection: stages.register(connection, study, at))

    def history(self, study: Study) -> History:
        """Read what was asked of a study's trials; see `Store.history`."""
        return self._read(lambda connection: stages.history(connection, study, datetime.now(UTC)))

    def trained_elsewhere(self, study: Study) -> dict[str, str]:
        """Return which trials of a study other runs train; see `Store.trained_elsewhere`."""

        def work(connection: Connection) -> dict[str, str]:
            earlier = sharing.earlier(connection, study.hash)
            alive = {other: label for other, label in earlier.items() if self._is_locked(connection, other)}
            return {trial: alive[other] for trial, other in sharing.shared(connection, study.hash, alive).items()}

        return self._read(work)

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""
        return self._read(queries.all_studies)

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Return by hash how trials ended; see `Store.outcomes`."""

        def work(connection: Connection) -> dict[str, Outcome | None]:
            with named(lambda: trials):
                return queries.outcomes(connection, [trial.hash for trial in trials])

        return self._read(work)

    def results(self, study: Study) -> list[TrialResult]:
        """Read the results of a study's trials; see `Store.results`."""

        def work(connection: Connection) -> list[TrialResult]:
            planned = queries.planned(connection, study.hash)  # faster than hashing all trials again
            with named(lambda: plan(study), study.label):
                return queries.results(connection, planned or [trial.hash for trial in plan(study)])

        return self._read(work)

    def snapshots(self, trials: Sequence[str], *, tensors: bool = True) -> dict[str, tuple[Snapshot, ...]]:
        """Read the snapshots of trials; see `Store.snapshots`."""
        return self._read(lambda connection: snapshots.read(connection, trials, tensors=tensors))

    def merge(self, sources: Sequence["SQLStore"], keep: merging.Keep | None = None) -> tuple[merging.Merged, ...]:
        """Add what other stores hold, all or nothing; see `fairtrial.maintenance.merge_stores`."""

        def work(connection: Connection) -> tuple[merging.Merged, ...]:
            sharing.hold_runs(connection)
            self._refuse_running(connection)
            return tuple(merging.merge(connection, read, name, keep) for name, read in reads)

        with contextlib.ExitStack() as reading:
            reads = [(source.name, reading.enter_context(source.snapshot())) for source in sources]
            found = self._write(work)
        failpoint("merge.committed")
        return found

    def would_remove(self, study: str) -> removal.Removal:
        """Find what goes with a study, by its hash."""
        return self._read(lambda connection: removal.removal(connection, study))

    def remove(self, study: str) -> removal.Removal:
        """Remove a study that is locked, by its hash, and what goes with it; see `store.removal`."""

        def work(connection: Connection) -> removal.Removal:
            sharing.hold_runs(connection)
            return removal.remove(connection, study)

        return self._write(work)

    def orphans(self) -> tuple[Sequence[str], int]:
        """List the trials that no study plans, and how many bytes they take."""
        return self._read(removal.orphans)

    def without_runs(self, work: Callable[[removal.Wanted], T]) -> T:
        """Remove the trials that no study plans, and call a function while no run can begin; refused if one is alive.

        It gets what the store knows of trials.
        """

        def transaction(connection: Connection) -> T:
            sharing.hold_runs(connection)
            self._refuse_running(connection)
            removal.remove_orphans(connection)
            return work(removal.wanted(connection))

        return self._write(transaction)

    def wanted(self) -> removal.Wanted:
        """What the store knows of trials: which are to be run, or run on."""
        return self._read(removal.wanted)

    def unused(self) -> tuple[int, int]:
        """How many bytes of the file are unused, and how many it has; a server has no file."""
        if self._file is None:
            return 0, 0

        def work(connection: Connection) -> tuple[int, int]:
            pragmas = ("page_size", "freelist_count", "page_count")
            page, free, pages = (connection.exec_driver_sql(f"PRAGMA {name}").scalar() or 0 for name in pragmas)
            return page * free, page * pages

        return self._read(work)

    def shrink(self) -> None:
        """Give the unused bytes of the file back."""
        with self._explained("can't be made smaller"), contextlib.closing(self._engine.raw_connection()) as connection:
            connection.cursor().execute("VACUUM")

    def identity(self) -> tuple[Any, ...]:
        """What two objects have in common that are stores in the same database."""
        if self._url.is_sqlite:
            found = self._opened.stat() if self._opened is not None else None
            return (id(self),) if found is None else (found.st_dev, found.st_ino)
        return self._read(tables.identity)

    @contextmanager
    def snapshot(self) -> Iterator[merging.Read]:
        """Read one state of the database in several calls; refused if a study is being run."""
        explained = partial(self._explained, "can't be read")
        options = {} if self._url.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        begun = self._engine.execution_options(**options).begin()
        with explained(), self._one_thread, begun as connection:

            def read(work: Callable[[Connection], T]) -> T:
                with explained():
                    return work(connection)

            read(self._refuse_running)
            yield read

    def _refuse_running(self, connection: Connection) -> None:
        for row in queries.study_rows(connection):
            if self._is_locked(connection, row.hash):
                raise StoreLockedError(
                    f"{row.name}@{row.hash[:8]} is being run in {self.name}: wait for it or stop it, and try again"
                )

    def _read(self, work: Callable[[Connection], T]) -> T:
        """Run a function that only reads: it sees one state of the database, and blocks no writer for long."""
        options = {} if self._url.is_sqlite else {"isolation_level": "REPEATABLE READ"}  # as SQLite's anyway
        with self._explained("can't be read"):
            return self._retry(partial(self._transact, work, options))

    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run a function that writes, as one transaction; again on a new connection if its connection was lost."""
        with self._explained("can't be written"):
            return self._retry(partial(self._transact, work, {"fairtrial_write": True}))

    def _is_locked(self, connection: Connection, study: str) -> bool:
        """Whether a run has locked a study, by its hash."""
        if not self._url.is_sqlite:
            return locks.is_locked_on_server(connection, study)
        if self._opened is None:
            return locks.is_locked_in_process((id(self), study))
        return locks.is_locked_file(self._lock_file(study))

    def _lock_file(self, study: str) -> Path:
        assert self._opened is not None
        return self._opened.with_name(f"{self._opened.name}.{study[:8]}.lock")

    @contextmanager
    def _lock_on_server(self, study: Study | StoredStudy) -> Iterator[None]:
        with self._explained("can't be locked"):
            lock = self._retry(lambda: locks.AdvisoryLock(self._engine, study.hash, study.label))
        self._locks.append(lock)
        try:
            yield
        finally:
            self._locks.remove(lock)
            lock.release()

    def _retry(self, step: Callable[[], T]) -> T:
        """Take a step; if a server's connection is lost, retry until ``patience`` seconds have passed, once at least.

        Each new try takes lost locks again first. The step may be taken any number of times with the same result: a
        connection that is lost during a commit leaves open whether the server did it.
        """
        give_up_at: float | None = None
        pause = 0.0
        while True:
            try:
                if give_up_at is not None:
                    for lock in self._locks:
                        lock.renew()
                return step()
            except DBAPIError as error:
                now = time.monotonic()
                give_up_at = give_up_at or now + self._patience
                if self._url.is_sqlite or not is_lost(error) or now > give_up_at:
                    raise
            time.sleep(min(pause, max(0.0, give_up_at - now)))
            pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)

    def _transact(self, work: Callable[[Connection], T], options: dict[str, Any]) -> T:
        with self._one_thread, self._engine.execution_options(**options).begin() as connection:
            return work(connection)

    def _check_file(self, *_: object) -> None:
        """Refuse further connections to a file that was deleted: SQLite would make an empty one."""
        if self._opened is not None and not self._opened.exists():
            raise StoreError(f"the store {self.name}: {DELETED}")

    def _check_tables(self, *, create: bool, writes: bool) -> None:
        with self._engine.begin() as connection:
            exist = self._has_tables(connection)
            if exist and (not writes or tables.complete(connection)):
                return
        if not exist and not create:
            raise StoreMissingError(f"{self.name} holds no studies yet")
        with self._engine.execution_options(fairtrial_write=True).begin() as connection:
            tables.hold(connection)
            exist = self._has_tables(connection)  # again: another process may have been faster
            schema.metadata.create_all(connection)
            if not exist:
                connection.execute(insert(schema.schema_version).values(version=schema.VERSION, studies=0, stages=0))

    def _has_tables(self, connection: Connection) -> bool:
        return tables.are_there(connection, self.name, lambda: self._structure(connection, "quick_check"))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn the database's errors into one line that names the store and contains no password."""
        try:
            yield
        except DamageError as damage:
            remedy = "copy back a backup, or train its study again in another store (--store)"
            raise StoreDamagedError(self._url.redact(f"the store {self.name} is damaged: {damage}; {remedy}")) from None
        except (SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
            kind = StoreDamagedError if is_damage(error) else StoreError
            line = self._url.redact(f"the store {self.name} {what}: {explain(error, self._file, self._opened)}")
            raise kind(line) from (None if self._url.has_password(str(error)) else error)
