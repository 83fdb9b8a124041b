"""Learning curves: a metric per epoch, for each arm a line, a band over seeds and points.

Up to six arms share a plot, with a second one beside it of the last epochs where they differ too little to be seen in
the first. Up to twelve have a plot each, with all others in gray behind; more are drawn in groups by where they end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import altair as alt

from fairtrial.registry import CHARTS
from fairtrial.report.axes import Span, joined, padded, robust
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Drawing, Words
from fairtrial.report.curve_plots import Frame, behind, curve_layers, later_start, legend, spans, y_domain
from fairtrial.report.curves import ArmCurve, CurveData, Point, Value, curve_data
from fairtrial.report.dots import dots
from fairtrial.report.panels import grid, panel
from fairtrial.report.style import LINE, WIDTH, chart_text, frame
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.spec.metrics import Metric, Unit

__all__ = ["ArmCurve", "CurveData", "Point", "curve_data", "learning_curves"]

#: Pixels of the plot's height; of each of two plots' width; of small plots' width and height; of groups' plots.
HEIGHT, HALF, SMALL, GROUP = 270, 320, (200, 140), (300, 200)

#: So many arms share a plot; so many have a small one each; so many groups of six are drawn of more.
TOGETHER, EACH, GROUPS = 6, 12, 6

#: How many times as large differences must be in the plot of the last epochs, to have one.
ZOOM = 2.5

_OPTIONS = frozenset({"arms", "size", "log"})


def learning_curves(
    metric: str, *, name: str, axis: str = "", title: str = "", value: Value | None = None, about: str = ""
) -> Chart[CurveData]:
    """Make the chart of a metric per epoch: a line for each arm, with a band over seeds.

    A line is the mean over an arm's finished trials, the band around it spans the lowest to the highest seed: all of
    the data, not a confidence interval. It ends where not all of them have a value. A trial that diverged, did not
    learn or fell behind is a faint line that ends in a cross. Failed and unfinished trials are left out, and the figure
    says so.

    Args:
        metric: the metric of the epochs.
        name: of the chart.
        axis: title of the vertical axis; by default the metric's name in words, and its unit.
        title: of the chart.
        value: computes what is drawn from an epoch's metrics; by default it is the metric.
        about: what the table of charts says.
    """
    label = Metric.named(metric).label
    label = label[:1].upper() + label[1:]
    title = title or f"{label} per epoch"

    def data(study: Study, results: Sequence[object], arms: Sequence[str] = ()) -> CurveData:
        return curve_data(study, results, metric, arms=arms, value=value)  # type: ignore[arg-type]

    return Chart(
        name,
        data=data,
        draw=partial(draw_curves, axis=axis or label),
        about=about or f"{title}: a line for each arm, with a band over seeds.",
        words=partial(curve_words, title=title),
        options=_OPTIONS,
    )


def axis_title(metric: str, unit: Unit, label: str = "") -> str:
    """Name an axis: ``Test accuracy (%)``."""
    words = label or Metric.named(metric).label
    return chart_text(f"{words[:1].upper()}{words[1:]} ({unit.name})".removesuffix(" ()"))


def draw_curves(study: Study, data: CurveData, *, axis: str, size: Size | None = None, log: bool = False) -> Drawing:
    """Draw the curves of all arms; every layer's rows are in the chart itself."""
    unit = data.unit_in(study)
    title = axis_title(data.metric, unit, axis)
    if data.epochs == 1:
        return dots(study, data, title, unit.factor, size)
    number = len(data.curves)
    ends = ends_of(data, unit, log=log)
    arms = [arm.name for arm in study.arms]
    axes = Frame(title, unit, 1, data.epochs, ends, arms, study.reference, log, data.most_seeds)
    if number <= TOGETHER:
        return _together(study, data, axes, size)
    return _small(study, data, axes, size) if number <= EACH else _groups(study, data, axes, size)


def ends_of(data: CurveData, unit: Unit, *, log: bool, alone: bool | None = None) -> Span:
    """The ends of the vertical axis; small plots leave out more of the first epochs, for there is none of the last.

    ``alone`` says whether there is one plot; by default that depends on the number of arms.
    """
    if len(data.curves) <= TOGETHER if alone is None else alone:
        return y_domain(data, unit, log=log)
    return y_domain(data, unit, log=log, first=later_start(data, unit), early=5.0)


