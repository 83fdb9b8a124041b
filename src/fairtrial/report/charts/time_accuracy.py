"""Time against accuracy: what each arm had reached after how much training time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.registry import CHARTS
from fairtrial.report.axes import Span, joined, padded
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Drawing, Words
from fairtrial.report.charts.learning_curves import axis_title, ends_of
from fairtrial.report.curve_plots import Frame, legend
from fairtrial.report.curves import CurveData, curve_data, metric_of
from fairtrial.report.style import LINE, WIDTH, Rows, channels, chart_text, frame, over, shortened
from fairtrial.report.words import count, duration
from fairtrial.spec import Study
from fairtrial.trial import TrialResult

#: Pixels of the plot's height; so many arms are lines, and of so many each end has its name.
HEIGHT, LINES, NAMED = 270, 6, 12

#: Units of the axis of time: the longest that is shorter than the longest time is used.
UNITS = {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}


@dataclass(frozen=True)
class TimePoint:
    """An arm after an epoch: means over its seeds."""

    epoch: int
    seconds: float  # of training and evaluation, so far
    mean: float
    values: Mapping[int, tuple[float, float]]  # seconds and value, by seed


@dataclass(frozen=True)
class ArmTimes:
    """What an arm had reached when."""

    arm: str
    points: tuple[TimePoint, ...]


@dataclass(frozen=True)
class TimeAccuracy:
    """A metric against training time, for each arm that has both."""

    curves: CurveData
    arms: tuple[ArmTimes, ...]

    @property
    def longest(self) -> float:
        """The longest time of any run, in seconds."""
        return max(seconds for arm in self.arms for seconds, _ in arm.points[-1].values.values())


def time_data(
    study: Study, results: Sequence[TrialResult], *, measure: str | None = None, arms: Sequence[str] = ()
) -> TimeAccuracy:
    """Add up the seconds of each run's epochs, and take the metric behind the study's measure, or another one.

    Raises:
        ReportError: no time was recorded, or no such metric.
    """
    metric = metric_of(study, results, measure)
    if metric.endswith("seconds"):
        raise ReportError(f"`{metric}` is a time itself; name another measure to see it against time")
    curves = curve_data(study, results, metric, arms=arms)
    times = {(one.arm, one.seed): _times(one) for one in results}
    found = tuple(_arm(curve.arm, curves, times) for curve in curves.curves)
    found = tuple(arm for arm in found if arm.points)
    if not found:
        raise ReportError("no finished trial has recorded `train_seconds`")
    return TimeAccuracy(curves, found)


def _times(trial: TrialResult) -> dict[int, float]:
    """Seconds from the beginning to the end of each epoch, up to the first whose time is not known."""
    spent: dict[int, float] = {}
    total = 0.0
    for record in sorted(trial.epochs, key=lambda record: record.epoch):
        seconds = record.metrics.get("train_seconds", math.nan) + record.metrics.get("eval_seconds", 0.0)
        total += seconds
        if not math.isfinite(total) or record.epoch != len(spent) + 1:
            break
        spent[record.epoch] = total
    return spent


def _arm(arm: str, curves: CurveData, times: Mapping[tuple[str, int], Mapping[int, float]]) -> ArmTimes:
    curve = next(curve for curve in curves.curves if curve.arm == arm)
    points = []
    for point in curve.points:
        if all(point.epoch in times[arm, seed] for seed in point.values):
            values = {seed: (times[arm, seed][point.epoch], value) for seed, value in point.values.items()}
            mean = math.fsum(seconds for seconds, _ in values.values()) / len(values)
            points.append(TimePoint(point.epoch, mean, point.mean, values))
    return ArmTimes(arm, tuple(points))


def frontier(data: TimeAccuracy, *, higher: bool) -> set[str]:
    """The arms that no other one beats in both: it ends sooner, and better."""
    ends = {arm.arm: (arm.points[-1].seconds, arm.points[-1].mean * (1 if higher else -1)) for arm in data.arms}
    return {
        arm
        for arm, (seconds, value) in ends.items()
        if not any(s <= seconds and v >= value and (s, v) != (seconds, value) for s, v in ends.values())
    }


def draw_time(study: Study, data: TimeAccuracy, *, size: Size | None = None, log: bool = False) -> Drawing:
    """Draw a line for each arm through its epochs, with a ring for each run's end; of many arms the ends alone."""
    width, height = size or (WIDTH, HEIGHT)
    unit = study.metric(data.curves.metric).unit
    name, scale = time_unit(data.longest)
    lines = len(data.arms) <= LINES and data.curves.epochs > 1
    rows = [row for arm in data.arms for row in _rows(arm, unit.factor, scale)]
    shown = rows if lines else [row for row in rows if row["last"]]
    ends: Rows = [
        {"arm": arm.arm, "seed": seed, "time": seconds / scale, "y": value * unit.factor}
        for arm in data.arms
        for seed, (seconds, value) in arm.points[-1].values.items()
    ]
    times = joined([(row["time"], row["time"]) for row in [*shown, *ends]])
    kind: Literal["log", "linear"] = "log" if log else "linear"
    span: Span = (
        (times[0] / 1.08, times[1] * 1.08)
        if log
        else padded(times, 0.05, (0.0, math.inf) if lines else (-math.inf, math.inf))
    )
    x = alt.X("time:Q", title=f"Time ({name})", scale=alt.Scale(domain=span, nice=False, zero=False, type=kind))
    if lines:
        domain = ends_of(data.curves, unit, log=False)
    else:
        domain = padded(joined([(row["y"], row["y"]) for row in [*ends, *({"y": row["mean"]} for row in shown)]]), 0.06)
    title = axis_title(data.curves.metric, unit)
    y_scale = alt.Scale(domain=domain, nice=True, zero=False)
    mean, value = (alt.Y(f"{field}:Q", title=title, scale=y_scale) for field in ("mean", "y"))
    arms = [arm.name for arm in study.arms]
    color, dash, shape = channels(arms, study.reference)
    ring = alt.Chart().mark_point(filled=False, size=22, strokeWidth=1, opacity=0.8, clip=True)
    dot = alt.Chart().mark_point(filled=True, size=46, opacity=1, clip=True)
    layers = [over(ends, ring).encode(x, value, color)]
    if lines:
        layers.append(over(rows, alt.Chart().mark_line(strokeWidth=1.9, clip=True)).encode(x, mean, color, dash))
    layers.append(over([row for row in rows if row["last"]], dot).encode(x, mean, color, shape))
    if lines:
        axes = Frame(title, unit, 1, data.curves.epochs, domain, arms, study.reference)
        plot = alt.LayerChart(layer=layers, width=width, height=height)
        names = {arm.arm: arm.arm for arm in data.arms}
        return alt.HConcatChart(hconcat=[plot, legend(names, axes)], spacing=18, config=frame())
    layers += _names(study, data, rows, x, mean)
    return alt.LayerChart(layer=layers, width=width, height=height, config=frame())


