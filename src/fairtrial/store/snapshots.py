"""Writes and reads the snapshots of trials. A trial's row in ``xrays`` has the checksum of all of them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from fairtrial.snapshots import Snapshot
from fairtrial.store import queries, schema, tables
from fairtrial.store.checksums import EMPTY, MISMATCH, MISSING, DamageError, extend


class SnapshotRow(NamedTuple):
    """A snapshot as the database has it, but for its trial."""

    step: int
    epoch: int
    attempt: str
    statistics: str
    tensors: str


#: By a trial's hash, its row in ``xrays`` and its snapshots by rising step.
Stored: TypeAlias = dict[str, tuple[Row[Any], list[SnapshotRow]]]


def encode(attempt: str, snapshot: Snapshot) -> SnapshotRow:
    """Write a snapshot for the database."""
    kinds = {name: _finite(one) for name, one in snapshot.kinds.items()}
    statistics = {"overall": _finite(snapshot.overall), "kinds": kinds, "notes": list(snapshot.notes)}
    tensors = schema.to_json(_by_column({name: _finite(one) for name, one in snapshot.tensors.items()}))
    return SnapshotRow(snapshot.step, snapshot.epoch, attempt, schema.to_json(statistics), tensors)


def _by_column(rows: Mapping[str, Mapping[str, float | str]]) -> dict[str, Any]:
    """Write a table by its columns: a third of the text, as statistics are named once."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {"rows": [*rows], "columns": {name: [row.get(name) for row in rows.values()] for name in names}}


