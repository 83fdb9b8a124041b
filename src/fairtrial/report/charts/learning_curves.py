"""Learning curves: a metric per epoch, for each arm a line, a band over seeds and points; a legend shows all three."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.registry import CHARTS
from fairtrial.report.charts import Chart
from fairtrial.report.style import CROSS, WIDTH, LineStyle, Rows, channels, chart_text, frame, header, line_styles, over
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.spec.metrics import PERCENT, RECORDED_PERCENT, Metric
from fairtrial.stats.joined import join
from fairtrial.stats.paired import PairedData, fate
from fairtrial.trial import Outcome, TrialResult

#: Pixels of the plot's height, and between the lines of the legend.
HEIGHT, LEADING = 270, 20

#: About this many points mark a line (more would hide its dashes); more bands than this are drawn fainter.
MARKED, CROWD = 12, 6

_POINT = alt.Chart().mark_point(filled=True, opacity=1, size=36)

#: The ends of an axis.
Domain: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Point:
    """One arm at one epoch: mean, lowest and highest value over the finished trials that have a finite one."""

    epoch: int  # from 1
    mean: float
    low: float
    high: float
    values: Mapping[int, float]  # by seed


@dataclass(frozen=True)
class ArmCurve:
    """One arm's learning curve."""

    arm: str
    points: tuple[Point, ...]  # one for each epoch at which some finished trial has a value, ascending
    #: Finite values, by seed and epoch, of trials that are in no mean: they diverged, did not learn or fell behind.
    lost: Mapping[int, Mapping[int, float]]
    fates: Mapping[str, int]  # how many of the lost ones did what, in words
    omitted: int  # failed, interrupted or running trials, which are not shown


@dataclass(frozen=True)
class CurveData:
    """A metric over the epochs of a study, in its recorded unit: a curve for each arm, also for those without data."""

    metric: str
    curves: tuple[ArmCurve, ...]

    @property
    def epochs(self) -> int:
        """The last epoch that has a value; 0 if none has."""
        means = {point.epoch for curve in self.curves for point in curve.points}
        return max(means.union(*(values for curve in self.curves for values in curve.lost.values())), default=0)


def curve_data(study: Study, results: Sequence[TrialResult], metric: str) -> CurveData:
    """Collect a metric's curves.

    Raises:
        ReportError: there is nothing to draw.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    trials = list(join(study, results).values())
    evidence = study.evidence
    paired = PairedData.of(study, results, evidence.metric, evidence.target).sifted(study.seeds)
    data = CurveData(metric, tuple(_curve(arm.name, trials, metric, paired) for arm in study.arms))
    if not data.epochs:
        raise ReportError(f"no finished or diverged trial has recorded `{metric}`")
    return data


def _curve(arm: str, trials: Sequence[TrialResult], metric: str, paired: PairedData) -> ArmCurve:
    own = [trial for trial in trials if trial.arm == arm]
    ended = {trial.seed: _values(trial, metric) for trial in own if trial.outcome is Outcome.FINISHED}
    finished = {seed: values for seed, values in ended.items() if (arm, seed) not in paired.not_learned}
    lost = {trial.seed: _values(trial, metric) for trial in own if trial.outcome is Outcome.DIVERGED}
    lost |= {seed: values for seed, values in ended.items() if seed not in finished}
    points = []
    for epoch in sorted({epoch for values in finished.values() for epoch in values}):
        values = {seed: each[epoch] for seed, each in finished.items() if epoch in each}
        mean = math.fsum(values.values()) / len(values)
        points.append(Point(epoch, mean, min(values.values()), max(values.values()), values))
    fates = Counter(fate(paired.lost[arm, seed]) for seed in lost)
    return ArmCurve(arm, tuple(points), lost, fates, omitted=len(own) - len(finished) - len(lost))


def _values(trial: TrialResult, metric: str) -> dict[int, float]:
    """A trial's finite values by epoch, ascending."""
    values = {record.epoch: record.metrics.get(metric, math.nan) for record in trial.epochs}
    return {epoch: values[epoch] for epoch in sorted(values) if math.isfinite(values[epoch])}


def learning_curves(metric: str, *, name: str, axis: str = "") -> Chart[CurveData]:
    """Make the chart of a metric per epoch: a line for each arm, with a band over seeds.

    A line is the mean over an arm's finished trials, the band around it spans the lowest to the highest seed: all of
    the data, not a confidence interval. A trial that diverged, did not learn or fell behind is a faint line that
    ends in a cross. Failed and unfinished
    trials are left out, and the figure says so. The title of the vertical axis is by default the metric's name in
    words, and its unit.
    """
    label = Metric.named(metric).label
    label = label[:1].upper() + label[1:]
    title = f"{label} per epoch"
    return Chart(
        name,
        data=lambda study, results: curve_data(study, results, metric),
        draw=lambda study, data: _draw(study, data, title, axis or label),
        about=f"{title}: a line for each arm, with a band over seeds.",
    )


