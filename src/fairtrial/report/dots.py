"""Draws a metric of studies with one epoch: a row for each arm with its seeds, their mean and their range."""

import altair as alt

from fairtrial.report.axes import joined, padded
from fairtrial.report.chart_options import Size
from fairtrial.report.curve_plots import spans
from fairtrial.report.curves import CurveData
from fairtrial.report.style import CROSS, WIDTH, Rows, channels, chart_text, frame, over, shortened
from fairtrial.spec import Study

#: Pixels for each arm, of few arms and of many; how many arms are drawn.
ROW, NARROW, MOST = 30, 18, 60


def dots(study: Study, data: CurveData, title: str, factor: float, size: Size | None) -> alt.LayerChart:
    """Draw the values of the only epoch."""
    curves = data.curves[:MOST]
    width, height = size or (WIDTH, (ROW if len(curves) <= 12 else NARROW) * len(curves))
    names = {curve.arm: f"{shortened(chart_text(curve.arm), 40)}" for curve in curves}
    order = [
        f"{name}" + ("" if curve.seeds else " (no data)") for curve, name in zip(curves, names.values(), strict=True)
    ]
    labels = dict(zip(names, order, strict=True))
    ends = padded(joined(spans(curves, factor, lost=True)), 0.06)
    scale = alt.Scale(domain=ends, nice=True, zero=False)
    x, low_end = (alt.X(f"{field}:Q", title=title, scale=scale) for field in ("x", "low"))
    y = alt.Y(
        "row:N",
        sort=order,
        title=None,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(labelLimit=280, grid=False, ticks=False, domain=False),
    )
    color, _, shape = channels([arm.name for arm in study.arms], study.reference)
    means: Rows = []
    seeds: Rows = []
    lost: Rows = []
    for curve in curves:
        row = {"arm": curve.arm, "row": labels[curve.arm]}
        for point in curve.points:
            means.append(
                row
                | {
                    "x": point.mean * factor,
                    "low": point.low * factor,
                    "high": point.high * factor,
                    "n": len(point.values),
                }
            )
            seeds += [row | {"seed": seed, "x": value * factor} for seed, value in point.values.items()]
        lost += [
            row | {"seed": seed, "x": value * factor} for seed, each in curve.lost.items() for value in each.values()
        ]
    rule = alt.Chart().mark_rule(strokeWidth=1.4, opacity=0.6)
    dot = alt.Chart().mark_point(style="faint", filled=False, size=18, strokeWidth=1, opacity=0.9)
    mean = alt.Chart().mark_point(filled=True, size=60, opacity=1)
    cross = alt.Chart().mark_point(shape=CROSS, size=40, strokeWidth=1.5, opacity=1)
    layers = [
        over([each for each in means if each["n"] > 1], rule).encode(low_end, alt.X2("high:Q"), y, color),
        over(seeds, dot).encode(x, y),
        over(means, mean).encode(x, y, color, shape),
        *([over(lost, cross).encode(x, y, color)] if lost else []),
    ]
    return alt.LayerChart(layer=layers, width=width, height=height, config=frame())
