"""The data behind a chart as a table, for readers who can't see the chart or want its numbers."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairtrial.report.charts import Figure
from fairtrial.report.charts.differences import Differences
from fairtrial.report.charts.heat_map import HeatMap
from fairtrial.report.charts.history import Histories
from fairtrial.report.charts.learning_curves import CurveData, Point
from fairtrial.report.charts.overfitting import TrainTest
from fairtrial.report.charts.sensitivity import SensitivityData
from fairtrial.report.charts.xray import XrayCharts
from fairtrial.report.style import chart_text
from fairtrial.report.words import NOTHING, number_text
from fairtrial.spec import Study
from fairtrial.text import one_line

#: A table in a page has about this many rows at most; single seeds are drawn for at most so many points.
ROWS, POINTS = 240, 6000

#: What charts' rows call things, in words; other keys of theirs are for drawing, or speak for themselves.
_WORDS = {"n": "seeds", "x": "value"}
_DRAWING = {"marked", "last", "at", "x", "start", "end", "edge", "turn", "row", "label", "words", "detail"}

#: What the charts of the x-ray draw: the statistic, its head, and what it is multiplied by; 0 for powers of ten.
_PERCENTILES = {
    f"log10_sqrt_vhat_p{each}": (f"sqrt(vhat), {'median' if each == 50 else f'{each}%'}", 0.0)
    for each in (5, 25, 50, 75, 95)
}
_STATISTICS: Mapping[str, Mapping[str, tuple[str, float]]] = {
    "xray_sqrt_vhat": _PERCENTILES | {"eps": ("epsilon", 1.0)},
    "xray_epsilon": {
        f"eps_over_{part}pct": (f"epsilon above {part}% of sqrt(vhat) (% of weights)", 100.0) for part in (1, 10, 100)
    },
    "xray_updates": {
        "update_rms_over_lr": ("step over learning rate", 1.0),
        "update_over_weight": ("step over weights", 1.0),
        "cosine": ("cosine of averaged and fresh gradient", 1.0),
    },
    "xray_layers": {
        "update_rms_over_lr": ("step over learning rate", 1.0),
        "log10_sqrt_vhat_p50": ("sqrt(vhat), median", 0.0),
    },
    "xray_losses": {"train_loss": ("training loss", 1.0), "test_loss": ("test loss", 1.0)},
}

_Row = tuple[str, ...]


@dataclass(frozen=True)
class Behind:
    """A table: its head, its rows as text, and what it leaves out."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def behind(figure: Figure, study: Study) -> Behind:
    """Make the table behind a chart; of a long one every so many rows, which a note says."""
    data = figure.data
    if isinstance(data, CurveData):
        return _of_curves(data, study)
    if isinstance(data, TrainTest):
        return _of_train_test(data, study)
    if isinstance(data, XrayCharts) and figure.name in _STATISTICS:
        return _of_xray(data, _STATISTICS[figure.name], by_kind=figure.name == "xray_layers")
    if make := _OF_VERDICTS.get(type(data)):
        return make(data)
    return _of_rows(data if isinstance(data, list) else _drawn(figure))  # a list: rows, as they are drawn


def seed_rows(figure: Figure, study: Study) -> list[dict[str, object]]:
    """List each seed's points of learning curves, which a reader can ask for; none of other charts, or if too many."""
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
    rows, note = _thinned(_curve_rows(data, study), "epoch of each arm", _EXPORT)
    return Behind(("arm", "epoch", *_curve_head(data, study)), rows, note)


#: Where the epochs are that a table leaves out.
_EXPORT = " All epochs of all runs: fairtrial export."


def _curve_rows(data: CurveData, study: Study) -> list[list[_Row]]:
    """The rows of each arm."""
    factor = study.metric(data.metric).unit.factor
    return [
        [
            (curve.arm, str(point.epoch), *(number(value * factor) for value in _values(point)), str(len(point.values)))
            for point in curve.points
        ]
        for curve in data.curves
    ]


def _curve_head(data: CurveData, study: Study) -> _Row:
    name = f" ({study.metric(data.metric).unit.name})".removesuffix(" ()")
    return f"mean{name}", f"lowest{name}", f"highest{name}", "seeds"


