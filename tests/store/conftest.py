"""Fixtures for stores on a server."""

import psycopg
import pytest

_OTHERS = (
    "FROM pg_stat_activity"
    " WHERE backend_type = 'client backend' AND datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture
def end_sessions(postgresql):
    """End all sessions of the test's database, wait until they have ended, and return how many there were."""

    def end_sessions():
        with psycopg.connect(postgresql, autocommit=True) as connection:
            (ended,) = connection.execute(f"SELECT count(pg_terminate_backend(pid, 10000)) {_OTHERS}").fetchone()
            assert connection.execute(f"SELECT count(*) {_OTHERS}").fetchone() == (0,)
        return ended

    return end_sessions
