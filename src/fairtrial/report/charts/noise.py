"""Noise: how much evaluations move within a run at its end, and how much runs of one arm differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from fairtrial.errors import ReportError
from fairtrial.registry import CHARTS
from fairtrial.report.axes import padded
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.curves import metric_of, without_epochs
from fairtrial.report.panels import MOST, left_out
from fairtrial.report.style import WIDTH, Rows, chart_text, frame, over, shortened
from fairtrial.report.words import percent
from fairtrial.spec import Study
from fairtrial.spec.metrics import Unit
from fairtrial.stats.jitter import Split, end_evaluations, split_variance
from fairtrial.stats.noise import split_noise
from fairtrial.stats.paired import PairedData
from fairtrial.trial import TrialResult

#: Pixels for each arm.
ROW = 30

#: What the first row is called, which pools all arms.
POOLED = "all arms together"

#: Style and shape of each part of the noise.
PARTS: Mapping[str, tuple[str, str]] = {
    "within a run": ("worse", "circle"),
    "between runs": ("equivalent", "square"),
    "initial weights": ("better", "triangle-up"),
    "batch order": ("ink", "diamond"),
}


@dataclass(frozen=True)
class ArmSpread:
    """Standard deviations of one arm, in the metric's own unit."""

    arm: str
    split: Split | None  # within runs and between them; None of too few runs
    parts: Mapping[str, float]  # of the parts between runs that a study with [noise] tells apart


@dataclass(frozen=True)
class Noise:
    """The noise of each arm, the one of all arms first."""

    metric: str
    unit: Unit
    evaluations: int
    within_epoch: bool
    arms: tuple[ArmSpread, ...]


def noise_data(
    study: Study, results: Sequence[TrialResult], *, measure: str | None = None, arms: Sequence[str] = ()
) -> Noise:
    """Split the variance of each arm's last evaluations, see `fairtrial.stats.jitter`.

    Raises:
        ReportError: there are too few runs, or too few evaluations at their ends.
    """
    metric = metric_of(study, results, measure)
    if reason := without_epochs(study, results):
        raise ReportError(reason)
    data = PairedData.of(study, results, study.evidence.metric, study.evidence.target).sifted(study.seeds)
    runs = {(one.arm, one.seed): one.epochs for one in results if (one.arm, one.seed) in data.values}
    runs = {key: epochs for key, epochs in runs.items() if epochs and metric in epochs[-1].metrics}
    names = [arm.name for arm in study.arms if not arms or arm.name in arms]
    ends = end_evaluations(runs, metric)
    parts = {one.arm: _parts(one.components) for one in split_noise(study, results)}
    spreads = []
    if ends is not None:
        missing = np.full(ends.number, np.nan)
        table = np.array([[ends.traces.get((arm, seed), missing) for seed in range(study.seeds)] for arm in names])
        splits = {arm: split_variance(rows[None]) for arm, rows in zip(names, table, strict=True)}
        pooled = split_variance(table) if len(names) > 1 else None
        spreads = [ArmSpread(POOLED, pooled, {})] if pooled else []
        spreads += [ArmSpread(arm, split, parts.get(arm, {})) for arm, split in splits.items()]
    else:
        spreads += [ArmSpread(arm, None, parts.get(arm, {})) for arm in names]
    known = tuple(one for one in spreads if one.split or one.parts)
    if not known:
        raise ReportError(
            "too few runs, or evaluations at their ends, to tell noise within runs from that between them"
        )
    unit = study.metric(metric).unit
    number, within = (0, False) if ends is None else (ends.number, ends.within_epoch)
    return Noise(metric, unit, number, within, known)


def _parts(components: object) -> dict[str, float]:
    """Standard deviations of the parts that have one; a variance that was estimated below 0 counts as 0."""
    found = {"initial weights": getattr(components, "init", None), "batch order": getattr(components, "order", None)}
    return {name: max(part.variance, 0.0) ** 0.5 for name, part in found.items() if part is not None}


