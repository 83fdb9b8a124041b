"""Who trains the trials that studies share: of the runs that are alive, the one that began first.

A run begins by locking its study; then `in_turn` gives it a place in one order of all runs. So a run that looks for
earlier ones sees every run that will not give way to it, and no two runs train a trial at once.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from fairtrial.store import queries, schema

#: Key of the advisory lock under which PostgreSQL's runs begin; any number that nobody else uses.
_RUNS_KEY = 0x6661697274727562

_mine, _theirs = schema.study_trials.alias("mine"), schema.study_trials.alias("theirs")


def in_turn(connection: Connection, at: datetime) -> datetime:
    """Return when a run begins: now, or just after the one that began last, if another machine's clock is ahead.

    Until the transaction ends, no other run begins.
    """
    hold_runs(connection)
    studies = schema.studies.c
    last = connection.scalar(select(studies.hash).order_by(studies.last_run_at.desc()).limit(1))
    known = None if last is None else queries.known_study(connection, last)
    return at if known is None else max(at, known.last_run_at + timedelta(microseconds=1))


def hold_runs(connection: Connection) -> None:
    """Let no run begin until this transaction, which writes, ends."""
    if connection.dialect.name == "postgresql":  # SQLite has one writer at a time
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_RUNS_KEY})")


def earlier(connection: Connection, study: str) -> dict[str, str]:
    """List the studies, by hash, that share trials with one and last began to run before it did, with their labels."""
    studies = schema.studies.c
    own = select(studies.last_run_at).where(studies.hash == study).scalar_subquery()
    sharing = select(_theirs.c.study).join(_mine, _mine.c.trial == _theirs.c.trial).where(_mine.c.study == study)
    rows = connection.execute(
        select(studies.hash, studies.name).where(studies.hash.in_(sharing), studies.last_run_at < own)
    )
    return {row.hash: f"{row.name}@{row.hash[:8]}" for row in rows}


def shared(connection: Connection, study: str, others: Collection[str]) -> dict[str, str]:
    """List the trials of a study that some others plan too, by hash, with the hash of one of those."""
    if not others:
        return {}
    pairs = select(_mine.c.trial, _theirs.c.study).join(_theirs, _mine.c.trial == _theirs.c.trial)
    rows = connection.execute(pairs.where(_mine.c.study == study, _theirs.c.study.in_(others)))
    return {row.trial: row.study for row in rows}
