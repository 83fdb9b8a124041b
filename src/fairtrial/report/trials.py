"""One row for each trial, for other programs: how it ended, its settings, its machine and its code."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from fairtrial.spec import Study, content, flatten
from fairtrial.stats.joined import join
from fairtrial.trial import TrialResult

#: A row: its columns by name.
Row: TypeAlias = dict[str, Any]


def trial_rows(study: Study, results: Sequence[TrialResult]) -> list[Row]:
    """List the trials that have started, by arm in the study's order, then by seed.

    The columns are study, hash, arm, seed, trial (its hash), outcome (None for a trial that was interrupted or still
    runs), detail (the traceback of a failed trial, how a diverged one did), epochs (how many were recorded), started
    and ended (ISO 8601, UTC), forced; then the settings by their full names, such as ``optimizer.lr``, what the machine
    was, such as ``machine.processor``, ``machine.versions.torch`` and the digests under ``machine.code``, and the
    fingerprints. A trial that lacks a column of another has None there.

    Raises:
        ValueError: a result is not of this study, or one trial is there twice.
    """
    rows = [_row(study, result) for result in join(study, results).values()]
    columns = dict.fromkeys(key for row in rows for key in row)
    ordered = sorted(columns, key=lambda key: _ORDER.get(key.partition(".")[0], 0))
    return [{key: row.get(key) for key in ordered} for row in rows]


#: What comes last.
_ORDER = {"machine": 1, "fingerprints": 2}


def _row(study: Study, result: TrialResult) -> Row:
    outcome = None if result.outcome is None else result.outcome.value
    row: Row = {"study": study.name, "hash": study.hash, "arm": result.arm, "seed": result.seed, "trial": result.trial}
    row |= {"outcome": outcome, "detail": result.detail, "epochs": len(result.epochs)}
    row |= {"started": result.started.isoformat(), "ended": result.ended and result.ended.isoformat()}
    machine = dataclasses.asdict(result.machine)
    parts = {**content(study.arm(result.arm).settings), "machine": machine, "fingerprints": dict(result.fingerprints)}
    nested = {key: value for key, value in flatten(parts) if value != {}}
    return row | {"forced": result.forced} | nested


def plain(rows: Sequence[Row]) -> list[Row]:
    """Write lists, and truth values among other things, as JSON does, so that each column has one type.

    Numbers stay numbers where a column has nothing else.
    """
    texts = {key for row in rows for key in row if not _uniform([other[key] for other in rows])}
    return [{key: _text(value) if key in texts else value for key, value in row.items()} for row in rows]


def _uniform(values: Sequence[Any]) -> bool:
    kinds = {type(value) for value in values if value is not None}
    return kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str})


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