def _thinned(groups: Iterable[Sequence[_Row]], what: str, rest: str = "") -> tuple[tuple[_Row, ...], str]:
    """Keep about `ROWS` rows, evenly spaced within each group, with its first and last; and say what was left out.

    Args:
        groups: rows, each group in the order of time.
        what: a row, in words, and of what: ``epoch of each arm``.
        rest: a sentence that says where the others are.
    """
    found = [list(group) for group in groups]
    total = sum(map(len, found))
    every = max(1, -(-total // ROWS))
    kept = [row for group in found for at, row in enumerate(group) if at % every == 0 or at == len(group) - 1]
    note = f"Every {_ordinal(every)} {what}, and the last: {len(kept):,} of {total:,} rows."
    return tuple(tuple(map(one_line, row)) for row in kept), note + rest if len(kept) < total else ""


def _ordinal(value: int) -> str:
    """Write which one: ``second``, ``third``, ``4th``, ``21st``.

    Example:
        >>> [_ordinal(each) for each in (2, 3, 4, 11, 21, 112, 123)]
        ['second', 'third', '4th', '11th', '21st', '112th', '123rd']
    """
    if value in {2, 3}:
        return ("second", "third")[value - 2]
    ends = {1: "st", 2: "nd", 3: "rd"} if value // 10 % 10 != 1 else {}
    return f"{value}{ends.get(value % 10, 'th')}"


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
    """Make the table of two metrics, with the metric's name in the second column."""
    groups = [
        [(row[0], curves.metric, *row[1:]) for row in rows]
        for curves in (data.train, data.test)
        for rows in _curve_rows(curves, study)
    ]
    rows, note = _thinned(groups, "epoch of each arm and metric", _EXPORT)
    return Behind(("arm", "metric", "epoch", *_curve_head(data.train, study)), rows, note)


def _of_histories(data: Histories) -> Behind:
    unit = data.found.unit
    name = f" ({unit.difference})".removesuffix(" ()")
    groups = [
        [
            (
                arm.arm,
                str(look.seeds),
                number(look.mean * unit.factor),
                unit.between(*look.interval) if look.interval else NOTHING,
                look.verdict,
            )
            for look in arm.looks
        ]
        for arm in data.arms
    ]
    rows, note = _thinned(groups, "look at each arm")
    return Behind(("arm", "seeds", f"mean difference{name}", f"interval{name}", "verdict"), rows, note)


def _of_sensitivity(data: SensitivityData) -> Behind:
    unit = data.found.unit
    name = f" ({unit.difference})".removesuffix(" ()")
    rows = [
        (
            each.name,
            number_text(level.value),
            level.arm,
            number(None if level.difference is None else level.difference * unit.factor),
            unit.between(*level.interval) if level.interval and level.verdict != "reference" else NOTHING,
            level.verdict,
        )
        for each in data.settings
        for level in each.levels
    ]
    head = ("setting", "value", "arm", f"mean difference{name}", f"interval{name}", "verdict")
    return Behind(head, tuple(tuple(map(one_line, row)) for row in rows))


def _of_heat_map(data: HeatMap) -> Behind:
    unit = data.found.unit
    name = f" ({unit.difference})".removesuffix(" ()")
    rows = [
        (
            number_text(across),
            number_text(up),
            cell.arm,
            number(None if cell.difference is None else cell.difference * unit.factor),
            unit.between(*cell.interval) if cell.interval and cell.verdict != "reference" else NOTHING,
            cell.verdict,
        )
        for (across, up), cell in sorted(data.cells.items())
    ]
    keys = (key.rpartition(".")[2] for key in data.keys)
    head = (*keys, "arm", f"mean difference{name}", f"interval{name}", "verdict")
    return Behind(head, tuple(tuple(map(one_line, row)) for row in rows))


_OF_VERDICTS: Mapping[type, Callable[[Any], Behind]] = {
    Differences: _of_differences,
    Histories: _of_histories,
    SensitivityData: _of_sensitivity,
    HeatMap: _of_heat_map,
}


def _of_xray(data: XrayCharts, statistics: Mapping[str, tuple[str, float]], *, by_kind: bool) -> Behind:
    """Make the table of a chart of the x-ray: a row for each moment of an arm, or for each kind of layer then."""
    groups: dict[tuple[str, str], list[_Row]] = {}
    for one in data.arms:
        for moment in one.moments:
            for kind, found in moment.kinds.items() if by_kind else [("", moment.overall)]:
                cells = [
                    number(None if key not in found else found[key] * factor if factor else 10.0 ** found[key])
                    for key, (_, factor) in statistics.items()
                ]
                own = (one.arm, *([kind] if by_kind else []), number(moment.at), str(moment.step), *cells)
                groups.setdefault((one.arm, kind), []).append(own)
    rows, note = _thinned(groups.values(), "moment of each arm" + (" and kind of layer" if by_kind else ""))
    heads = (head for head, _ in statistics.values())
    return Behind(
        (
            "arm",
            *(["layers"] if by_kind else []),
            "epochs",
            "step",
            *heads,
        ),
        rows,
        note,
    )


def _drawn(figure: Figure) -> list[dict[str, Any]]:
    """The rows that a chart of any other kind draws: its largest set, and all sets with the same columns."""
    sets = [rows for rows in map(_parsed, _sources(figure.chart.to_dict())) if rows]
    largest = max(sets, key=lambda rows: (len(rows) * len(_columns(rows)), len(rows)), default=[])
    alike = [rows for rows in sets if rows[0].keys() == largest[0].keys()]
    unique = {json.dumps(row, sort_keys=True): row for rows in alike for row in rows}
    return list(unique.values())


def _of_rows(rows: Sequence[Mapping[str, Any]]) -> Behind:
    keys = _columns(rows)
    body, note = _thinned([[tuple(number(row.get(key)) for key in keys) for row in rows]], "row")
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
