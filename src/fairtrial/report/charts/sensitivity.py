"""Sensitivity curves: the measure against each setting that takes several values, with intervals and a smooth curve."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.registry import CHARTS
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.charts.differences import difference_data, remark, warnings
from fairtrial.report.style import CROSS, LINE, VERDICT_SHAPES, WIDTH, Rows, chart_text, frame, over
from fairtrial.report.verdict_marks import in_tooltip, margin_row
from fairtrial.report.words import number_text, percent
from fairtrial.spec import Study
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.paired import fate
from fairtrial.stats.sensitivity import Level, Sensitivity, sensitivities
from fairtrial.trial import TrialResult

#: Pixels of a panel's height, and of its width where there are several, two in a row.
HEIGHT, NARROW = 260, 350

#: What people call settings whose names are short.
WORDS = {"lr": "learning rate", "eps": "epsilon"}


@dataclass(frozen=True)
class SensitivityData:
    """A study's verdicts, how its measure depends on each setting, and the differences of each arm by seed."""

    found: StudyVerdict
    settings: tuple[Sensitivity, ...]
    by_seed: Mapping[str, Mapping[int, float]]


def sensitivity_data(
    study: Study,
    results: Sequence[TrialResult],
    *,
    history: History | None = None,
    measure: str | None = None,
    arms: Sequence[str] = (),
) -> SensitivityData:
    """Collect what the verdicts say of each setting; of chosen arms alone, curves are still those through all values.

    Raises:
        ReportError: no setting takes three values, or no arm has a difference.
    """
    data = difference_data(study, results, history=history, measure=measure)
    settings = sensitivities(study, data.found)
    if not settings:
        raise ReportError("no setting takes three values or more with all others as in the reference")
    shown = {study.reference, *arms} if arms else {arm.name for arm in study.arms}
    settings = tuple(
        replace(each, levels=tuple(level for level in each.levels if level.arm in shown)) for each in settings
    )
    settings = tuple(each for each in settings if any(level.arm != study.reference for level in each.levels))
    if not settings:
        raise ReportError("no arm that was chosen differs from the reference in such a setting alone")
    return SensitivityData(data.found, settings, {arm.arm: arm.by_seed for arm in data.arms if arm.arm in shown})


def draw_sensitivity(study: Study, data: SensitivityData, *, size: Size | None = None) -> alt.ConcatChart:
    """Draw a panel for each setting: points with intervals, the seeds, and the curve with its band."""
    del study
    width, height = size or (WIDTH if len(data.settings) == 1 else NARROW, HEIGHT)
    panels = [
        alt.LayerChart(layer=list(_panel(data, each, first=at % 2 == 0)), width=width, height=height)
        for at, each in enumerate(data.settings)
    ]
    return alt.ConcatChart(concat=panels, columns=2, spacing=24, config=frame())


def words(study: Study, data: SensitivityData) -> Words:
    """Say what is drawn."""
    found = data.found
    names = " and ".join(dict.fromkeys(words_of(each) for each in data.settings))
    label = study.measure(found.metric).label
    lines = (*warnings(found), f"{study.name}. {_caption(data)}", remark(found))
    levels = [f"{words_of(each)}: {_levels_in_words(each)}" for each in data.settings]
    alt_text = f"Difference of {label} from {found.reference} against {names}; {'; '.join(levels)}."
    return Words(f"Sensitivity to {names}: {label}", lines, alt_text, LINE if len(data.settings) == 1 else 150)


def _levels_in_words(each: Sensitivity) -> str:
    return ", ".join(f"{number_text(level.value)} {level.verdict}" for level in each.levels)


def words_of(found: Sensitivity) -> str:
    """Name a setting as people do: ``learning rate``, ``beta2``."""
    return WORDS.get(found.name, found.name)


def _panel(data: SensitivityData, each: Sensitivity, *, first: bool) -> Iterator[alt.Chart]:
    found, factor = data.found, data.found.unit.factor
    unit = f" ({found.unit.difference})".removesuffix(" ()")
    title = chart_text(f"Difference from {found.reference}{unit}") if first else None
    domain = alt.Scale(domain=_domain(data), nice=True, zero=False)
    x = _x(each)
    y, low = (alt.Y(f"{key}:Q", title=title, scale=domain) for key in ("y", "start"))
    if found.margin is not None:
        band = alt.Chart().mark_rect(style="margin", opacity=0.14)
        yield over([margin_row(found, _domain(data))], band).encode(y=low, y2="end:Q")
    yield over([{"y": 0.0}], alt.Chart().mark_rule(style="ink", strokeWidth=1)).encode(y=y)
    if each.curve is not None:
        curve: Rows = [
            {"x": _place(value, each), "y": mean * factor, "start": below * factor, "end": above * factor}
            for value, mean, below, above in zip(*vars(each.curve).values(), strict=True)
        ]
        yield over(curve, alt.Chart().mark_area(style="ink", opacity=0.13)).encode(x, low, alt.Y2("end:Q"))
        yield over(curve, alt.Chart().mark_line(style="ink", strokeWidth=1.6)).encode(x, y)
    yield from _levels(data, each, x, y, low)