def draw_noise(study: Study, data: Noise, *, size: Size | None = None) -> alt.LayerChart:
    """Draw a row for each arm, with a point for each part of its noise, and the share within runs in words."""
    del study
    shown = data.arms[:MOST]
    width, height = size or (WIDTH, ROW * len(shown))
    factor = data.unit.factor
    names = {one.arm: shortened(chart_text(one.arm), 40) for one in shown}
    rows: Rows = [
        {"arm": one.arm, "row": names[one.arm], "part": part, "x": value * factor}
        for one in shown
        for part, value in _values(one).items()
    ]
    title = f"Standard deviation ({data.unit.difference})".removesuffix(" ()")
    ends = (0.0, padded((0.0, max(row["x"] for row in rows)), 0.08)[1])
    x = alt.X("x:Q", title=title, scale=alt.Scale(domain=ends, nice=True), axis=alt.Axis(tickCount=7, labelFlush=False))
    axis = alt.Axis(domain=False, ticks=False, labelLimit=280, labelPadding=10, grid=False)
    y = alt.Y("row:N", sort=list(names.values()), title=None, axis=axis)
    reach: Rows = [
        {
            "arm": one.arm,
            "row": names[one.arm],
            "x": min(_values(one).values()) * factor,
            "end": max(_values(one).values()) * factor,
        }
        for one in shown
    ]
    layers = [over(reach, alt.Chart().mark_rule(style="faint", strokeWidth=1)).encode(x, alt.X2("end:Q"), y)]
    for part, (style, shape) in PARTS.items():
        own = [row for row in rows if row["part"] == part]
        if own:
            mark = alt.Chart().mark_point(style=style, shape=shape, filled=True, opacity=1, size=64)
            layers.append(over(own, mark).encode(x, y))
    shares: Rows = [{"arm": one.arm, "row": names[one.arm], "words": share(one.split)} for one in shown if one.split]
    text = alt.Chart().mark_text(style="text", align="left", fontSize=10.5)
    layers.append(over(shares, text).encode(y=y, x=alt.value(width + 12), text="words:N"))
    return alt.LayerChart(layer=layers, width=width, height=height, config=frame())


def _values(one: ArmSpread) -> dict[str, float]:
    split = {} if one.split is None else {"within a run": one.split.within, "between runs": one.split.between}
    return {**split, **one.parts}


def share(split: Split) -> str:
    """Write which part of the variance is within runs: ``34% within runs (12% to 70%)``."""
    low, high = split.interval
    return f"{percent(round(split.share, 2))} within runs ({percent(round(low, 2))} to {percent(round(high, 2))})"


def words(study: Study, data: Noise) -> Words:
    """Say what is drawn."""
    label = study.metric(data.metric).label
    where = "evaluations within the last epoch" if data.within_epoch else "epochs"
    there = {part for one in data.arms for part in _values(one)}
    marks = ", ".join(f"{shape.replace('-up', '')}: {part}" for part, (_, shape) in PARTS.items() if part in there)
    lines = [f"{study.name}. {marks[:1].upper()}{marks[1:]}."]
    if data.evaluations:
        lines.append(
            f"From the last {data.evaluations} {where} of each run; in words, the share of the variance that is within "
            "runs, with a 95% interval."
        )
    lines += left_out(data.arms)
    first = data.arms[0]
    said = "; ".join(f"{part} {data.unit.amount(value)}" for part, value in _values(first).items())
    alt_text = f"Standard deviations of {label} within runs and between runs of each arm; {first.arm}: {said}."
    return Words(f"Noise in {label}: within a run and between runs", tuple(lines), alt_text)


_ABOUT = "Noise: how much a metric moves within a run at its end, and how much runs of one arm differ."
CHARTS.register("noise")(
    Chart("noise", noise_data, draw_noise, _ABOUT, words=words, options=frozenset({"measure", "arms", "size"}))
)
