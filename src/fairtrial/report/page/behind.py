"""The data behind a chart as a table, for who can't see the chart or wants its numbers."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairtrial.report.charts import Figure
from fairtrial.report.charts.differences import Differences
from fairtrial.report.charts.history import Histories
from fairtrial.report.charts.learning_curves import CurveData, Point
from fairtrial.report.charts.overfitting import TrainTest
from fairtrial.report.style import chart_text
from fairtrial.report.words import NOTHING
from fairtrial.spec import Study
from fairtrial.text import one_line

#: A table in a page has at most this many rows; single seeds are drawn for at most so many points.
ROWS, POINTS = 240, 6000

#: What charts' rows call things, in words; other keys of theirs are for drawing, or speak for themselves.
_WORDS = {"low": "lowest", "high": "highest", "n": "seeds"}
_DRAWING = {"marked", "last", "at", "x", "end", "label", "words", "detail"}


@dataclass(frozen=True)
class Behind:
    """A table: its head, its rows as text, and what it leaves out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def behind(figure: Figure, study: Study) -> Behind:
    """Make the table behind a chart; of a long one, every so many rows of an arm, which a note says."""
    if isinstance(figure.data, CurveData):
        return _of_curves(figure.data, study)
    if isinstance(figure.data, Differences):
        return _of_differences(figure.data)
    if isinstance(figure.data, TrainTest):
        return _of_train_test(figure.data, study)
    if isinstance(figure.data, Histories):
        return _of_histories(figure.data)
    if isinstance(figure.data, list):  # rows, as they are drawn
        return _of_rows(figure.data)
    sets = [rows for rows in map(_parsed, _sources(figure.chart.to_dict())) if rows]
    return _of_rows(max(sets, key=lambda rows: (len(rows) * len(_columns(rows)), len(rows)), default=[]))


def seed_rows(figure: Figure, study: Study) -> list[dict[str, object]]:
    """List each seed's points of learning curves, for who wants to see them; none of other charts or if too many."""
    if not isinstance(figure.data, CurveData) or figure.name == "seeds":  # which shows them anyway
        return []
    factor = study.metric(figure.data.metric).unit.factor
    rows = [
        {"arm": chart_text(curve.arm), "seed": seed, "epoch": point.epoch, "x": point.epoch, "y": value * factor}
        for curve in figure.data.curves
        for point in curve.points
        for seed, value in point.values.items()
    ]
    return rows if len(rows) <= POINTS and any(row["seed"] != rows[0]["seed"] for row in rows) else []


def _of_curves(data: CurveData, study: Study) -> Behind:
    unit = study.metric(data.metric).unit
    name = f" ({unit.name})".removesuffix(" ()")
    every = max(1, -(-sum(len(curve.points) for curve in data.curves) // ROWS))
    rows = [
        (
            curve.arm,
            str(point.epoch),
            *(number(value * unit.factor) for value in _values(point)),
            str(len(point.values)),
        )
        for curve in data.curves
        for at, point in enumerate(curve.points)
        if at % every == 0 or at == len(curve.points) - 1
    ]
    note = f"Every {every}th epoch and the last." if every > 1 else ""
    head = ("arm", "epoch", f"mean{name}", f"lowest{name}", f"highest{name}", "seeds")
    return Behind(head, tuple(tuple(map(one_line, row)) for row in rows), note)


def _values(point: Point) -> tuple[float, float, float]:
    return point.mean, point.low, point.high


def _of_differences(data: Differences) -> Behind:
    unit = data.found.unit
    name = f" ({unit.difference})".removesuffix(" ()")
    rows = []
    for arm in data.arms:
        mean, *ends = (
            None if value is None else value * unit.factor for value in (arm.mean, *(arm.interval or (None,)))
        )
        seeds = ", ".join(f"{seed}: {number(value * unit.factor)}" for seed, value in arm.by_seed.items())
        interval = NOTHING if len(ends) < 2 else f"{number(ends[0])} to {number(ends[1])}"
        rows.append((arm.arm, number(mean), interval, "; ".join([arm.verdict, *arm.lost]), seeds or NOTHING))
    head = (
        "arm",
        f"mean difference{name}",
        f"interval{name}",
        "verdict",
        f"by {'seed' if data.found.paired else 'run'}",
    )
    return Behind(head, tuple(tuple(map(one_line, row)) for row in rows))


def _of_train_test(data: TrainTest, study: Study) -> Behind:
    """Make the table of two metrics: that of each, with the metric's name in the second column."""
    parts = [(curves.metric, _of_curves(curves, study)) for curves in (data.train, data.test)]
    rows = tuple((row[0], metric, *row[1:]) for metric, table in parts for row in table.rows)
    every = -(-len(rows) // ROWS)
    head = parts[0][1].head
    note = " ".join(dict.fromkeys(table.note for _, table in parts if table.note))
    return Behind((head[0], "metric", *head[1:]), rows[:: max(1, every)], note)


def _of_histories(data: Histories) -> Behind:
    unit = data.found.unit
    name = f" ({unit.difference})".removesuffix(" ()")
    rows = []
    for arm in data.arms:
        for look in arm.looks:
            ends = "" if look.interval is None else unit.between(*look.interval)
            rows.append((arm.arm, str(look.seeds), number(look.mean * unit.factor), ends or NOTHING, look.verdict))
    head = ("arm", "seeds", f"mean difference{name}", f"interval{name}", "verdict")
    every = -(-len(rows) // ROWS) or 1
    note = f"Every {every}th of {len(rows)} looks." if every > 1 else ""
    return Behind(head, tuple(tuple(map(one_line, row)) for row in rows[::every]), note)


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> Behind:
    """Make the table of rows, which of a chart of any other kind are the largest set that it draws."""
    keys = _columns(rows)
    every = max(1, -(-len(rows) // ROWS))
    body = tuple(tuple(one_line(number(row.get(key))) for key in keys) for row in rows[::every])
    note = f"Every {every}th of {len(rows)} rows." if every > 1 else ""
    return Behind(tuple(one_line(_WORDS.get(key, key.replace("_", " "))) for key in keys), body, note)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, bool))
    own = [key for key in keys if key not in _DRAWING]
    return own + ([key for key in ("x",) if key in keys] if "arm" in own and len(own) < 3 else [])


def _sources(spec: object) -> Iterator[object]:
    if isinstance(spec, Mapping):
        yield from spec.get("datasets", {}).values() if isinstance(spec.get("datasets"), Mapping) else ()
        data = spec.get("data")
        if isinstance(data, Mapping) and "values" in data:
            yield data["values"]
        for key, value in spec.items():
            if key not in {"datasets", "data"}:
                yield from _sources(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _sources(value)


def _parsed(values: object) -> list[dict[str, Any]]:
    rows = json.loads(values) if isinstance(values, str) else values
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def number(value: object) -> str:
    """Write a cell: a number with five digits, a hyphen where there is none.

    Example:
        >>> number(61.950684993777244), number(3), number(None)
        ('61.951', '3', '-')
    """
    if value is None:
        return NOTHING
    return f"{value:.5g}" if isinstance(value, float) else str(value)