def _levels(data: SensitivityData, each: Sensitivity, x: alt.X, y: alt.Y, low: alt.Y) -> Iterator[alt.Chart]:
    """Draw what was measured: seeds, intervals, means by their verdicts, and where trials were lost."""
    factor = data.found.unit.factor
    bars: Rows = [
        _level(level, each, data.found) | {"start": level.interval[0] * factor, "end": level.interval[1] * factor}
        for level in each.levels
        if level.interval and level.verdict != "reference"
    ]
    seeds: Rows = [
        {
            "x": _place(level.value, each),
            "arm": level.arm,
            "setting": _setting(level, each),
            "seed": seed,
            "y": value * factor,
        }
        for level in each.levels
        for seed, value in data.by_seed.get(level.arm, {}).items()
    ]
    yield over(seeds, alt.Chart().mark_point(style="faint", size=14, opacity=0.8, strokeWidth=0.8)).encode(x, y)
    yield over(bars, alt.Chart().mark_rule(style="ink", strokeWidth=1.5)).encode(x, low, alt.Y2("end:Q"))
    used = [
        word for word in VERDICT_SHAPES if any(level.verdict == word for one in data.settings for level in one.levels)
    ]
    shapes = alt.Scale(domain=used, range=[VERDICT_SHAPES[word] for word in used])
    legend = alt.Legend(title=None, orient="right", symbolSize=60)
    shape = alt.Shape("verdict:N", scale=shapes, legend=legend)
    for verdict in used:
        points: Rows = [
            _level(level, each, data.found) | {"start": level.difference * factor, "verdict": verdict}
            for level in each.levels
            if level.difference is not None and not level.lost and level.verdict == verdict
        ]
        mark = alt.Chart().mark_point(style=verdict, filled=True, opacity=1, size=75)
        yield over(points, mark).encode(x, low, shape)
    lost = [_lost(level, each, data) for level in each.levels if level.lost or level.verdict == "refused"]
    if lost:
        yield over(lost, alt.Chart().mark_point(style="worse", shape=CROSS, size=60, opacity=1)).encode(x, low)
        text = alt.Chart().mark_text(style="text", fontSize=10, dy=-10)
        yield over(lost, text).encode(x, low, text="words:N")


def _level(level: Level, each: Sensitivity, found: StudyVerdict) -> dict[str, object]:
    """What a mark says of a value: its arm, and the difference with its interval."""
    said = in_tooltip(found, level.interval, level.difference) if level.verdict != "reference" else {}
    own = {"arm": level.arm, "setting": _setting(level, each), **said}
    return {"x": _place(level.value, each), **own}


def _setting(level: Level, each: Sensitivity) -> str:
    return f"{words_of(each)} = {number_text(level.value)}"


def _lost(level: Level, each: Sensitivity, data: SensitivityData) -> dict[str, object]:
    """Mark a level that lost trials at its mean, or on the frame's worse side if none is left."""
    at = level.difference
    low, high = _domain(data)
    worst = low if data.found.larger_is_better else high
    words = ", ".join(f"{number} {fate(how)}" for how, number in level.lost.items()) or "refused"
    y = worst if at is None else at * data.found.unit.factor
    return _level(level, each, data.found) | {"start": y, "words": words}


def _place(value: float, each: Sensitivity) -> float:
    return 1.0 - value if each.scale == "log below one" else value


def _x(each: Sensitivity) -> alt.X:
    """The axis of a setting, with its own values as ticks."""
    values = [level.value for level in each.levels]
    name, places = words_of(each), [_place(value, each) for value in values]
    low, high = min(places), max(places)
    if each.scale == "linear":
        padding = 0.04 * (high - low)
        scale = alt.Scale(domain=(low - padding, high + padding), nice=False, zero=False)
        axis = alt.Axis(values=places, labelExpr="format(datum.value, '.6~g')", grid=False, labelOverlap="parity")
        return alt.X("x:Q", title=chart_text(name), scale=scale, axis=axis)
    padding = (high / low) ** 0.05
    below_one = each.scale == "log below one"
    scale = alt.Scale(type="log", domain=(low / padding, high * padding), nice=False, reverse=below_one)
    small = min(values) < 0.001 or max(values) >= 1e5
    kind = "1 - datum.value, '.6~g'" if below_one else "datum.value, '~e'" if small else "datum.value, '.6~g'"
    axis = alt.Axis(values=places, labelExpr=f"format({kind})", grid=False, labelOverlap="parity")
    of = f" of 1 - {name}" if below_one else ""
    return alt.X("x:Q", title=chart_text(f"{name} (log scale{of})"), scale=scale, axis=axis)


def _domain(data: SensitivityData) -> tuple[float, float]:
    """Span all that is drawn, in all panels, and zero, with some padding."""
    factor, margin = data.found.unit.factor, data.found.margin or 0.0
    ends = [-margin, margin]
    for each in data.settings:
        ends += [*each.curve.low, *each.curve.high] if each.curve else []
        for level in each.levels:
            ends += [*(level.interval or ()), *data.by_seed.get(level.arm, {}).values()]
    padding = 0.05 * (max(ends) - min(ends)) or 1.0 / factor
    return (min(ends) - padding) * factor, (max(ends) + padding) * factor


def _caption(data: SensitivityData) -> str:
    if not any(each.curve for each in data.settings):
        return "Points: means; small circles: one seed each."
    level = percent(1 - data.found.interval_alpha)
    return f"Points: means with {level} intervals for all arms at once. Line: smoothing spline, with its {level} band."


_ABOUT = "The measure against each setting that takes three values or more, with intervals and a smooth curve."
CHARTS.register("sensitivity")(
    Chart(
        "sensitivity",
        sensitivity_data,
        draw_sensitivity,
        _ABOUT,
        has_verdicts=True,
        words=words,
        options=frozenset({"measure", "arms", "size"}),
    )
)
