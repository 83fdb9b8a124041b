"""Learning curves: a metric per epoch, for each arm a line, a band over seeds and points; a legend shows all three."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10
from typing import Any

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.registry import CHARTS
from fairtrial.report.charts import Chart
from fairtrial.report.curves import ArmCurve, CurveData, curve_data
from fairtrial.report.style import CROSS, WIDTH, LineStyle, Rows, channels, frame, line_styles, over
from fairtrial.spec import Study
from fairtrial.spec.metrics import PERCENT, Metric
from fairtrial.trial import TrialResult

#: Pixels of the plot itself.
HEIGHT = 270

#: Pixels between the lines of the legend.
LEADING = 20

#: About this many points mark a line; more would hide its dashes.
MARKED = 12

#: More bands than this are drawn fainter.
CROWD = 6

_POINT = alt.Chart().mark_point(filled=True, opacity=1, size=36)


@dataclass(frozen=True)
class Axis:
    """The vertical axis of a metric.

    Attributes:
        title: with its unit.
        factor: from the record's unit to the axis's.
        bounded: whether values can't run away; where they can, diverged trials don't stretch the axis.
    """

    title: str
    factor: float
    bounded: bool


def learning_curves(metric: str, *, name: str, axis: str = "") -> Chart[CurveData]:
    """Make the chart of a metric per epoch: a line an arm, with a band over seeds.

    A line is the mean over an arm's finished trials, the band around it runs from the lowest seed to the highest: with
    two or three seeds that is all the data there are, and promises nothing more. A diverged trial is a faint line that
    ends in a cross. Failed and unfinished trials are left out, and the figure says so.

    Args:
        metric: name in the epoch records.
        name: the chart's name.
        axis: title of the vertical axis; by default the metric's name in words, and its unit.
    """
    known = Metric.named(metric)
    label, unit = known.label[0].upper() + known.label[1:], known.unit
    title = f"{label} per epoch"
    shown = Axis(axis or f"{label} ({unit.name})".removesuffix(" ()"), unit.factor, bounded=unit is PERCENT)
    return Chart(
        name,
        title,
        data=lambda study, results: _data(study, results, metric),
        draw=lambda study, data: draw(study, data, shown, title),
    )


def _data(study: Study, results: Sequence[TrialResult], metric: str) -> CurveData:
    data = curve_data(study, results, metric)
    if data.empty:
        raise ReportError(f"no finished or diverged trial has recorded `{metric}`")
    return data


def draw(study: Study, data: CurveData, axis: Axis, title: str) -> alt.HConcatChart:
    """Draw the curves of all arms; every layer's rows are in the chart itself."""
    labels = {curve.arm: _label(curve, study.seeds) for curve in data.curves}
    styles = line_styles(list(labels), study.reference)
    shift = _shifts(data)
    lines = [
        row for at, curve in enumerate(data.curves) for row in _line(curve, axis.factor, shift[curve.arm], first=at)
    ]
    broken = [row for curve in data.curves for row in _broken(curve, axis.factor, shift[curve.arm])]
    domain = _range(lines, broken, bounded=axis.bounded)
    beyond = any(row["last"] and not _within(row["y"], domain) for row in broken)
    header = alt.TitleParams(title, subtitle=[f"{study.label}. {_caption(data)}", *_remarks(data, beyond)])
    layers = _plot(data, axis, styles, lines=lines, broken=broken, domain=domain)
    plot = alt.LayerChart(layer=layers, width=WIDTH, height=HEIGHT)
    legend = alt.LayerChart(layer=_legend(labels, styles, data.epochs), width=44, height=LEADING * len(labels))
    return alt.HConcatChart(hconcat=[plot, legend], spacing=18, title=header, config=alt.Config(**frame()))


def _plot(
    data: CurveData,
    axis: Axis,
    styles: Mapping[str, LineStyle],
    *,
    lines: Rows,
    broken: Rows,
    domain: tuple[float, float],
) -> list[alt.Chart]:
    banded = {row["arm"] for row in lines if row["n"] > 1}
    bands = [row for row in lines if row["arm"] in banded]
    inside = [row for row in broken if _within(row["y"], domain)]
    x = alt.X("x:Q", title="Epoch", scale=_epochs(data.epochs), axis=_ticks(data.epochs))
    scale = alt.Scale(domain=domain, nice=True, zero=False, clamp=True)
    mean, low, value = (alt.Y(f"{field}:Q", title=axis.title, scale=scale) for field in ("mean", "low", "y"))
    color, dash, shape = channels(styles)
    # A band has no area at a single epoch, so a bar stands there; many bands over each other must be fainter.
    area = alt.Chart().mark_area(opacity=0.15 if len(banded) <= CROWD else 0.08)
    band = alt.Chart().mark_rule(opacity=0.5) if data.epochs == 1 else area
    thin, cross = alt.Chart().mark_line(strokeWidth=0.9, opacity=0.6), alt.Chart().mark_point(shape=CROSS, size=60)
    return [
        over(bands, band).encode(x, low, alt.Y2("high:Q"), color),
        over(inside, thin).encode(x, value, color, dash, detail="seed:N"),
        over(lines, alt.Chart().mark_line(strokeWidth=1.8)).encode(x, mean, color, dash),
        over([row for row in lines if row["marked"]], _POINT).encode(x, mean, color, shape),
        over([row for row in broken if row["last"]], cross).encode(x, value, color, opacity=alt.value(1)),
    ]


