"""The tables of the database.

Nothing has been released yet: `VERSION` is 1, and there are no migrations. Once a release exists, a change to a table
is a new version, and a migration of that number (by Alembic, in ``store/migrations``) updates older databases;
`store.sql` refuses newer ones. The tables list no metrics: what an epoch records is one column of JSON.
"""

from datetime import UTC, datetime

from sqlalchemy import JSON, Column, DateTime, Dialect, ForeignKey, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

#: Version of the tables below.
VERSION = 1

#: A table that only databases of development versions, before any release, have. Nothing reads those.
DEVELOPMENT = "fairtrial_schema"

metadata = MetaData()


class UTCDateTime(TypeDecorator[datetime]):
    """A time with its zone, stored in UTC; SQLite drops the zone, and reading adds it again."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime:  # noqa: ARG002
        """Convert to UTC; a time without a zone is a bug."""
        if value is None or value.tzinfo is None:
            raise ValueError("a time without a zone can't be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return a time in UTC."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


_HASH = String(64)
_JSON = JSON(none_as_null=True)

schema_version = Table("fairtrial_version", metadata, Column("version", Integer, nullable=False))

studies = Table(
    "studies",
    metadata,
    Column("hash", _HASH, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("toml", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("last_run_at", UTCDateTime, nullable=False),
    Column("source", Text),
    Column("assignments", _JSON),
)

trials = Table(
    "trials",
    metadata,
    Column("hash", _HASH, primary_key=True),
    Column("arm", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("settings", _JSON, nullable=False),
    Column("settings_digest", _HASH, nullable=False),
    Column("attempt", Text),  # id of the last one; none if the trial has not begun
    Column("outcome", String(16)),
    Column("detail", Text, nullable=False, default=""),
    Column("started_at", UTCDateTime),
    Column("ended_at", UTCDateTime),  # of the last attempt that ended; outcome is empty while a later one runs
    Column("machine", _JSON),
    Column("forced", Text, nullable=False, default=""),
    Column("fingerprints", _JSON),
    Column("reads", _JSON),  # what a user's training loop read of its settings, if known
)

study_trials = Table(
    "study_trials",
    metadata,
    Column("study", _HASH, ForeignKey("studies.hash"), primary_key=True),
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("position", Integer, nullable=False),
)
Index("ix_study_trials_trial", study_trials.c.trial)

stages = Table(
    "stages",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("study", _HASH, ForeignKey("studies.hash"), nullable=False),
    Column("question", _JSON, nullable=False),
    Column("registered_at", UTCDateTime, nullable=False),
    Column("ended", _JSON, nullable=False),
    Column("earlier", _JSON, nullable=False),
)

epoch_records = Table(
    "epoch_records",
    metadata,
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("attempt", Text, nullable=False),
    Column("metrics", _JSON, nullable=False),
)
