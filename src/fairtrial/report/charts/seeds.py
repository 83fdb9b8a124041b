"""Seeds: a small plot for each arm, in which each seed has a line of its own."""

from collections.abc import Sequence
from dataclasses import replace

import altair as alt

from fairtrial.registry import CHARTS
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.charts.learning_curves import axis_title, ends_of, leaving
from fairtrial.report.curve_plots import Frame, curve_layers, spans
from fairtrial.report.curves import ArmCurve, CurveData, curve_data, metric_of
from fairtrial.report.dots import dots
from fairtrial.report.panels import chosen, columns, grid, left_out, line_length, panel, size_of
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.trial import TrialResult


def seeds_data(
    study: Study, results: Sequence[TrialResult], *, measure: str | None = None, arms: Sequence[str] = ()
) -> CurveData:
    """Collect the curves of the metric behind the study's measure, or another one.

    Raises:
        ReportError: nothing was recorded.
    """
    return curve_data(study, results, metric_of(study, results, measure), arms=arms)


def draw_seeds(
    study: Study, data: CurveData, *, size: Size | None = None, log: bool = False
) -> alt.ConcatChart | alt.LayerChart:
    """Draw a plot for each arm, with the same axes: thin lines are seeds, the thick one is their mean."""
    unit = study.metric(data.metric).unit
    title = axis_title(data.metric, unit)
    if data.epochs == 1:
        return dots(study, data, title, unit.factor, size)
    shown = drawn(study, data)
    arms = [arm.name for arm in study.arms]
    ends = ends_of(replace(data, curves=tuple(shown)), unit, log=log, alone=False)
    axes = Frame(title, unit, 1, data.epochs, ends, arms, study.reference, log, ticks=6)
    each, side = size_of(len(shown), size), columns(len(shown))
    panels = []
    for at, curve in enumerate(shown):
        here = axes if at % side == 0 else replace(axes, title="")
        layers = curve_layers([curve], here, seeds=True, color="equivalent", mean="ink")
        panels.append(panel(layers, curve.arm, each, said_of(curve, study.seeds)))
    return grid(panels)


def drawn(study: Study, data: CurveData) -> list[ArmCurve]:
    """The arms that have a plot."""
    return chosen(data.curves, next((curve for curve in data.curves if curve.arm == study.reference), None))


def said_of(curve: ArmCurve, seeds: int) -> str:
    """Write an arm's number of seeds, and of those that were lost: ``9 seeds, 3 of 12 diverged``."""
    return ", ".join([count(curve.seeds, "seed"), *(f"{n} of {seeds} {how}" for how, n in curve.fates.items())])


def words(study: Study, data: CurveData) -> Words:
    """Say what is drawn."""
    label = study.metric(data.metric).label
    lines = [f"{study.name}. Thin lines: one seed each; thick: their mean; × ends a trial that was lost."]
    unit = study.metric(data.metric).unit
    every, ends = spans(data.curves, unit.factor), ends_of(data, unit, log=False, alone=False)
    if data.epochs > 1 and any(low < ends[0] or high > ends[1] for low, high in every):
        lines.append(leaving(every))
    lines += left_out(data.curves)
    ranges = [f"{curve.arm} {unit_range(study, data, curve)}" for curve in data.curves if curve.points]
    said = "; ".join(ranges) if len(ranges) <= 12 else f"{len(ranges)} arms"
    alt_text = f"{label[:1].upper()}{label[1:]} per epoch, a line for each seed; range of the seeds at the end: {said}."
    return Words(f"{label[:1].upper()}{label[1:]}: each seed", tuple(lines), alt_text, line_length(len(data.curves)))


def unit_range(study: Study, data: CurveData, curve: ArmCurve) -> str:
    """Write the range of an arm's seeds at its last epoch: ``61.20 to 63.80%``."""
    unit, last = study.metric(data.metric).unit, curve.points[-1]
    return f"{unit.between(last.low, last.high)}{unit.name if unit.name == '%' else ''}"


_ABOUT = "Seeds as small plots: for each arm a line for each seed, and their mean."
CHARTS.register("seeds")(
    Chart(
        "seeds",
        seeds_data,
        draw_seeds,
        _ABOUT,
        words=words,
        options=frozenset({"measure", "arms", "size", "log"}),
    )
)
