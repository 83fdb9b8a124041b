"""Heat map: the measure over two settings that vary together, a cell for each combination of their values."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.registry import CHARTS
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.charts.differences import difference_data, warnings
from fairtrial.report.charts.sensitivity import WORDS
from fairtrial.report.style import LINE, Rows, chart_text, frame, over
from fairtrial.report.words import number_text, percent
from fairtrial.spec import Study
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.paired import fate
from fairtrial.stats.sensitivity import Level, changes, is_number, level_of
from fairtrial.trial import TrialResult

#: Pixels of a cell's width and height.
CELL = (78, 46)


@dataclass(frozen=True)
class HeatMap:
    """Two settings, a level for each pair of their values that some arm has, and the verdicts behind them."""

    found: StudyVerdict
    keys: tuple[str, str]  # of the horizontal and the vertical axis
    values: tuple[tuple[float, ...], tuple[float, ...]]  # of each, ascending
    cells: dict[tuple[float, float], Level]  # of horizontal and vertical value; the level's own is the horizontal one


def heat_map_data(
    study: Study,
    results: Sequence[TrialResult],
    *,
    history: History | None = None,
    measure: str | None = None,
    arms: Sequence[str] = (),
) -> HeatMap:
    """Collect the verdicts over the two settings that vary together in most arms, or in most of the chosen arms.

    Raises:
        ReportError: no two settings vary together, or there are too few of their combinations for a map.
    """
    changed, own = changes(study)
    changed = {arm: keys for arm, keys in changed.items() if not arms or arm in arms}
    numbers = {arm: keys for arm, keys in changed.items() if all(is_number(own.get(key)) for key in keys)}
    numbers = {arm: keys for arm, keys in numbers.items() if all(is_number(value) for value in keys.values())}
    pairs = Counter(tuple(sorted(keys)) for keys in numbers.values() if len(keys) == 2)
    if not pairs:
        raise ReportError("no arm differs from the reference in two numbers, as those of a full grid do")
    ((one, other), _) = pairs.most_common(1)[0]
    places = {arm: {**own, **keys} for arm, keys in numbers.items() if {*keys} <= {one, other}}
    places[study.reference] = own
    values = {key: tuple(sorted({float(place[key]) for place in places.values()})) for key in (one, other)}
    if not arms and 2 * len(places) < len(values[one]) * len(values[other]):
        raise ReportError(f"too few arms combine values of {one} and {other} for a heat map")
    across, up = (one, other) if len(values[one]) >= len(values[other]) else (other, one)
    if len({(float(place[across]), float(place[up])) for place in places.values()}) < len(places):
        raise ReportError(
            f"two arms have the same {across} and {up}, one as an integer and one as a fraction, and a heat map "
            "has one cell for both"
        )
    found = difference_data(study, results, history=history, measure=measure).found
    rows = {row.arm: row for row in found.comparisons}
    cells = {
        (float(place[across]), float(place[up])): level_of(arm, float(place[across]), rows.get(arm), found)
        for arm, place in places.items()
    }
    return HeatMap(found, (across, up), (values[across], values[up]), cells)


def draw_heat_map(study: Study, data: HeatMap, *, size: Size | None = None) -> alt.LayerChart:
    """Draw the differences from the reference as colors, with the numbers and the verdicts in words."""
    del study
    across, up = map(_words, data.keys)
    width, height = size or (pixels * len(values) for pixels, values in zip(CELL, data.values, strict=True))
    return alt.LayerChart(layer=list(_layers(data, across, up, height)), width=width, height=height, config=frame())


def words(study: Study, data: HeatMap) -> Words:
    """Say what is drawn."""
    found, (across, up) = data.found, map(_words, data.keys)
    label = study.measure(found.metric).label
    lines = (
        *warnings(found),
        f"{study.name}. Each cell: mean difference from {found.reference}{_unit(found)}, and the verdict.",
        *_intervals(data),
    )
    verdicts = Counter(cell.verdict for cell in data.cells.values() if cell.verdict != "reference")
    counts = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    alt_text = f"Difference of {label} from {found.reference} for each combination of {across} and {up}: {counts}."
    wide = max(60, min(LINE, 15 * len(data.values[0])))
    return Words(f"{label[:1].upper()}{label[1:]}, by {across} and {up}", lines, alt_text, wide)


def _layers(data: HeatMap, across: str, up: str, height: float) -> Iterator[alt.Chart]:
    found, factor = data.found, data.found.unit.factor
    columns, lines = ([number_text(value) for value in values] for values in data.values)
    axis = alt.Axis(labelAngle=0, ticks=False, domain=False, grid=False)
    x = alt.X("x:O", sort=columns, title=chart_text(across), axis=axis, scale=alt.Scale(padding=0.03))
    y = alt.Y("y:O", sort=lines[::-1], title=chart_text(up), axis=axis, scale=alt.Scale(padding=0.03))
    most = max([abs(cell.difference or 0.0) for cell in data.cells.values()]) * factor or 1.0
    bar = alt.Legend(
        title=found.unit.difference or None,
        gradientLength=min(200, height),
        offset=16,
        titleFontWeight="normal",
    )
    ends = [-most, 0.0, most] if found.larger_is_better else [most, 0.0, -most]
    color = alt.Color("z:Q", scale=alt.Scale(domain=ends, range="diverging", interpolate="rgb"), legend=bar)
    rows: Rows = [
        {"x": number_text(key[0]), "y": number_text(key[1]), "arm": cell.arm, **_cell(cell, found, most)}
        for key, cell in data.cells.items()
    ]
    known = [row for row in rows if row["z"] is not None]
    yield over([row for row in rows if row["z"] is None], alt.Chart().mark_rect(style="grid")).encode(x, y)
    yield over(known, alt.Chart().mark_rect()).encode(x, y, color)
    own = [row for row in rows if row["words"] == "reference"]
    yield over(own, alt.Chart().mark_rect(style="ink", filled=False, strokeWidth=1.8)).encode(x, y)
    for ink in ("ink", "on-color"):
        number = alt.Chart().mark_text(style=ink, fontSize=13, dy=-7)
        words = alt.Chart().mark_text(style=ink, fontSize=10, dy=9)
        inked = [row for row in rows if row["ink"] == ink]
        yield over([row for row in inked if row not in own], number).encode(x, y, text="number:N")
        yield over(inked, words).encode(x, y, text="words:N")


def _cell(cell: Level, found: StudyVerdict, most: float) -> dict[str, object]:
    lost = ", ".join(f"{number} {fate(how)}" for how, number in cell.lost.items())
    words = f"{cell.verdict}, {lost}" if lost else cell.verdict
    if cell.difference is None:
        return {"z": None, "number": "", "words": lost or words, "ink": "ink"}
    amount = cell.difference * found.unit.factor
    text = found.unit.number(cell.difference)
    # White letters are easier to read on the darker end of each color.
    ink = "on-color" if abs(amount) > 0.75 * most else "ink"
    return {"z": amount, "number": f"−{text[1:]}" if text.startswith("-") else f"+{text}", "words": words, "ink": ink}


def _words(key: str) -> str:
    name = key.rpartition(".")[2]
    return WORDS.get(name, name)


def _unit(found: StudyVerdict) -> str:
    return f" in {found.unit.difference}" if found.unit.difference else ""


def _intervals(data: HeatMap) -> Iterator[str]:
    """Say how wide the intervals are, which the cells have no room for."""
    found = data.found
    halves = [(cell.interval[1] - cell.interval[0]) / 2 for cell in data.cells.values() if cell.interval]
    halves = [half for half in halves if half > 0.0]
    if halves:
        level, (low, high) = percent(1 - found.interval_alpha), (min(halves), max(halves))
        number, amount = found.unit.number, found.unit.amount
        size = amount(high) if number(low) == number(high) else f"{number(low)} to {amount(high)}"
        yield f"{level} intervals, for all arms at once: plus or minus {size}."
    if found.margin is not None:
        yield f"Equivalent: within {found.unit.amount(found.margin)}."


_ABOUT = "The measure over two settings that vary together: a color, a number and a verdict for each combination."
CHARTS.register("heat_map")(
    Chart(
        "heat_map",
        heat_map_data,
        draw_heat_map,
        _ABOUT,
        has_verdicts=True,
        words=words,
        options=frozenset({"measure", "arms", "size"}),
    )
)
