"""Retrying transactions on a new connection after one was lost."""

import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, OperationalError

T = TypeVar("T")

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 5.0

#: PostgreSQL's states after which the same transaction may be tried again: serialization failure, deadlock.
_TRY_AGAIN = {"40001", "40P01"}


def persist(step: Callable[[], T], patience: float, reconnect: Callable[[], None]) -> T:
    """Take a step, and again after each lost connection, for up to ``patience`` seconds from the first loss.

    Args:
        step: may be taken any number of times with the same result. A connection that is lost while the server commits
            leaves open whether it did.
        patience: seconds; one more try is always made.
        reconnect: called before each further try; may itself fail for want of a connection.
    """
    give_up_at: float | None = None
    pause = 0.0
    while True:
        try:
            if give_up_at is not None:
                reconnect()
            return step()
        except DBAPIError as error:
            now = time.monotonic()
            give_up_at = give_up_at or now + patience
            if not _is_lost(error) or now + pause > give_up_at:
                raise
        time.sleep(pause)
        pause = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)


def _is_lost(error: DBAPIError) -> bool:
    """Tell whether an error says that the connection is gone, or that the same may be tried again."""
    no_connection = isinstance(error, OperationalError) and error.statement is None
    return error.connection_invalidated or no_connection or getattr(error.orig, "sqlstate", None) in _TRY_AGAIN
