"""Draws curves over epochs: layers of one plot, the ends of its axes, and a legend of lines and points."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.report.axes import Span, clipped, epoch_axis, joined, padded, robust, within
from fairtrial.report.curves import ArmCurve, CurveData
from fairtrial.report.panels import FLUSH
from fairtrial.report.style import CROSS, Rows, channels, over, shortened
from fairtrial.spec.metrics import Unit

#: About this many points mark a line (more would hide its dashes); more bands than this are drawn fainter.
MARKED, CROWD = 12, 4

#: Pixels between the lines of the legend.
LEADING = 20

#: Epochs that are not on the vertical axis, of curves that begin far from where they end, as a share of all.
EARLY = 0.25

#: Characters of an arm's name in a legend.
NAME = 44


@dataclass(frozen=True)
class Frame:
    """Both axes of a plot, and the arms that its colors tell apart."""

    title: str  # of the vertical axis
    unit: Unit
    first: int  # epoch
    last: int
    domain: Span  # of the vertical axis, as it is shown
    arms: Sequence[str]  # all that share the colors
    reference: str
    log: bool = False
    most_seeds: int = 1
    ticks: int = 12  # at most, on the axis of epochs

    @property
    def x(self) -> alt.X:
        """The axis of epochs."""
        padding = 0.03 * (self.last - self.first) or 0.5  # for the points at either end
        ends = alt.Scale(domain=(self.first - padding, self.last + padding), nice=False, zero=False)
        return alt.X("epoch:Q", title="Epoch", scale=ends, axis=epoch_axis(self.last, self.first, self.ticks))

    def y(self, field: str) -> alt.Y:
        """The axis of the metric, for one of the fields."""
        kind = {"type": "log", "nice": False} if self.log else {"nice": True, "zero": False}
        axis = alt.Axis(labelFlush=FLUSH)
        return alt.Y(f"{field}:Q", title=self.title, scale=alt.Scale(domain=self.domain, **kind), axis=axis)


def spans(curves: Sequence[ArmCurve], factor: float, first: int = 1, *, lost: bool = False) -> list[Span]:
    """The lowest and highest value of each curve from an epoch on, as they are shown; of some, none."""
    found = []
    for curve in curves:
        ends = [value for point in curve.points if point.epoch >= first for value in (point.low, point.high)]
        ends += [value for tail in curve.tails.values() for epoch, value in tail.items() if epoch >= first]
        if lost:
            ends += [value for each in curve.lost.values() for epoch, value in each.items() if epoch >= first]
        if ends:
            found.append((min(ends) * factor, max(ends) * factor))
    return found


def y_domain(data: CurveData, unit: Unit, *, log: bool = False, first: int = 1, early: float = 25.0) -> Span:
    """Fit the vertical axis to the curves from an epoch on, so that nothing far off squashes the rest.

    Accuracies can't run away: all of theirs are on the axis. Of other metrics, the first epochs, an arm or a diverged
    trial may be beyond the axis. An axis never goes below 0 where no value does, nor above 100%.

    Args:
        data: the curves.
        unit: of the metric.
        log: whether the axis is logarithmic.
        first: the first epoch that must be on it.
        early: how many times as long the first tenth of the epochs must make the axis to be left out.

    Raises:
        ReportError: the axis is to be logarithmic, and there is no value above 0.
    """
    every = spans(data.curves, unit.factor, first) or spans(data.curves, unit.factor, first, lost=True)
    every = every or spans(data.curves, unit.factor, lost=True)
    low, high = (limit * unit.factor for limit in unit.limits)
    bounded = math.isfinite(high)
    if bounded:
        span = joined(spans(data.curves, unit.factor, first, lost=True) or every)
    else:
        span, _ = robust(every)
        late = spans(data.curves, unit.factor, max(first, math.ceil(0.1 * data.epochs) + 1))
        settled, _ = robust(late) if late else (span, frozenset())
        if not log and span[1] - span[0] > early * (settled[1] - settled[0]) > 0:
            room = 0.35 * (settled[1] - settled[0])
            span = clipped((settled[0] - room, settled[1] + room), span)
        span = _with_lost(span, data, unit)
    if log:
        return _log_domain(data, unit, span)
    ends = joined([span, *every])
    limits = (max(low, 0.0) if ends[0] >= 0.0 else low, high)
    return padded(span, limits=limits)


def _with_lost(span: Span, data: CurveData, unit: Unit) -> Span:
    """Add what lost trials had, unless it would dwarf the others."""
    length = span[1] - span[0]
    room = (span[0] - length, span[1] + length)
    values = [value * unit.factor for curve in data.curves for each in curve.lost.values() for value in each.values()]
    inside = [value for value in values if within(value, room)]
    return joined([span, *((value, value) for value in inside)])


def _log_domain(data: CurveData, unit: Unit, span: Span) -> Span:
    values = [point.low for curve in data.curves for point in curve.points]
    values += [
        value
        for curve in data.curves
        for each in (*curve.tails.values(), *curve.lost.values())
        for value in each.values()
    ]
    positive = [value * unit.factor for value in values if value > 0.0]
    if not positive:
        raise ReportError(f"{data.metric}: a logarithmic axis needs a value above 0; leave --log out")
    low = max(span[0], min(positive))
    return low / 1.1, max(span[1], low * 1.5) * 1.1


def later_start(data: CurveData, unit: Unit) -> int:
    """From which epoch on the vertical axis of small panels fits the curves: 1, unless the first epochs squash them."""
    start = math.ceil(EARLY * data.epochs) + 1
    late = spans(data.curves, unit.factor, start)
    if data.epochs < 4 or not late:
        return 1
    (all_low, all_high), (low, high) = joined(spans(data.curves, unit.factor)), joined(late)
    return start if all_high - all_low > 1.4 * (high - low) else 1


def curve_layers(
    curves: Sequence[ArmCurve],
    frame: Frame,
    *,
    seeds: bool = False,
    color: str = "",
    mean: str = "",
    dash: Sequence[float] = (1, 0),
) -> list[alt.Chart]:
    """Draw bands, lines and points of some arms.

    Args:
        curves: of the arms.
        frame: the axes.
        seeds: whether to draw a thin line for each seed in place of a band.
        color: a style for all of them, in place of a color, dash and shape for each arm.
        mean: a style for the lines of means, where it is another one.
        dash: of the lines of means, with a color.
    """
    factor = frame.unit.factor
    rows = [row for at, curve in enumerate(curves) for row in _line(curve, factor, frame, at)]
    lost = [row for curve in curves for row in _lost(curve, factor, frame)]
    tails = [row for curve in curves for row in _each(curve.tails, curve.arm, factor, frame)]
    single = [row for row in rows if row["alone"]]
    several = [row for row in rows if not row["alone"]]
    banded = {row["arm"] for row in rows if row["n"] > 1}
    hue, strokes, shape = channels(frame.arms, frame.reference)
    own: list[Any] = [] if color else [hue, strokes]
    look: dict[str, Any] = {"style": color} if color else {}
    x, middle, value = frame.x, frame.y("mean"), frame.y("y")
    main: dict[str, Any] = {"style": mean} if mean else look
    area = alt.Chart().mark_area(clip=True, opacity=0.16 if len(banded) <= CROWD else 0.07, **look)
    thin = alt.Chart().mark_line(clip=True, strokeWidth=0.9, opacity=0.65, **look)
    pattern = list(dash) if color else alt.Undefined
    thick = alt.Chart().mark_line(clip=True, strokeWidth=1.9, strokeDash=pattern, **main)
    dashed = alt.Chart().mark_line(clip=True, strokeWidth=1.4, strokeDash=[3, 3], **main)
    dot = alt.Chart().mark_point(clip=True, filled=True, opacity=1, size=30, **main)
    ring = alt.Chart().mark_point(clip=True, filled=False, opacity=1, size=30, strokeWidth=1.2, **main)
    cross = alt.Chart().mark_point(shape=CROSS, size=50, strokeWidth=1.5, opacity=1, **look)
    hues = [] if color else [hue]
    layers = []
    if seeds:
        each = [row for curve in curves for row in _seeds(curve, factor, frame)]
        layers.append(over(each, thin).encode(x, value, *hues, detail=["arm:N", "seed:N"]))
    else:
        bands = [row for row in rows if row["arm"] in banded]
        layers.append(over(bands, area).encode(x, frame.y("low"), alt.Y2("high:Q"), *hues, detail="arm:N"))
    layers += [
        over([*tails, *lost], thin).encode(x, value, *own, detail=["arm:N", "seed:N"]),
        over(several, thick).encode(x, middle, *own, detail="arm:N"),
        over(single, dashed).encode(x, middle, *hues, detail="arm:N"),
        over([row for row in several if row["marked"]], dot).encode(x, middle, *hues, *([] if color else [shape])),
        over([row for row in single if row["marked"]], ring).encode(x, middle, *hues, *([] if color else [shape])),
        over([row for row in lost if row["last"]], cross).encode(x, frame.y("edge"), *hues),
    ]
    return [layers[0], *(layer for layer in layers[1:] if '"values": "[]"' not in layer.data.to_json())]


def behind(curves: Sequence[ArmCurve], frame: Frame, style: str = "faint", width: float = 0.9) -> alt.Chart:
    """Draw the means of arms as thin lines without points, behind the one that a panel is about."""
    rows = [row for curve in curves for row in _line(curve, frame.unit.factor, frame, 0)]
    line = alt.Chart().mark_line(style=style, clip=True, strokeWidth=width, opacity=0.6)
    return over(rows, line).encode(frame.x, frame.y("mean"), detail="arm:N")


def legend(labels: dict[str, str], frame: Frame, alone: Sequence[str] = ()) -> alt.LayerChart:
    """Draw the legend by hand: Vega's own shows no dashes beside point shapes.

    Args:
        labels: what each arm is called there.
        frame: of the plot.
        alone: arms of one seed among others of several, drawn as such.
    """
    color, dash, shape = channels(frame.arms, frame.reference)
    names: Rows = [
        {"arm": arm, "label": shortened(label, NAME), "at": (row + 0.5) * LEADING}
        for row, (arm, label) in enumerate(labels.items())
    ]
    several, single = ([row for row in names if (row["arm"] in alone) is one] for one in (False, True))
    ends = [row | {"x": x} for row in several for x in (0, 36)]
    single_ends = [row | {"x": x} for row in single for x in (0, 36)]
    x, y = alt.X("x:Q", scale=None, axis=None), alt.Y("at:Q", scale=None, axis=None)
    dot = alt.Chart().mark_point(filled=True, opacity=1, size=30)
    ring = alt.Chart().mark_point(filled=False, opacity=1, size=30, strokeWidth=1.2)
    text = alt.Chart().mark_text(style="text", align="left", fontSize=11)
    layers = [
        over(ends, alt.Chart().mark_line(strokeWidth=1.9)).encode(x, y, color, dash),
        over(several, dot).encode(y, color, shape, x=alt.value(18)),
        over(names, text).encode(y, x=alt.value(44), text="label:N"),
    ]
    if single:
        dashed = alt.Chart().mark_line(strokeWidth=1.4, strokeDash=[3, 3])
        layers += [
            over(single_ends, dashed).encode(x, y, color, detail="arm:N"),
            over(single, ring).encode(y, color, shape, x=alt.value(18)),
        ]
    return alt.LayerChart(layer=layers, width=44, height=LEADING * len(labels))


def _line(curve: ArmCurve, factor: float, frame: Frame, at: int) -> Iterator[dict[str, Any]]:
    """Make a line's rows; where points are thinned out, each arm's begin at another epoch, off the others'."""
    points = [point for point in curve.points if frame.first <= point.epoch <= frame.last]
    every, last = max(1, math.ceil(len(points) / MARKED)), len(points) - 1
    alone = curve.seeds == 1 < frame.most_seeds
    for index, point in enumerate(points):
        values = {"mean": point.mean * factor, "low": point.low * factor, "high": point.high * factor}
        if frame.log and not values["low"] > 0.0:
            continue
        row = {"arm": curve.arm, "epoch": point.epoch, "n": len(point.values), **values}
        yield row | {"marked": index % every == at % every or index == last, "alone": alone}


def _seeds(curve: ArmCurve, factor: float, frame: Frame) -> Iterator[dict[str, Any]]:
    for point in curve.points:
        for seed, value in point.values.items():
            if frame.first <= point.epoch <= frame.last and not (frame.log and value <= 0.0):
                yield {"arm": curve.arm, "seed": seed, "epoch": point.epoch, "y": value * factor}


def _each(by_seed: Any, arm: str, factor: float, frame: Frame) -> Iterator[dict[str, Any]]:
    for seed, values in by_seed.items():
        for epoch, value in values.items():
            if frame.first <= epoch <= frame.last and not (frame.log and value <= 0.0):
                yield {"arm": arm, "seed": seed, "epoch": epoch, "y": value * factor, "last": False}


def _lost(curve: ArmCurve, factor: float, frame: Frame) -> Iterator[dict[str, Any]]:
    """Rows of lost trials; where one ends there is a cross, at the frame if its value is beyond the axis."""
    for seed, values in curve.lost.items():
        for row in _each({seed: values}, curve.arm, factor, frame):
            row["last"] = row["epoch"] == max(values)
            row["edge"] = min(max(row["y"], frame.domain[0]), frame.domain[1])
            yield row
