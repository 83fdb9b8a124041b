"""The tables of the database.

A change to them is a new `VERSION`, and a migration of that number in `migrations/versions` which brings a database of
the version before to it. The version of a database stands in its table ``fairtrial_schema``, which every release since
the first looks at before anything else; Alembic runs the migrations, and keeps no book of its own.

| version | what it brought |
|---|---|
| 1 | the first release's tables |
| 2 | where a study was read from, with which overrides; the last transaction of each writer |
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from fairtrial.spec import METRICS

#: Version of the tables below.
VERSION = 2

metadata = MetaData()


class UTCDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, stored in UTC. SQLite keeps no zone, so reading puts it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Convert to UTC on the way in; a moment without a zone is a bug."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone can't be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Put the zone back on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_HASH = String(64)
_JSON = JSON(none_as_null=True)

schema_version = Table("fairtrial_schema", metadata, Column("version", Integer, nullable=False))

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
    Column("attempts", Integer, nullable=False, default=0),
    Column("outcome", String(16)),
    Column("detail", Text, nullable=False, default=""),
    Column("started_at", UTCDateTime),
    Column("ended_at", UTCDateTime),
    Column("machine", _JSON),
    Column("fingerprints", _JSON),
)

study_trials = Table(
    "study_trials",
    metadata,
    Column("study", _HASH, ForeignKey("studies.hash"), primary_key=True),
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("position", Integer, nullable=False),
)
Index("ix_study_trials_trial", study_trials.c.trial)

epoch_records = Table(
    "epoch_records",
    metadata,
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("attempt", Integer, nullable=False),
    *(Column(name, Float) for name in METRICS),
    Column("extra", _JSON),
)

#: The last transaction that each writer has committed: where connections can be lost, it tells whether one that was
#: lost in a commit had been heard.
writers = Table(
    "fairtrial_writers",
    metadata,
    Column("writer", String(32), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at", UTCDateTime, nullable=False),
)
