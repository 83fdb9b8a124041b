"""Generalization gap: how much better each arm is on its training data than on test data, epoch by epoch."""

from collections.abc import Sequence
from dataclasses import replace

from fairtrial.registry import CHARTS
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Drawing, Words
from fairtrial.report.charts.learning_curves import curve_words, draw_curves
from fairtrial.report.curves import CurveData, curve_data, train_and_test
from fairtrial.spec import Study
from fairtrial.spec.metrics import Metric, Unit
from fairtrial.trial import TrialResult

_OPTIONS = frozenset({"arms", "size"})


def gap_data(study: Study, results: Sequence[TrialResult], *, arms: Sequence[str] = ()) -> CurveData:
    """Subtract test from training accuracy; of a metric that is better lower, training from test.

    Raises:
        ReportError: no metric was recorded of both training and test data.
    """
    train, test = train_and_test(results)
    metric = study.metric(test)
    sign = -1.0 if metric.direction == "lower" else 1.0

    def gap(metrics: dict[str, float]) -> float | None:
        both = metrics.get(train), metrics.get(test)
        return None if both[0] is None or both[1] is None else sign * (both[0] - both[1])

    data = curve_data(study, results, test, arms=arms, value=gap)  # type: ignore[arg-type]
    unit = metric.unit
    return replace(data, unit=Unit(unit.difference, unit.difference, unit.factor, unit.decimals), label=_label(metric))


def _label(metric: Metric) -> str:
    kind = metric.label.partition(" ")[2]
    words = metric.label.partition(" ")[0]
    return (
        f"{words.capitalize()} minus training {kind}"
        if metric.direction == "lower"
        else f"Training minus {words} {kind}"
    )


def draw_gap(study: Study, data: CurveData, *, size: Size | None = None) -> Drawing:
    """Draw it as learning curves."""
    return draw_curves(study, data, axis=data.label, size=size)


def words(study: Study, data: CurveData) -> Words:
    """Say what is drawn."""
    found = curve_words(study, data, title="Generalization gap per epoch")
    first, *others = found.lines
    return replace(found, lines=(first, "Above 0: better on the data that it was trained on.", *others))


_ABOUT = "Generalization gap per epoch: how much better an arm is on training than on test data."
CHARTS.register("generalization_gap")(
    Chart("generalization_gap", gap_data, draw_gap, _ABOUT, words=words, options=_OPTIONS)
)