def _legend(labels: Mapping[str, str], styles: Mapping[str, LineStyle], epochs: int) -> list[alt.Chart]:
    """Draw the legend by hand: Vega's own shows no dashes beside point shapes."""
    color, dash, shape = channels(styles)
    names: Rows = [
        {"arm": arm, "label": label, "at": (row + 0.4) * LEADING} for row, (arm, label) in enumerate(labels.items())
    ]
    ends = [row | {"x": x} for row in names for x in (0, 36)] if epochs > 1 else []
    x, y = alt.X("x:Q", scale=None, axis=None), alt.Y("at:Q", scale=None, axis=None)
    return [
        over(ends, alt.Chart().mark_line(strokeWidth=1.8)).encode(x, y, color, dash),
        over(names, _POINT).encode(y, color, shape, x=alt.value(18)),
        over(names, alt.Chart().mark_text(align="left", fontSize=11)).encode(y, x=alt.value(44), text="label:N"),
    ]


def _line(curve: ArmCurve, factor: float, shift: float, first: int) -> Iterator[dict[str, Any]]:
    """Lay out a line's rows; where points are thinned out, each arm's begin at another epoch, off the others'."""
    every, last = ceil(len(curve.points) / MARKED), len(curve.points) - 1
    for index, point in enumerate(curve.points):
        yield {
            "arm": curve.arm,
            "epoch": point.epoch,
            "x": point.epoch + shift,
            "mean": point.mean * factor,
            "low": point.low * factor,
            "high": point.high * factor,
            "n": point.n,
            "marked": index % every == first % every or index == last,
        }


def _broken(curve: ArmCurve, factor: float, shift: float) -> Iterator[dict[str, Any]]:
    for trial in curve.diverged:
        for epoch, value in zip(trial.epochs, trial.values, strict=True):
            yield {
                "arm": curve.arm,
                "seed": trial.seed,
                "epoch": epoch,
                "x": epoch + shift,
                "y": value * factor,
                "last": epoch == trial.epochs[-1],
            }


def _shifts(data: CurveData) -> dict[str, float]:
    """Set arms side by side where a single epoch would put them on one spot."""
    middle = (len(data.curves) - 1) / 2
    step = 0.6 / len(data.curves) if data.epochs == 1 else 0.0
    return {curve.arm: (index - middle) * step for index, curve in enumerate(data.curves)}


def _range(lines: Rows, broken: Rows, *, bounded: bool) -> tuple[float, float]:
    """Choose the vertical axis: all of the finished trials, and of the diverged ones what does not dwarf those."""
    own = [row[key] for row in lines for key in ("low", "high")]
    other = [row["y"] for row in broken]
    if own and not bounded:
        room = max(own) - min(own)
        other = [value for value in other if min(own) - room <= value <= max(own) + room]
    low, high = min(own + other), max(own + other)
    margin = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def _within(value: float, domain: tuple[float, float]) -> bool:
    return domain[0] <= value <= domain[1]


def _epochs(last: int) -> alt.Scale:
    """From the first epoch to the last, with room for the points at either end."""
    margin = 0.03 * (last - 1) or 0.5
    return alt.Scale(domain=(1 - margin, last + margin), nice=False, zero=False)


def _ticks(last: int) -> alt.Axis:
    """Whole epochs only, at most about twelve, in steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, int(log10(max(last / 12, 1))))
    step = next(power * factor for factor in (1, 2, 5, 10) if last / (power * factor) <= 12)
    return alt.Axis(values=[epoch for epoch in range(1, last + 1) if epoch % step == 0], format="d", grid=False)


def _label(curve: ArmCurve, seeds: int) -> str:
    """Name an arm in the legend; an arm that lost trials to divergence says so."""
    if curve.diverged:
        return f"{curve.arm} ({len(curve.diverged)} of {seeds} diverged)"
    return curve.arm if curve.points else f"{curve.arm} (no data)"


def _caption(data: CurveData) -> str:
    """Say what line and band are."""
    counts = sorted(data.counts)
    if not counts:
        return "No trial finished."
    if counts == [1]:
        return "One run an arm: the spread between seeds is not known."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    mean, band = ("Line", "band") if data.epochs > 1 else ("Point", "bar")
    return f"{mean}: mean of {seeds} seeds; {band}: lowest to highest seed."


def _remarks(data: CurveData, beyond: bool) -> list[str]:
    remarks = []
    if any(curve.diverged for curve in data.curves):
        edge = " A × on the frame stands for a value beyond it." if beyond else ""
        remarks.append(f"Thin line to ×: a trial that diverged; it enters no mean.{edge}")
    if omitted := sum(curve.omitted for curve in data.curves):
        remarks.append(f"Left out: {omitted} failed or unfinished trial{'s' if omitted > 1 else ''}.")
    return remarks


#: Figure 1 and Figure 2 of the paper.
CHARTS.register("test_accuracy")(learning_curves("test_acc", name="test_accuracy"))
CHARTS.register("training_loss")(learning_curves("train_loss", name="training_loss", axis="Training loss (nats)"))
