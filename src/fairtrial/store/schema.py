"""The tables of the database.

Nothing has been released yet, so there are no migrations: a store of another version is refused. Once a release exists,
a change to a table is a new version, and a migration of that number (by Alembic, in ``store/migrations``) updates older
databases. The tables list no metrics: what an epoch records is JSON. JSON is text here, because checksums cover it.

A row ends with its checksum, that of all values before it but those of `NOT_COVERED`. What belongs to a row is covered
by it, too: a study's row has a checksum of the hashes of its trials, a trial's row one of its epoch records, and the
row of the version counts the studies and stages. So nothing can be changed or lost without notice.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, Dialect, ForeignKey, Index, Integer, MetaData, String, Table, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from fairtrial.store.checksums import EMPTY, extend, of_values

#: Version of the tables below. Version 1 had no checksums.
VERSION = 2

#: A table that only databases of development versions, before any release, have. Nothing reads those.
DEVELOPMENT = "fairtrial_schema"

metadata = MetaData()


class UTCDateTime(TypeDecorator[datetime]):
    """A time with its zone, stored in UTC; as text in SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Text in SQLite, whose own type of SQLAlchemy fails at a damaged time."""
        return dialect.type_descriptor(String(26) if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Convert to UTC; a time without a zone is a bug."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone can't be stored")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None).isoformat(" ", "microseconds") if dialect.name == "sqlite" else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return a time in UTC. What is no time stays as it is: its row does not match its checksum."""
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        try:
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        except (TypeError, ValueError):
            return value  # type: ignore[no-any-return]


_HASH = String(64)
_JSON = Text()
_CHECKSUM = String(8)

schema_version = Table(
    "fairtrial_version",
    metadata,
    Column("version", Integer, nullable=False),
    Column("studies", Integer, nullable=False),  # how many rows that table has
    Column("stages", Integer, nullable=False),
)

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
    Column("trials", _CHECKSUM, nullable=False),  # of the hashes of its trials, in the order of its plan
    Column("checksum", _CHECKSUM, nullable=False),
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
    Column("detail", Text, nullable=False),
    Column("started_at", UTCDateTime),
    Column("ended_at", UTCDateTime),  # of the last attempt that ended; outcome is empty while a later one runs
    Column("machine", _JSON),
    Column("forced", Text, nullable=False),
    Column("fingerprints", _JSON),
    Column("reads", _JSON),  # what a user's training loop read of its settings, if known
    Column("last_epoch", Integer, nullable=False),  # number of its last epoch record; 0 if it has none
    Column("records", _CHECKSUM, nullable=False),  # of its epoch records, by rising epoch
    Column("checksum", _CHECKSUM, nullable=False),
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
    Column("checksum", _CHECKSUM, nullable=False),
)

epoch_records = Table(
    "epoch_records",
    metadata,
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("attempt", Text, nullable=False),
    Column("metrics", _JSON, nullable=False),
)

#: Of trials that have an x-ray: how many snapshots they have, and their checksum. These two tables are newer than the
#: others: a store without them is complete, and gets them when it is next opened to write.
xrays = Table(
    "xrays",
    metadata,
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("snapshots", Integer, nullable=False),
    Column("last_step", Integer, nullable=False),
    Column("records", _CHECKSUM, nullable=False),  # of its snapshots, by rising step
    Column("checksum", _CHECKSUM, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("trial", _HASH, ForeignKey("trials.hash"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("attempt", Text, nullable=False),
    Column("statistics", _JSON, nullable=False),  # overall, of kinds of layers, and notes
    Column("tensors", _JSON, nullable=False),  # most of the text, and rarely read
)

#: Tables that a store of this version may lack.
LATER = {xrays.name, snapshots.name}

#: Writes a value as JSON.
to_json = json.JSONEncoder(separators=(",", ":")).encode

#: Columns that no checksum covers: a trial's settings are covered by their digest, which is.
NOT_COVERED = {"settings"}


def covered(table: Table) -> list[Column[Any]]:
    """The columns that a table's checksum covers, and the checksum at their end."""
    return [column for column in table.c if column.name not in NOT_COVERED]


def with_checksum(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Complete a row, which has a value for every column, by its checksum."""
    *columns, _ = covered(table)
    return {**row, "checksum": of_values(*(row[column.name] for column in columns))}


def matches(row: Sequence[Any]) -> bool:
    """Whether a row of the `covered` columns matches its checksum."""
    *values, checksum = row
    return bool(of_values(*values) == checksum)


def plan_checksum(hashes: Iterable[str]) -> str:
    """The checksum of the hashes of a study's trials, in the order of its plan."""
    return extend(EMPTY, ",".join(map(str, hashes)))


def records_text(records: Iterable[tuple[int, str, str]]) -> str:
    """Epoch records (number, attempt, metrics as JSON) as one text that is JSON, too, but for the comma it begins with.

    A trial's ``records`` is the checksum of this text, by rising epoch.
    """
    return "".join([f',{epoch},"{attempt}",{metrics}' for epoch, attempt, metrics in records])
