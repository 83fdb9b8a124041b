"""One transaction of writing calls that outlives its connection: kept in memory, and said again on another."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import RootTransaction
from sqlalchemy.exc import DBAPIError, OperationalError

from fairtrial.errors import StoreError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0

#: PostgreSQL's states after which the same transaction may be tried again: serialization failure, deadlock.
_AGAIN = {"40001", "40P01"}


@dataclass
class Transaction:
    """An open transaction, and what it is sure of until it ends.

    Attributes:
        connection: where its statements go.
        attempts: the current attempt of trials, by hash. Nobody else can begin these before the transaction ends: it
            holds the whole database (SQLite) or their rows (PostgreSQL).
    """

    connection: Connection
    attempts: dict[str, int] = field(default_factory=dict)


#: A writing call: what it does in a transaction, any number of times with the same result.
Work = Callable[[Transaction], T]


class UnitOfWork:
    """Writing calls that are one transaction.

    If the connection is lost on the way, all calls so far are made again on a new one. If it is lost while the database
    commits, nobody knows whether it did; ``claim`` finds out, as it is part of the transaction.

    Args:
        engine: gives connections whose transactions write.
        claim: record in the transaction that it is this one; False if it has been committed already. None for a
            database whose connections can't be lost.
        reconnecting: called before another connection is asked for.
        patience: seconds to try to get one.
    """

    def __init__(
        self,
        engine: Engine,
        claim: Callable[[Connection], bool] | None,
        reconnecting: Callable[[], None],
        patience: float,
    ) -> None:
        self._engine = engine
        self._claim = claim
        self._reconnecting = reconnecting
        self._patience = patience
        self._done: list[tuple[Work[object], object]] = []
        self._transaction: Transaction | None = None
        self._lost = False
        self._committed = False
        self._spoilt: BaseException | None = None

    def do(self, work: Work[T], *, repeat: bool = True) -> T:
        """Make a call; ``repeat`` says whether it is to be made again if the connection is lost later.

        A call that refuses (raises a `StoreError`) must have done nothing; the transaction stays usable. After an error
        of the database it is spoilt, and can't be committed.
        """
        result = self._persist(lambda: work(self._opened()))
        if repeat:
            self._done.append((work, result))
        return result

    def commit(self) -> None:
        """Make all calls durable."""
        if self._spoilt is not None:
            raise self._spoilt
        if self._done:
            self._persist(self._commit)

    def close(self) -> None:
        """Undo what was not committed, and let the connection go."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.connection.close()  # a transaction that is still open is rolled back

    def _persist(self, step: Callable[[], T]) -> T:
        """Take a step, again after each lost connection."""
        if self._spoilt is not None:
            raise self._spoilt
        for pause in pauses(self._patience):
            try:
                return step()
            except StoreError:
                raise
            except BaseException as error:
                again = self._claim is not None and isinstance(error, DBAPIError) and is_lost(error)
                if pause is None or not again:
                    self._spoilt = error  # SQLite, for one, may have undone half a transaction by itself
                    raise
                self._drop()
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _opened(self) -> Transaction:
        if self._transaction is None:
            if self._lost:
                self._reconnecting()
            connection = self._engine.connect()
            self._transaction = Transaction(connection)
            connection.begin()
            self._committed = self._claim is not None and not self._claim(connection)
            assert self._lost or not self._committed, "a transaction that has just begun can't be committed"
            if not self._committed:
                self._say_again(self._transaction)
        return self._transaction

    def _say_again(self, transaction: Transaction) -> None:
        for work, result in self._done:
            if work(transaction) != result:
                self._spoilt = StoreError(
                    "the connection was lost, and meanwhile another run began the same trials in this store; this run "
                    "gives way"
                )
                raise self._spoilt

    def _commit(self) -> None:
        transaction = self._opened()
        if not self._committed:
            commit(transaction.connection)

    def _drop(self) -> None:
        self._lost = True
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.connection.invalidate()
            transaction.connection.close()


def commit(connection: Connection) -> None:
    """Commit a connection's transaction."""
    transaction = connection.get_transaction()
    assert isinstance(transaction, RootTransaction)
    transaction.commit()


def is_lost(error: DBAPIError) -> bool:
    """Tell whether an error of a server says that the connection is gone, or that the same may be tried again."""
    no_connection = isinstance(error, OperationalError) and error.statement is None
    return error.connection_invalidated or no_connection or getattr(error.orig, "sqlstate", None) in _AGAIN


def pauses(patience: float) -> Iterator[float | None]:
    """List the pauses after each try: none, then longer ones, ``patience`` seconds in all, and None after the last."""
    yield 0.0
    pause, total = _FIRST_PAUSE_SECONDS, 0.0
    while total < patience:
        yield pause
        total += pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
    yield None
