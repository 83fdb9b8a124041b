"""The chart of trials that are being trained, which the report has not: each one's curve so far, as it grows.

A mean over trials of different lengths would jump with each epoch. So running trials are lines of their own, over faint
means of the trials that have finished.
"""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.report.axes import padded
from fairtrial.report.charts import Figure
from fairtrial.report.curve_plots import Frame, legend
from fairtrial.report.curves import ArmCurve, curve_data
from fairtrial.report.style import WIDTH, channels, chart_text, frame, header, over
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.spec.metrics import Metric
from fairtrial.trial import Outcome, TrialResult

#: The chart's name among those of a page.
NAME = "running"

#: So many running trials are drawn, the newest; so many points of each, which its last one is among.
TRIALS, POINTS = 24, 200


def running_chart(study: Study, results: Sequence[TrialResult]) -> Figure:
    """Draw the running trials of a study on the metric behind its measure.

    Args:
        study: under the labels that the chart shows.
        results: of its trials, under the same labels.

    Raises:
        ReportError: no running trial has ended an epoch with a finite value of the metric.

    Example:
        >>> from dataclasses import replace
        >>> half = [replace(one, outcome=None, epochs=one.epochs[:2]) for one in results]
        >>> running_chart(study, half).title
        'Test accuracy of running trials'
    """
    metric = metric_of(study)
    unit = study.metric(metric).unit
    rows = _rows(results, metric, unit.factor)
    if not rows:
        raise ReportError(f"no running trial has ended an epoch with a value of {metric}")
    curves = _finished(study, results, metric)
    means = [
        {"arm": curve.arm, "epoch": point.epoch, "y": point.mean * unit.factor}
        for curve in curves
        for point in curve.points
    ]
    label = Metric.named(metric).label
    title = f"{label[:1].upper()}{label[1:]}"
    arms = [arm.name for arm in study.arms]
    last = max([*(arm.settings.training.epochs for arm in study.arms), *(row["epoch"] for row in rows)])
    values = [row["y"] for row in (*rows, *means)]
    limits = (unit.limits[0] * unit.factor, unit.limits[1] * unit.factor)
    domain = padded((min(values), max(values)), limits=limits)
    axis = chart_text(f"{title} ({unit.name})".removesuffix(" ()"))
    axes = Frame(axis, unit, 1, last, domain, arms, study.reference)
    shown = {row["arm"] for row in rows} | {row["arm"] for row in means}
    plot = alt.LayerChart(layer=_layers(rows, means, axes), width=WIDTH, height=240)
    names = legend({arm: arm for arm in arms if arm in shown}, axes)
    head = f"{title} of running trials"
    lines = (f"{study.name}. Each line is a running trial; faint: the mean of the arm's finished trials.",)
    chart = alt.HConcatChart(hconcat=[plot, names], spacing=18, config=frame(), title=header(head, *lines))
    return Figure(NAME, chart, rows, head, " ".join(lines), _alt(rows, axis))


def metric_of(study: Study) -> str:
    """The metric behind a study's measure, or the test accuracy where a measure of a user's own does not say."""
    return next(iter(study.measure(study.evidence.metric).metrics), "test_acc")


def _rows(results: Sequence[TrialResult], metric: str, factor: float) -> list[dict[str, Any]]:
    running = sorted((one for one in results if one.outcome is None), key=lambda one: one.started)[-TRIALS:]
    rows = []
    for result in running:
        found = [(record.epoch, record.metrics[metric]) for record in result.epochs if metric in record.metrics]
        found = [(epoch, value) for epoch, value in found if math.isfinite(value)]
        every = max(1, math.ceil(len(found) / POINTS))
        for at, (epoch, value) in enumerate(found):
            if at % every == 0 or at == len(found) - 1:
                row = {"arm": result.arm, "seed": result.seed, "epoch": epoch, "y": value * factor}
                rows.append(row | {"last": at == len(found) - 1})
    return rows


def _finished(study: Study, results: Sequence[TrialResult], metric: str) -> tuple[ArmCurve, ...]:
    try:
        return curve_data(study, [one for one in results if one.outcome is Outcome.FINISHED], metric).curves
    except ReportError:
        return ()


def _layers(rows: list[dict[str, Any]], means: list[dict[str, Any]], axes: Frame) -> list[alt.Chart]:
    hue, dash, shape = channels(axes.arms, axes.reference)
    x, y = axes.x, axes.y("y")
    faint = alt.Chart().mark_line(clip=True, strokeWidth=1.6, opacity=0.35)
    line = alt.Chart().mark_line(clip=True, strokeWidth=1.9)
    point = alt.Chart().mark_point(filled=True, opacity=1, size=45)
    layers = [over(means, faint).encode(x, y, hue, dash, detail="arm:N")] if means else []
    layers.append(over(rows, line).encode(x, y, hue, dash, detail=["arm:N", "seed:N"]))
    layers.append(over([row for row in rows if row["last"]], point).encode(x, y, hue, shape))
    return layers


def _alt(rows: list[dict[str, Any]], axis: str) -> str:
    last = [row for row in rows if row["last"]]
    said = [f"{row['arm']} seed {row['seed']}: {row['y']:.4g} after epoch {row['epoch']}" for row in last[:8]]
    more = f" and {len(last) - len(said)} more" if len(last) > len(said) else ""
    return chart_text(f"{axis} of {count(len(last), 'running trial')}: {'; '.join(said)}{more}.")
