"""Charts of the x-ray: what the optimizer of each arm did over the steps of training.

The horizontal axis counts epochs, and is logarithmic where snapshots within the first epoch would otherwise overlap.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.registry import CHARTS
from fairtrial.report.axes import Span, epoch_axis, padded
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Drawing, Words
from fairtrial.report.panels import FLUSH
from fairtrial.report.style import LINE, Rows, channels, chart_text, frame, over, shortened
from fairtrial.report.words import count, percent
from fairtrial.report.xray import ArmXray, Moment, Statistics, StudyXray, epsilon_in_words, number, xray_of
from fairtrial.spec import Study
from fairtrial.trial import TrialResult

#: Arms that are drawn: more can't be told apart.
MOST = 12

#: Pixels of a panel's width and height, and between the lines of the legend.
PANEL, SMALL, LEADING = (230, 190), (150, 120), 20

#: The horizontal axis is logarithmic if the first snapshot comes before this part of the first epoch.
EARLY = 0.5

_OPTIONS = frozenset({"arms", "size"})

#: Reads a number of a part's statistics; None if there is none.
Read = Callable[[Statistics], float | None]


@dataclass(frozen=True)
class XrayCharts:
    """What is drawn: the x-rays of the first `MOST` of the chosen arms, and how many arms more there are."""

    found: StudyXray
    arms: tuple[ArmXray, ...]
    hidden: int


def xray_data(study: Study, results: Sequence[TrialResult], arms: Sequence[str] = ()) -> XrayCharts:
    """Collect the x-rays of the arms that are drawn.

    Raises:
        ReportError: no trial has a snapshot.
    """
    found = xray_of(study, results)
    chosen = [one for one in found.arms if not arms or one.arm in arms]
    if not chosen:
        raise ReportError(f"{study.label}: no arm that was chosen has an x-ray")
    return XrayCharts(found, tuple(chosen[:MOST]), max(0, len(chosen) - MOST))


def _with(names: Sequence[str], study: Study, results: Sequence[TrialResult], arms: Sequence[str] = ()) -> XrayCharts:
    """Collect the x-rays, of which one at least has one of these statistics."""
    data = xray_data(study, results, arms)
    if not any(name in moment.overall for one in data.arms for moment in one.moments for name in names):
        raise ReportError(f"{study.label}: no optimizer has what this chart shows; fairtrial xray says why")
    return data


@dataclass(frozen=True)
class _Panel:
    """One plot of a row: its title and vertical axis, and what it reads."""

    title: str
    axis: str
    read: Read
    log: bool = False
    factor: float = 1.0
    kind: str = ""  # of layer; all of them if empty


def _plain(name: str) -> Read:
    return lambda found: found.get(name)


def _root(percentile: int) -> Read:
    def read(found: Statistics) -> float | None:
        value = found.get(f"log10_sqrt_vhat_p{percentile}")
        return None if value is None else 10.0**value

    return read


def _lines(study: Study, data: XrayCharts, panel: _Panel, size: Size, *, axis: bool = True) -> alt.LayerChart:
    """Draw a line for each arm."""
    rows = [row for at, one in enumerate(data.arms) for row in _points(one, panel, at)]
    color, dash, shape = channels([arm.name for arm in study.arms], study.reference)
    y = alt.Y("y:Q", title=panel.axis if axis else "", scale=_scale([row["y"] for row in rows], log=panel.log))
    ticks = alt.Axis(format="~g", tickCount=5, labelFlush=FLUSH) if panel.log else alt.Axis(labelFlush=FLUSH)
    y = y.axis(ticks)
    x = _epochs(data)
    line = alt.Chart().mark_line(strokeWidth=1.7)
    dot = alt.Chart().mark_point(filled=True, opacity=1, size=22)
    layers = [
        over(rows, line).encode(x, y, color, dash, detail="arm:N"),
        over([row for row in rows if row["marked"]], dot).encode(x, y, color, shape),
    ]
    head = alt.TitleParams(chart_text(panel.title), fontSize=11, offset=4)
    return alt.LayerChart(layer=layers, width=size[0], height=size[1], title=head)


def _points(one: ArmXray, panel: _Panel, at: int) -> Iterator[dict[str, Any]]:
    """Make a line's rows; of many points every second or third is marked, each arm's off the others'."""
    found = [(moment, panel.read(_part(moment, panel.kind))) for moment in one.moments]
    drawn = [
        (moment, value)
        for moment, value in found
        if value is not None and not (panel.log and value * panel.factor <= 0)
    ]
    every = -(-len(drawn) // 10) or 1
    for index, (moment, value) in enumerate(drawn):
        row = {"arm": one.arm, "x": moment.at, "y": value * panel.factor, "step": moment.step}
        yield row | {"marked": index % every == at % every or index == len(drawn) - 1}


def _part(moment: Moment, kind: str) -> Statistics:
    return moment.kinds.get(kind, {}) if kind else moment.overall


def _scale(values: Sequence[float], *, log: bool) -> alt.Scale:
    if not values:
        return alt.Scale()
    low, high = min(values), max(values)
    if log:
        return alt.Scale(type="log", domain=(low / 1.3, high * 1.3), nice=False)
    limits: Span = (min(0.0, low), max(0.0, high)) if low >= 0.0 or high <= 0.0 else (low, high)
    return alt.Scale(domain=padded(limits, 0.05, limits), nice=True, zero=False)


def _epochs(data: XrayCharts) -> alt.X:
    """The axis of epochs."""
    ends = [moment.at for one in data.arms for moment in (one.moments[0], one.last)]
    first, last = min(ends), max(ends)
    if first < EARLY and last / first > 10:
        scale = alt.Scale(type="log", domain=(first / 1.2, last * 1.2), nice=False)
        return alt.X(
            "x:Q", title="Epochs (log scale)", scale=scale, axis=alt.Axis(format="~g", tickCount=5, grid=False)
        )
    room = 0.03 * (last - first) or 0.5
    scale = alt.Scale(domain=(first - room, last + room), nice=False, zero=False)
    whole = math.ceil(first), math.floor(last)
    axis = epoch_axis(whole[1], whole[0], most=6) if whole[0] <= whole[1] else alt.Axis(tickCount=6, grid=False)
    return alt.X("x:Q", title="Epochs", scale=scale, axis=axis)


def _legend(study: Study, data: XrayCharts) -> alt.LayerChart:
    color, dash, shape = channels([arm.name for arm in study.arms], study.reference)
    names: Rows = [
        {"arm": one.arm, "label": shortened(one.arm, 40), "at": (row + 0.5) * LEADING}
        for row, one in enumerate(data.arms)
    ]
    ends = [row | {"x": x} for row in names for x in (0, 36)]
    x, y = alt.X("x:Q", scale=None, axis=None), alt.Y("at:Q", scale=None, axis=None)
    text = alt.Chart().mark_text(style="text", align="left", fontSize=11)
    layers = [
        over(ends, alt.Chart().mark_line(strokeWidth=1.7)).encode(x, y, color, dash),
        over(names, alt.Chart().mark_point(filled=True, opacity=1, size=30)).encode(y, color, shape, x=alt.value(18)),
        over(names, text).encode(y, x=alt.value(44), text="label:N"),
    ]
    return alt.LayerChart(layer=layers, width=44, height=LEADING * len(names))


def _row(study: Study, data: XrayCharts, panels: Sequence[_Panel], size: Size | None) -> Drawing:
    plots = [_lines(study, data, panel, size or PANEL) for panel in panels]
    return alt.HConcatChart(hconcat=[*plots, _legend(study, data)], spacing=16, config=frame())


def _remarks(data: XrayCharts) -> Iterator[str]:
    if data.hidden:
        yield f"{count(data.hidden, 'more arm')} not drawn: choose arms with --arm."
    seeds = {moment.seeds for one in data.arms for moment in one.moments}
    if max(seeds) > 1:
        yield f"Means over up to {count(max(seeds), 'seed')}."


def _draw_root(study: Study, data: XrayCharts, *, size: Size | None = None) -> Drawing:
    """Draw a panel for each arm: bands of sqrt(vhat), and epsilon."""
    del study
    tables = [moment.overall for one in data.arms for moment in one.moments]
    ends = [value for table in tables for value in (_root(5)(table), _root(95)(table), table.get("eps")) if value]
    scale = _scale(ends, log=True)
    panels = [_bands(one, data, scale, size or SMALL, first=at % 4 == 0) for at, one in enumerate(data.arms)]
    return alt.ConcatChart(concat=panels, columns=4, spacing=14, config=frame())


def _bands(one: ArmXray, data: XrayCharts, scale: alt.Scale, size: Size, *, first: bool) -> alt.LayerChart:
    rows: Rows = []
    for moment in one.moments:
        values = {f"p{each}": _root(each)(moment.overall) for each in (5, 25, 50, 75, 95)}
        if all(value is not None for value in values.values()):
            rows.append({"arm": one.arm, "x": moment.at, "step": moment.step, **values})
    epsilon: Rows = [
        {"arm": one.arm, "x": moment.at, "step": moment.step, "eps": moment.overall["eps"]}
        for moment in one.moments
        if moment.overall.get("eps")
    ]
    x = _epochs(data)

    def y(field: str) -> alt.Y:
        axis = alt.Axis(format="~e", tickCount=6, labelFlush=FLUSH)
        return alt.Y(f"{field}:Q", title="sqrt(vhat)" if first else "", scale=scale, axis=axis)

    layers = [
        over(rows, alt.Chart().mark_area(style="equivalent", opacity=0.2)).encode(x, y("p5"), alt.Y2("p95:Q")),
        over(rows, alt.Chart().mark_area(style="equivalent", opacity=0.3)).encode(x, y("p25"), alt.Y2("p75:Q")),
        over(rows, alt.Chart().mark_line(style="equivalent", strokeWidth=1.8)).encode(x, y("p50")),
    ]
    if epsilon:
        line = alt.Chart().mark_line(style="worse", strokeWidth=1.6, strokeDash=[5, 3])
        layers.append(over(epsilon, line).encode(x, y("eps")))
        low, high = scale.domain  # above the line, unless that is outside the plot
        beside = 9 if (epsilon[-1]["eps"] / low) ** 4 > (high / low) ** 3 else -6
        word = alt.Chart().mark_text(style="worse", align="right", dy=beside, fontSize=10.5)
        layers.append(over([epsilon[-1] | {"label": "epsilon"}], word).encode(x, y("eps"), text="label:N"))
    head = alt.TitleParams(chart_text(shortened(one.arm, 30)), fontSize=11, offset=4)
    return alt.LayerChart(layer=layers, width=size[0], height=size[1], title=head)


def _words_root(study: Study, data: XrayCharts) -> Words:
    lines = (
        f"{study.name}. Line: median over the weights that have had a gradient; bands: 25% to 75%, and 5% to 95%.",
        "Dashed: epsilon. It matters where it comes near the bands.",
        *_remarks(data),
    )
    facts = [f"{one.arm}: {said}" for one in data.arms if (said := epsilon_in_words(one))]
    told = "; ".join(facts[:3]) or "no optimizer has an epsilon"
    return Words(
        "Root of the second moment, beside epsilon", lines, f"Percentiles of sqrt(vhat) over training; {told}.", LINE
    )


_SHARES = tuple(
    _Panel(f"epsilon above {part} of sqrt(vhat)", "Weights (%)", _plain(name), factor=100.0)
    for name, part in (("eps_over_1pct", "1%"), ("eps_over_10pct", "10%"), ("eps_over_100pct", "100%"))
)


def _words_epsilon(study: Study, data: XrayCharts) -> Words:
    lines = (
        f"{study.name}. Share of the weights that have had a gradient.",
        "Above 10% of sqrt(vhat), epsilon shortens a step by more than 9%; above 100%, by more than half.",
        *_remarks(data),
    )
    shares = {one.arm: one.last.overall["eps_over_10pct"] for one in data.arms if "eps_over_10pct" in one.last.overall}
    told = "; ".join(f"{arm} {percent(share)}" for arm, share in shares.items())
    return Words("Where epsilon matters", lines, f"Weights with epsilon above 10% of sqrt(vhat) at the end: {told}.")


_UPDATES = (
    _Panel("Step over learning rate", "Root mean square", _plain("update_rms_over_lr"), log=True),
    _Panel("Step over weights", "Ratio of norms", _plain("update_over_weight"), log=True),
    _Panel("Averaged and fresh gradient", "Cosine", _plain("cosine")),
)


def _words_updates(study: Study, data: XrayCharts) -> Words:
    lines = (
        f"{study.name}. Left: how many learning rates a step changes a weight by.",
        "Middle: norm of a step over that of the weights.",
        "Right: 0 where a gradient has nothing to do with those before it, below 0 where it points against them.",
        *_remarks(data),
    )
    found = {one.arm: one.last.overall.get("update_rms_over_lr") for one in data.arms}
    told = "; ".join(f"{arm} {number(value)}" for arm, value in found.items() if value is not None)
    return Words(
        "Steps of the optimizer", lines, f"Root mean square of a step over the learning rate at the end: {told}."
    )


def _draw_layers(study: Study, data: XrayCharts, *, size: Size | None = None) -> Drawing:
    """Draw a column for each kind of layer: steps above, sqrt(vhat) below."""
    kinds = _kinds(data)
    rows = []
    for number_of_row, (axis, read, log) in enumerate(
        (("Step over learning rate", _plain("update_rms_over_lr"), True), ("Median sqrt(vhat)", _root(50), True))
    ):
        panels = [_Panel(kind if number_of_row == 0 else "", axis, read, log=log, kind=kind) for kind in kinds]
        if any(list(_points(one, panel, 0)) for one in data.arms for panel in panels):
            rows.append([_lines(study, data, panel, size or SMALL, axis=at == 0) for at, panel in enumerate(panels)])
    rows[0].append(_legend(study, data))
    drawn = [alt.HConcatChart(hconcat=row, spacing=12) for row in rows]
    return alt.VConcatChart(vconcat=drawn, spacing=12, config=frame())


def _kinds(data: XrayCharts) -> list[str]:
    """The kinds of layers, those with most weights first, at most six."""
    sizes: dict[str, float] = {}
    for one in data.arms:
        for kind, found in one.last.kinds.items():
            sizes[kind] = max(sizes.get(kind, 0.0), found.get("coordinates", 0.0))
    return sorted(sizes, key=lambda kind: -sizes[kind])[:6]


def _words_layers(study: Study, data: XrayCharts) -> Words:
    lines = (f"{study.name}. A column for each kind of layer.", *_remarks(data))
    told = "; ".join(
        f"{kind} {number(value)}"
        for kind in _kinds(data)
        if (value := data.arms[0].last.kinds.get(kind, {}).get("update_rms_over_lr")) is not None
    )
    alt_text = f"Steps by kind of layer; of {data.arms[0].arm} at the end, in learning rates: {told or 'not known'}."
    return Words("Steps and second moments by kind of layer", lines, alt_text, LINE + 20)


_LOSSES = (
    _Panel("Training", "Loss", _plain("train_loss")),
    _Panel("Test", "Loss", _plain("test_loss")),
)


def _words_losses(study: Study, data: XrayCharts) -> Words:
    lines = (
        f"{study.name}. Training: mean of the epoch so far. Test: of up to 128 images, the same at each step.",
        *_remarks(data),
    )
    found = {one.arm: one.last.overall.get("train_loss") for one in data.arms}
    told = "; ".join(f"{arm} {value:.3g}" for arm, value in found.items() if value is not None)
    return Words("Losses along the way", lines, f"Training and test loss over training; training at the end: {told}.")


def _draw_row(panels: Sequence[_Panel], study: Study, data: XrayCharts, *, size: Size | None = None) -> Drawing:
    return _row(study, data, panels, size)


def _register(
    name: str,
    needs: Sequence[str],
    draw: Callable[..., Drawing],
    words: Callable[[Study, XrayCharts], Words],
    about: str,
) -> None:
    chart = Chart(name, data=partial(_with, needs), draw=draw, about=about, words=words, options=_OPTIONS)
    CHARTS.register(name)(chart)


_register(
    "xray_sqrt_vhat",
    ["log10_sqrt_vhat_p50"],
    _draw_root,
    _words_root,
    "The x-ray: percentiles of the root of Adam's second moment, with epsilon as a line.",
)
_register(
    "xray_epsilon",
    ["eps_over_10pct"],
    partial(_draw_row, _SHARES),
    _words_epsilon,
    "The x-ray: the share of weights in which epsilon exceeds 1%, 10% and 100% of that root.",
)
_register(
    "xray_updates",
    ["update_rms_over_lr", "update_over_weight"],
    partial(_draw_row, _UPDATES),
    _words_updates,
    "The x-ray: steps over the learning rate and over the weights; averaged beside fresh gradients.",
)
_register(
    "xray_layers",
    ["update_rms_over_lr", "log10_sqrt_vhat_p50"],
    _draw_layers,
    _words_layers,
    "The x-ray: steps and second moments by kind of layer.",
)
_register(
    "xray_losses",
    ["train_loss", "test_loss"],
    partial(_draw_row, _LOSSES),
    _words_losses,
    "The x-ray: training and test loss at its moments, those within the first epoch too.",
)
