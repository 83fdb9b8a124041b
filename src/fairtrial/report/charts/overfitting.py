"""Overfitting: training against test data, a small plot for each arm."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import altair as alt

from fairtrial.registry import CHARTS
from fairtrial.report.axes import joined
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.charts.learning_curves import axis_title, ends_of, leaving
from fairtrial.report.curve_plots import Frame, curve_layers, spans
from fairtrial.report.curves import ArmCurve, CurveData, curve_data, train_and_test
from fairtrial.report.panels import chosen, columns, grid, left_out, line_length, panel, size_of
from fairtrial.report.style import Rows, over
from fairtrial.spec import Study
from fairtrial.spec.metrics import Unit
from fairtrial.trial import TrialResult

#: The styles of what a model was trained on and of what it was not.
TRAINING, TEST = "worse", "equivalent"


@dataclass(frozen=True)
class TrainTest:
    """Curves of the same metric on training and on test data, of the same arms."""

    train: CurveData
    test: CurveData

    @property
    def arms(self) -> tuple[tuple[ArmCurve, ArmCurve], ...]:
        """Both curves of each arm."""
        return tuple(zip(self.train.curves, self.test.curves, strict=True))


def train_test_data(study: Study, results: Sequence[TrialResult], *, arms: Sequence[str] = ()) -> TrainTest:
    """Collect both curves of each arm.

    Raises:
        ReportError: no metric was recorded of both.
    """
    train, test = train_and_test(results)
    return TrainTest(*(curve_data(study, results, name, arms=arms) for name in (train, test)))


def draw_train_test(study: Study, data: TrainTest, *, size: Size | None = None, log: bool = False) -> alt.ConcatChart:
    """Draw a plot for each arm, with the same axes: training dashed, test solid, with the range over seeds."""
    unit = study.metric(data.test.metric).unit
    both = [(study.metric(one.metric).unit, one) for one in (data.train, data.test)]
    shown = drawn(study, data)
    ends = joined([ends_of(each, own, log=log, alone=False) for own, each in both])
    title = axis_title(data.test.metric.partition("_")[2] or data.test.metric, unit)
    epochs = max(data.train.epochs, data.test.epochs)
    axes = Frame(title, unit, 1, epochs, ends, [arm.name for arm in study.arms], study.reference, log, ticks=6)
    each, side = size_of(len(shown), size), columns(len(shown))
    panels = []
    for at, (train, test) in enumerate(shown):
        here = axes if at % side == 0 else replace(axes, title="")
        layers = curve_layers([train], here, color=TRAINING, dash=(5, 3)) + curve_layers([test], here, color=TEST)
        panels.append(panel([*layers, *_labels(train, test, here)], test.arm, each))
    return grid(panels)


def _labels(train: ArmCurve, test: ArmCurve, axes: Frame) -> list[alt.Chart]:
    """Write beside the ends of the lines what they are."""
    found = []
    ends = [
        (curve, words, style)
        for curve, words, style in ((train, "training", TRAINING), (test, "test", TEST))
        if curve.points
    ]
    ends.sort(key=lambda end: -end[0].points[-1].mean)
    for at, (curve, words, style) in enumerate(ends):
        last = curve.points[-1]
        rows: Rows = [{"arm": curve.arm, "epoch": last.epoch, "mean": last.mean * axes.unit.factor, "label": words}]
        text = alt.Chart().mark_text(style=style, align="right", dy=14 if at else -10, fontSize=10, fontWeight="bold")
        found.append(over(rows, text).encode(axes.x, axes.y("mean"), text="label:N"))
    return found


def drawn(study: Study, data: TrainTest) -> list[tuple[ArmCurve, ArmCurve]]:
    """The arms that have a plot."""
    return chosen(data.arms, next((pair for pair in data.arms if pair[0].arm == study.reference), None))


def words(study: Study, data: TrainTest) -> Words:
    """Say what is drawn."""
    unit = study.metric(data.test.metric).unit
    kind = study.metric(data.test.metric).label.partition(" ")[2] or data.test.metric
    lines = [f"{study.name}. Lines: mean over seeds; bands: lowest to highest seed."]
    for one in (data.test, data.train):
        own = study.metric(one.metric).unit
        every, ends = spans(one.curves, own.factor), ends_of(one, own, log=False, alone=False)
        if data.test.epochs > 1 and any(low < ends[0] or high > ends[1] for low, high in every):
            lines.append(leaving([*every, *spans(data.train.curves, own.factor)]))
            break
    lines += left_out(data.arms)
    last = [_ends(train, test, unit) for train, test in data.arms if train.points and test.points]
    said = "; ".join(last) if len(last) <= 12 else f"{len(last)} arms"
    alt_text = f"Training against test {kind} per epoch; at the end, training and test: {said}."
    return Words(f"Training against test: {kind}", tuple(lines), alt_text, line_length(len(data.arms)))


def _ends(train: ArmCurve, test: ArmCurve, unit: Unit) -> str:
    name = unit.name if unit.name == "%" else ""
    return f"{train.arm} {unit.number(train.points[-1].mean)} and {unit.number(test.points[-1].mean)}{name}"


_ABOUT = "Training against test data: for each arm a small plot with both curves."
CHARTS.register("overfitting")(
    Chart(
        "overfitting",
        train_test_data,
        draw_train_test,
        _ABOUT,
        words=words,
        options=frozenset({"arms", "size", "log"}),
    )
)