def _together(study: Study, data: CurveData, axes: Frame, size: Size | None) -> alt.HConcatChart:
    """Draw all arms in one plot, and the last epochs in another if that shows what the first does not."""
    zoomed = None if axes.log else _zoom(data, axes)
    width, height = size or (HALF if zoomed else WIDTH, HEIGHT)
    plots = [alt.LayerChart(layer=curve_layers(data.curves, axes), width=width, height=height)]
    if zoomed:
        layers = curve_layers(data.curves, zoomed)
        head = alt.TitleParams(f"Epochs {zoomed.first} to {zoomed.last}", fontSize=11, offset=4)
        plots.append(alt.LayerChart(layer=layers, width=width, height=height, title=head))
    labels = {curve.arm: _label(curve, data, study.seeds) for curve in data.curves}
    alone = [curve.arm for curve in data.curves if curve.seeds == 1 < data.most_seeds]
    return alt.HConcatChart(hconcat=[*plots, legend(labels, axes, alone)], spacing=18, config=frame())


def _zoom(data: CurveData, axes: Frame) -> Frame | None:
    """The axes of the last third of the epochs, fitted to arms that end close together; None if they show no more."""
    first = axes.last - max(2, math.ceil(axes.last / 3) - 1)
    if first <= 1:
        return None
    own = spans(data.curves, axes.unit.factor, first)
    if not own:
        return None
    span, _ = robust(own, squashed=2.5)
    low, high = (limit * axes.unit.factor for limit in axes.unit.limits)
    domain = padded(span, 0.06, (max(low, 0.0) if span[0] >= 0.0 else low, high))
    if (axes.domain[1] - axes.domain[0]) < ZOOM * (domain[1] - domain[0]):
        return None
    return Frame("", axes.unit, first, axes.last, domain, axes.arms, axes.reference, most_seeds=axes.most_seeds)


def _small(study: Study, data: CurveData, axes: Frame, size: Size | None) -> alt.ConcatChart:
    """Draw a plot for each arm, with the others behind it."""
    width, height = size or SMALL
    own = next((curve for curve in data.curves if curve.arm == study.reference), None)
    panels = []
    for at, curve in enumerate(data.curves):
        others = [other for other in data.curves if other.arm not in {curve.arm, study.reference}]
        axes_here = replace(axes, ticks=6, title=axes.title if at % 4 == 0 else "")
        layers = [behind(others, axes_here)]
        if own is not None and curve is not own:
            layers.append(behind([own], axes_here, "ink", 1.4))
        layers += curve_layers([curve], axes_here, color="ink" if curve is own else "equivalent")
        more = ", ".join(_said(curve, data, study.seeds))
        panels.append(panel(layers, curve.arm, (width, height), more))
    return grid(panels)


def _groups(study: Study, data: CurveData, axes: Frame, size: Size | None) -> alt.ConcatChart:
    """Draw groups of six arms that end near each other, best first, each beside the reference."""
    width, height = size or GROUP
    groups, _ = grouped(study, data)
    own = [curve for curve in data.curves if curve.arm == study.reference]
    total, panels = len(data.curves), []
    for start, group in groups:
        arms = [study.reference, *(curve.arm for curve in group if curve.arm != study.reference)]
        here = Frame(axes.title, axes.unit, 1, axes.last, axes.domain, arms, study.reference, axes.log, axes.most_seeds)
        shown = [*own, *(curve for curve in group if curve.arm != study.reference)]
        labels = {curve.arm: _label(curve, data, study.seeds) for curve in shown}
        alone = [curve.arm for curve in shown if curve.seeds == 1 < data.most_seeds]
        head = alt.TitleParams(f"{start} to {start + len(group) - 1} of {total}", fontSize=11, offset=4)
        plot = alt.LayerChart(layer=curve_layers(shown, here), width=width, height=height, title=head)
        panels.append(alt.HConcatChart(hconcat=[plot, legend(labels, here, alone)], spacing=10))
    return alt.ConcatChart(concat=panels, columns=2, spacing=20, config=frame())


def grouped(study: Study, data: CurveData) -> tuple[list[tuple[int, list[ArmCurve]]], int]:
    """Sort arms by their last mean, best first, into groups of six.

    Returns:
        Each group that is drawn with the number of its first arm, from 1; and how many arms are not drawn: those in the
        middle, where there are too many.
    """
    higher = study.metric(data.metric).direction != "lower"
    ranked = sorted(
        data.curves,
        key=lambda curve: -math.inf if not curve.points else curve.points[-1].mean * (1 if higher else -1),
        reverse=True,
    )
    groups = [(at + 1, ranked[at : at + TOGETHER]) for at in range(0, len(ranked), TOGETHER)]
    if len(groups) <= GROUPS:
        return groups, 0
    half = GROUPS // 2
    return [*groups[:half], *groups[-half:]], sum(len(group) for _, group in groups[half:-half])


