"""The tables of the database. A change to them is a new `VERSION` and a step from the one before."""

from datetime import UTC, datetime

from sqlalchemy import JSON, Column, DateTime, Dialect, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator

from fairtrial.spec import METRICS

#: Version of the tables below, kept in the database. It stays 1 until the first release, whatever changes.
VERSION = 1

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

schema_version = Table("fairtrial_schema", metadata, Column("version", Integer, nullable=False))

studies = Table(
    "studies",
    metadata,
    Column("hash", _HASH, primary_key=True),
    Column("name", Text, nullable=False, index=True),
    Column("toml", Text, nullable=False),
    Column("created_at", UTCDateTime, nullable=False),
    Column("last_run_at", UTCDateTime, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("hash", _HASH, primary_key=True),
    Column("arm", Text, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("outcome", String(16)),
    Column("detail", Text, nullable=False, default=""),
    Column("started_at", UTCDateTime),
    Column("ended_at", UTCDateTime),
    Column("machine", JSON),
    Column("fingerprints", JSON),
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
    Column("extra", JSON),
)