def _draw(study: Study, data: CurveData, title: str, axis: str) -> alt.HConcatChart:
    """Draw the curves of all arms; every layer's rows are in the chart itself."""
    unit = study.metric(data.metric).unit
    axis = chart_text(f"{axis} ({unit.name})".removesuffix(" ()"))
    labels = {curve.arm: _label(curve, study.seeds) for curve in data.curves}
    styles = line_styles(list(labels), study.reference)
    step = 0.6 / len(data.curves) if data.epochs == 1 else 0.0  # a single epoch would put all arms on one spot
    shifts = [(at - (len(data.curves) - 1) / 2) * step for at in range(len(data.curves))]
    lines = [row for at, curve in enumerate(data.curves) for row in _line(curve, unit.factor, shifts[at], first=at)]
    broken = [row for at, curve in enumerate(data.curves) for row in _broken(curve, unit.factor, shifts[at])]
    # An accuracy can't run away; where values can, diverged trials don't stretch the axis.
    domain = _domain(lines, broken, bounded=unit is PERCENT or unit is RECORDED_PERCENT)
    beyond = any(row["last"] and not _within(row["y"], domain) for row in broken)
    head = header(title, f"{study.label}. {_caption(data)}", *_remarks(data, beyond))
    plot = alt.LayerChart(layer=_plot(data.epochs, axis, styles, lines, broken, domain), width=WIDTH, height=HEIGHT)
    legend = alt.LayerChart(layer=_legend(labels, styles, data.epochs), width=44, height=LEADING * len(labels))
    return alt.HConcatChart(hconcat=[plot, legend], spacing=18, title=head, config=frame())


def _plot(  # noqa: PLR0917
    epochs: int, axis: str, styles: Mapping[str, LineStyle], lines: Rows, broken: Rows, domain: Domain
) -> list[alt.Chart]:
    banded = {row["arm"] for row in lines if row["n"] > 1}
    bands = [row for row in lines if row["arm"] in banded]
    inside = [row for row in broken if _within(row["y"], domain)]
    padding = 0.03 * (epochs - 1) or 0.5  # for the points at either end
    ends = alt.Scale(domain=(1 - padding, epochs + padding), nice=False, zero=False)
    x = alt.X("x:Q", title="Epoch", scale=ends, axis=_ticks(epochs))
    scale = alt.Scale(domain=domain, nice=True, zero=False, clamp=True)
    mean, low, value = (alt.Y(f"{field}:Q", title=axis, scale=scale) for field in ("mean", "low", "y"))
    color, dash, shape = channels(styles)
    # A band has no area at a single epoch, so a bar is drawn there; many overlapping bands must be fainter.
    area = alt.Chart().mark_area(opacity=0.15 if len(banded) <= CROWD else 0.08)
    band = alt.Chart().mark_rule(opacity=0.5) if epochs == 1 else area
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
    """Make a line's rows; where points are thinned out, each arm's begin at another epoch, off the others'."""
    every, last = math.ceil(len(curve.points) / MARKED), len(curve.points) - 1
    for index, point in enumerate(curve.points):
        values = {"mean": point.mean * factor, "low": point.low * factor, "high": point.high * factor}
        row = {"arm": curve.arm, "epoch": point.epoch, "x": point.epoch + shift, "n": len(point.values), **values}
        yield row | {"marked": index % every == first % every or index == last}


def _broken(curve: ArmCurve, factor: float, shift: float) -> Iterator[dict[str, Any]]:
    for seed, values in curve.lost.items():
        for epoch, value in values.items():
            row = {"arm": curve.arm, "seed": seed, "epoch": epoch, "x": epoch + shift, "y": value * factor}
            yield row | {"last": epoch == max(values)}


def _domain(lines: Rows, broken: Rows, *, bounded: bool) -> Domain:
    """Span all finished trials, and the diverged ones unless they would dwarf those."""
    own = [row[key] for row in lines for key in ("low", "high")]
    other = [row["y"] for row in broken]
    if own and not bounded:
        span = max(own) - min(own)
        other = [value for value in other if min(own) - span <= value <= max(own) + span]
    low, high = min(own + other), max(own + other)
    padding = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
    return low - padding, high + padding


def _within(value: float, domain: Domain) -> bool:
    return domain[0] <= value <= domain[1]


def _ticks(last: int) -> alt.Axis:
    """Mark whole epochs, at most about twelve, in steps of 1, 2 or 5 times a power of ten."""
    power = 10 ** max(0, int(math.log10(max(last / 12, 1))))
    step = next(power * factor for factor in (1, 2, 5, 10) if last / (power * factor) <= 12)
    return alt.Axis(values=[epoch for epoch in range(1, last + 1) if epoch % step == 0], format="d", grid=False)


def _label(curve: ArmCurve, seeds: int) -> str:
    """Name an arm in the legend, with its lost trials."""
    if lost := [f"{number} of {seeds} {how}" for how, number in curve.fates.items()]:
        return f"{curve.arm} ({', '.join(lost)})"
    return curve.arm if curve.points else f"{curve.arm} (no data)"


def _caption(data: CurveData) -> str:
    """Say what line and band are."""
    counts = sorted({len(point.values) for curve in data.curves for point in curve.points})
    if not counts:
        return "No trial finished."
    if counts == [1]:
        return "One run an arm: the spread between seeds is not known."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    mean, band = ("Line", "band") if data.epochs > 1 else ("Point", "bar")
    return f"{mean}: mean of {seeds} seeds; {band}: lowest to highest seed."


def _remarks(data: CurveData, beyond: bool) -> Iterator[str]:
    if fates := " or ".join(dict.fromkeys(how for curve in data.curves for how in curve.fates)):
        edge = " A × on the frame stands for a value beyond it." if beyond else ""
        yield f"Thin line to ×: a trial that {fates}; it enters no mean.{edge}"
    if any(len({len(point.values) for point in curve.points}) > 1 for curve in data.curves):
        yield "Some trials have fewer epochs: where they end, a line is the mean of the others."
    if omitted := sum(curve.omitted for curve in data.curves):
        yield f"Left out: {count(omitted, 'failed or unfinished trial')}."


#: Figure 1 and Figure 2 of the paper.
CHARTS.register("test_accuracy")(learning_curves("test_acc", name="test_accuracy"))
CHARTS.register("training_loss")(learning_curves("train_loss", name="training_loss", axis="Training loss (nats)"))