def _by_row(table: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    columns = table["columns"].items()
    return {
        row: {name: float(values[at]) for name, values in columns if values[at] is not None}
        for at, row in enumerate(table["rows"])
    }


def _finite(numbers: Mapping[str, float]) -> dict[str, float | str]:
    return {name: float(x) if math.isfinite(x) else str(x) for name, x in numbers.items()}  # JSON has no NaN or inf


def write(connection: Connection, trials: Mapping[str, Sequence[SnapshotRow]], ended: Mapping[str, str]) -> None:
    """Write new snapshots of trials, by hash, and drop those of earlier attempts at trials that have ended.

    The caller has locked the rows of these trials; ``ended`` has the last attempt of each that ended.
    """
    heads: list[dict[str, Any]] = []
    for trial, head in _heads(connection, [*{**trials, **ended}]).items():
        new = {row.step: row for row in trials.get(trial, ())}
        last, count, records = (head.last_step, head.snapshots, head.records) if head else (0, 0, EMPTY)
        if not new and not count:
            continue
        if count and (trial in ended or min(new) <= last):
            rows = _rows(connection, [trial]).get(trial, [])
            _check(trial, head, rows)
            kept = {row.step: row for row in rows if ended.get(trial, row.attempt) == row.attempt}
            connection.execute(delete(schema.snapshots).where(_SNAPSHOTS.trial == trial))
            new, count, records = {**kept, **new}, 0, EMPTY
        ordered = [row for _, row in sorted(new.items())]
        if ordered:
            connection.execute(insert(schema.snapshots), [{"trial": trial, **row._asdict()} for row in ordered])
        text = extend(records, _text(ordered))
        known = {"trial": trial, "snapshots": count + len(ordered), "records": text}
        heads.append(schema.with_checksum(schema.xrays, known | {"last_step": max(new, default=0)}))
    _replace_heads(connection, heads)


def copy(connection: Connection, source: Stored, trials: Iterable[str]) -> None:
    """Replace the snapshots of trials, by hash, by those that another store has."""
    remove(connection, [*trials])
    if source:
        rows = [{"trial": trial, **row._asdict()} for trial, (_, each) in source.items() for row in each]
        connection.execute(insert(schema.snapshots), rows)
        connection.execute(insert(schema.xrays), [head._asdict() for head, _ in source.values()])


def remove(connection: Connection, trials: Sequence[str]) -> None:
    """Remove the snapshots of trials, by hash."""
    for chunk in queries.chunks(trials):
        connection.execute(delete(schema.snapshots).where(_SNAPSHOTS.trial.in_(chunk)))
        connection.execute(delete(schema.xrays).where(schema.xrays.c.trial.in_(chunk)))


def stored(connection: Connection, trials: Sequence[str]) -> Stored:
    """Read the snapshots of trials, by hash, as they are in the database, and check them."""
    if not tables.complete(connection):
        return {}
    found: Stored = {}
    for chunk in queries.chunks(trials):
        heads, rows = _heads(connection, chunk), _rows(connection, chunk)
        for trial in chunk:
            head, own = heads[trial], rows.get(trial, [])
            if head is None and not own:
                continue
            _check(trial, head, own)
            if head is not None and own:
                found[trial] = head, own
    return found


def read(connection: Connection, trials: Sequence[str], *, tensors: bool) -> dict[str, tuple[Snapshot, ...]]:
    """Read the snapshots of trials, by hash; see `Store.snapshots`."""
    found = stored(connection, trials)
    names = queries.trial_rows(connection, [*found])
    return {
        trial: tuple(_decode(names[trial], row, tensors=tensors) for row in rows) for trial, (_, rows) in found.items()
    }


def check_all(connection: Connection) -> None:
    """Check the snapshots of all trials."""
    hashes = connection.scalars(select(schema.trials.c.hash).order_by(schema.trials.c.hash)).all()
    stored(connection, hashes)


def size(connection: Connection, trials: Sequence[str]) -> int:
    """How many bytes the snapshots of trials take, at most `queries.CHUNK` of them."""
    if not tables.complete(connection):
        return 0
    texts = select(_SNAPSHOTS.statistics, _SNAPSHOTS.tensors).where(_SNAPSHOTS.trial.in_(trials))
    return sum(len(statistics) + len(each) for statistics, each in connection.execute(texts))


def _decode(trial: Row[Any], row: SnapshotRow, *, tensors: bool) -> Snapshot:
    statistics = json.loads(row.statistics)
    kinds = {name: _numbers(one) for name, one in statistics["kinds"].items()}
    each = _by_row(json.loads(row.tensors)) if tensors else {}
    overall, notes = _numbers(statistics["overall"]), tuple(statistics["notes"])
    return Snapshot(trial.arm, trial.seed, row.epoch, row.step, overall, kinds, each, notes)


def _numbers(table: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in table.items()}


def _text(rows: Iterable[SnapshotRow]) -> str:
    return "".join(
        [f',{row.step},{row.epoch},"{row.attempt}",{row.statistics},{row.tensors}' for row in rows]
    )  # JSON, as of epoch records


def _check(trial: str, head: Row[Any] | None, rows: Sequence[SnapshotRow]) -> None:
    what = f"the x-ray of trial {trial[:12]}"
    if head is None:
        raise DamageError(what, MISSING)
    if not schema.matches(head) or head.snapshots != len(rows) or extend(EMPTY, _text(rows)) != head.records:
        raise DamageError(what, MISMATCH)


def _heads(connection: Connection, trials: Sequence[str]) -> dict[str, Row[Any] | None]:
    found: dict[str, Row[Any] | None] = dict.fromkeys(trials)
    for chunk in queries.chunks(trials):
        query = select(schema.xrays).where(schema.xrays.c.trial.in_(chunk))
        found |= {row.trial: row for row in connection.execute(query)}
    return found


def _rows(connection: Connection, trials: Sequence[str]) -> dict[str, list[SnapshotRow]]:
    query = _ROWS.where(_SNAPSHOTS.trial.in_(trials))
    groups = groupby(connection.execute(query), key=lambda row: row[0])
    return {trial: [SnapshotRow(*row[1:]) for row in group] for trial, group in groups}


def _replace_heads(connection: Connection, heads: Sequence[Mapping[str, Any]]) -> None:
    if heads:
        old = delete(schema.xrays).where(schema.xrays.c.trial == bindparam("old"))
        connection.execute(old, [{"old": head["trial"]} for head in heads])
        connection.execute(insert(schema.xrays), list(heads))


_SNAPSHOTS = schema.snapshots.c
_ROWS = select(
    _SNAPSHOTS.trial, _SNAPSHOTS.step, _SNAPSHOTS.epoch, _SNAPSHOTS.attempt, _SNAPSHOTS.statistics, _SNAPSHOTS.tensors
).order_by(_SNAPSHOTS.trial, _SNAPSHOTS.step)