def _names(study: Study, data: TimeAccuracy, rows: Rows, x: alt.X, mean: alt.Y) -> Iterator[alt.Chart]:
    """Name the ends: all of a few arms, otherwise the reference and the arms that none beats."""
    higher = study.metric(data.curves.metric).direction != "lower"
    known = {study.reference, *frontier(data, higher=higher)}
    named = [row for row in rows if row["last"] and (len(data.arms) <= NAMED or row["arm"] in known)]
    labels: Rows = [row | {"label": shortened(chart_text(row["arm"]), 24)} for row in named]
    text = alt.Chart().mark_text(style="text", align="left", dx=7, dy=-5, fontSize=10)
    yield over(labels, text).encode(x, mean, text="label:N")


def _rows(arm: ArmTimes, factor: float, scale: float) -> Rows:
    last = len(arm.points) - 1
    return [
        {
            "arm": arm.arm,
            "epoch": point.epoch,
            "time": point.seconds / scale,
            "mean": point.mean * factor,
            "last": at == last,
        }
        for at, point in enumerate(arm.points)
    ]


def time_unit(longest: float) -> tuple[str, float]:
    """The unit of an axis of times, and its seconds.

    Example:
        >>> time_unit(50.0), time_unit(900.0), time_unit(9000.0)
        (('seconds', 1.0), ('minutes', 60.0), ('hours', 3600.0))
    """
    return next((name, seconds) for name, seconds in UNITS.items() if longest >= 2 * seconds or seconds == 1.0)


def words(study: Study, data: TimeAccuracy) -> Words:
    """Say what is drawn."""
    metric = study.metric(data.curves.metric)
    label = f"{metric.label[:1].upper()}{metric.label[1:]}"
    what = "Line: mean over seeds, epoch by epoch; open points: where each run ended."
    if len(data.arms) > LINES or data.curves.epochs == 1:
        what = "Each arm at its end: mean over seeds; open points: single runs."
        if len(data.arms) > NAMED:
            what += f" Named: {study.reference}, and arms that no other ends before and above."
    lines = [f"{study.name}. {what}", "Time of training and evaluation, as it was measured where the runs were made."]
    ends = [
        f"{arm.arm} {metric.unit.number(arm.points[-1].mean)}{metric.unit.name if metric.unit.name == '%' else ''} "
        f"after {duration(arm.points[-1].seconds)}"
        for arm in data.arms
    ]
    said = "; ".join(ends) if len(ends) <= NAMED else count(len(ends), "arm")
    return Words(f"{label} against time", tuple(lines), f"{label} against training time; at the end: {said}.", LINE)


_ABOUT = "Time against accuracy: what each arm had reached after how much training time."
CHARTS.register("time_accuracy")(
    Chart(
        "time_accuracy",
        time_data,
        draw_time,
        _ABOUT,
        words=words,
        options=frozenset({"measure", "arms", "size", "log"}),
    )
)