def _label(curve: ArmCurve, data: CurveData, seeds: int) -> str:
    """Name an arm in the legend, with what is to be said of it."""
    said = _said(curve, data, seeds)
    return f"{curve.arm} ({', '.join(said)})" if said else curve.arm


def _said(curve: ArmCurve, data: CurveData, seeds: int) -> list[str]:
    """Say that an arm has one seed where others have more, what happened to lost trials, or that there are no data."""
    said = ["1 seed"] if curve.seeds == 1 < data.most_seeds else []
    said += [f"{number} of {seeds} {how}" for how, number in curve.fates.items()]
    return said or ([] if curve.seeds else ["no data"])


def curve_words(study: Study, data: CurveData, *, title: str) -> Words:
    """Say what is drawn."""
    lines = [f"{study.name}. {_caption(data)}", *_layout(study, data), *_remarks(study, data)]
    wide = {True: LINE + 30, False: LINE}[len(data.curves) > TOGETHER]
    return Words(title, tuple(lines), _in_words(study, data, title), wide)


def _in_words(study: Study, data: CurveData, title: str) -> str:
    """Describe the picture in a sentence: where each arm ends, or between which values all do."""
    unit = data.unit_in(study)
    ends = {curve.arm: curve.points[-1].mean for curve in data.curves if curve.points}
    name = unit.name if unit.name == "%" else f" {unit.name}".rstrip()
    if not ends:
        return f"{title} of {count(len(data.curves), 'arm')}; no trial finished."
    if len(ends) <= EACH:
        text = "; ".join(f"{arm} {unit.number(value)}{name}" for arm, value in ends.items())
    else:
        low, high = (unit.number(pick(ends.values())) for pick in (min, max))
        text = f"between {low} and {high}{name}"
    return f"{title} of {count(len(data.curves), 'arm')} over {count(data.epochs, 'epoch')}; means at the end: {text}."


def _caption(data: CurveData) -> str:
    """Say what line and band are."""
    counts = sorted({curve.seeds for curve in data.curves if curve.points})
    if not counts:
        return "No trial finished." if not any(curve.seeds for curve in data.curves) else "Thin lines: single seeds."
    if counts == [1]:
        return "One run an arm: the spread between seeds is not known."
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    mean, band = ("Line", "band") if data.epochs > 1 else ("Point", "bar")
    return f"{mean}: mean of {seeds} seeds; {band}: lowest to highest seed."


def _layout(study: Study, data: CurveData) -> Iterator[str]:
    """Say how many arms are drawn, where not all are in one plot."""
    if data.epochs == 1 or len(data.curves) <= TOGETHER:
        return
    if len(data.curves) <= EACH:
        yield f"Each plot: one arm in blue, {study.reference} in black or white, all others in gray."
    else:
        _, hidden = grouped(study, data)
        more = f"; {hidden} in the middle are not drawn" if hidden else ""
        yield (
            f"{len(data.curves)} arms in groups of {TOGETHER} by their last mean, each with {study.reference}{more}. "
            "Choose arms with --arm."
        )


def _remarks(study: Study, data: CurveData) -> Iterator[str]:
    unit = data.unit_in(study)
    domain = ends_of(data, unit, log=False)
    every = spans(data.curves, unit.factor)
    beyond = every if any(low < domain[0] or high > domain[1] for low, high in every) else []
    if data.epochs > 1 and beyond:
        yield leaving(beyond)
    if any(curve.seeds == 1 < data.most_seeds for curve in data.curves):
        yield "Dashed with open points: the mean of one seed, which is no mean."
    if fates := " or ".join(dict.fromkeys(how for curve in data.curves for how in curve.fates)):
        values = [
            value * unit.factor for curve in data.curves for each in curve.lost.values() for value in each.values()
        ]
        edge = (
            " A × on the frame stands for a value beyond it."
            if any(not domain[0] <= v <= domain[1] for v in values)
            else ""
        )
        yield f"Thin line to ×: a trial that {fates}; it enters no mean.{edge}"
    if any(curve.tails for curve in data.curves):
        yield "A line ends where not all of its seeds have a value; beyond, thin lines are single seeds."
    if omitted := sum(curve.omitted for curve in data.curves):
        yield f"Left out: {count(omitted, 'failed or unfinished trial')}."


def leaving(every: Sequence[Span]) -> str:
    """Say that not all values are in the plot."""
    low, high = joined(every)
    return f"Lines leave the plot where they would squash the rest; all values: {low:.3g} to {high:.3g}."


#: Figure 1 and Figure 2 of the paper.
CHARTS.register("test_accuracy")(learning_curves("test_acc", name="test_accuracy"))
CHARTS.register("training_loss")(learning_curves("train_loss", name="training_loss", axis="Training loss (nats)"))
