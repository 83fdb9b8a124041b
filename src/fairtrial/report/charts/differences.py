"""The picture behind the verdicts: each arm's differences from the reference, their interval, and the margin."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.measures import measure
from fairtrial.registry import CHARTS
from fairtrial.report.charts import Chart
from fairtrial.report.style import WIDTH, Rows, channels, chart_text, frame, header, line_styles, over
from fairtrial.report.verdicts import within_margin
from fairtrial.report.words import percent
from fairtrial.spec import Study
from fairtrial.stats.comparison import StudyVerdict, compare
from fairtrial.stats.paired import PairedData, fate
from fairtrial.trial import TrialResult

#: Pixels for each arm.
ROW = 46

#: Characters that fit in a line of the subtitle.
LINE = 110


@dataclass(frozen=True)
class ArmDifferences:
    """One arm minus the reference, in the measure's own unit."""

    arm: str
    #: The paired differences that the verdict rests on; if runs are not paired, each minus the reference's mean.
    by_seed: Mapping[int, float]
    mean: float | None  # None without a result of both
    interval: tuple[float, float] | None  # None if the spread can't be estimated
    verdict: str  # such as "better" or "refused"
    lost: tuple[str, ...]  # its trials without a result, such as ("1 diverged",)


@dataclass(frozen=True)
class Differences:
    """A study's verdicts, and the differences of each arm but the reference, in the study's order."""

    found: StudyVerdict
    arms: tuple[ArmDifferences, ...]


def difference_data(study: Study, results: Sequence[TrialResult], *, history: History | None = None) -> Differences:
    """Collect what the verdicts rest on.

    Raises:
        ReportError: no arm has a seed at which it and the reference have a result.
    """
    found = compare(study, results, history=history)
    data = PairedData.of(study, results, found.metric, study.evidence.target).sifted(found.seeds)
    others = [row.arm for row in found.comparisons]
    table = (data.differences if found.paired else data.from_mean)(found.reference, others, found.seeds)
    arms = []
    for row, column in zip(found.comparisons, table.T, strict=True):
        # A verdict rests on the first pairs, as many as it says: an arm that settled ignores later seeds.
        pairs = {int(seed): float(column[seed]) for seed in np.flatnonzero(np.isfinite(column))[: row.seeds]}
        verdict = "refused" if row.arm in found.refused else row.verdict.value
        lost = tuple(f"{number} {fate(how)}" for how, number in found.lost.get(row.arm, {}).items())
        arms.append(ArmDifferences(row.arm, pairs, row.mean_difference, row.interval, verdict, lost))
    if not any(arm.by_seed for arm in arms):
        if not found.paired:
            raise ReportError(f"no run of {found.reference}, or none of another arm, has a result")
        raise ReportError(f"no arm has a seed at which it and {found.reference} have a result")
    return Differences(found, tuple(arms))


def draw_differences(study: Study, data: Differences) -> alt.LayerChart:
    """Draw a row for each arm: mean and interval above, seeds below them, the verdict to the right."""
    found, shown = data.found, measure(data.found.metric)
    title = f"Differences from {found.reference}: {shown.label}"
    head = header(title, *warnings(found), f"{study.label}. {_caption(data)}", remark(found))
    x = alt.X(
        "x:Q",
        title=chart_text(f"Arm minus {found.reference} ({found.unit.difference})".removesuffix(" ()")),
        scale=alt.Scale(domain=_domain(data), nice=True, zero=False),
        axis=alt.Axis(tickCount=7, labelFlush=False),
    )
    layers = [*_background(found, x), *_rows(study, data, x)]
    return alt.LayerChart(layer=layers, width=WIDTH, height=ROW * len(data.arms), title=head, config=frame())


def _background(found: StudyVerdict, x: alt.X) -> Iterator[alt.Chart]:
    """Draw the margin's band and the line of no difference."""
    if found.margin is not None:
        end = found.margin * found.unit.factor
        start = 0.0 if found.one_sided and not found.larger_is_better else -end
        end = 0.0 if found.one_sided and found.larger_is_better else end
        band = alt.Chart().mark_rect(color="#0072B2", opacity=0.12)
        yield over([{"x": start, "end": end}], band).encode(x=x, x2="end:Q")
    yield over([{"x": 0.0}], alt.Chart().mark_rule(color="#333333", strokeWidth=1)).encode(x=x)


def _rows(study: Study, data: Differences, x: alt.X) -> Iterator[alt.Chart]:
    styles = line_styles([arm.name for arm in study.arms], study.reference)
    color, _, shape = channels({arm.arm: styles[arm.arm] for arm in data.arms})
    factor = data.found.unit.factor
    arms = [chart_text(arm.arm) for arm in data.arms]
    bars: Rows = [
        {"arm": arm.arm, "low": arm.interval[0] * factor, "high": arm.interval[1] * factor}
        for arm in data.arms
        if arm.interval
    ]
    means: Rows = [{"arm": arm.arm, "x": arm.mean * factor} for arm in data.arms if arm.mean is not None]
    labels: Rows = [{"arm": arm.arm, "words": "; ".join([arm.verdict, *arm.lost])} for arm in data.arms]
    seeds: Rows = [
        {"arm": arm.arm, "seed": seed, "x": value * factor} for arm in data.arms for seed, value in arm.by_seed.items()
    ]
    y = alt.Y("arm:N", sort=arms, title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=260, grid=False))
    rule = alt.Chart().mark_rule(strokeWidth=2.2, yOffset=-6)
    point = alt.Chart().mark_point(filled=True, opacity=1, size=70, yOffset=-6)
    dot = alt.Chart().mark_point(filled=False, opacity=0.75, size=22, yOffset=9, shape="circle", strokeWidth=1)
    text = alt.Chart().mark_text(align="left", fontSize=11, color="#333333")
    yield over(bars, rule).encode(x="low:Q", x2="high:Q", y=y, color=color)
    yield over(seeds, dot).encode(x, y, color)
    yield over(means, point).encode(x, y, color, shape)
    yield over(labels, text).encode(y=y, x=alt.value(WIDTH + 10), text="words:N")


def _domain(data: Differences) -> tuple[float, float]:
    """Span all that is drawn and zero, with some padding."""
    factor, margin = data.found.unit.factor, data.found.margin or 0.0
    ends = [-margin, margin, *(value for arm in data.arms for value in (*arm.by_seed.values(), *(arm.interval or ())))]
    padding = 0.04 * (max(ends) - min(ends)) or 1.0 / factor
    return (min(ends) - padding) * factor, (max(ends) + padding) * factor


def _caption(data: Differences) -> str:
    seeds = "Small circles: one seed each" if data.found.paired else "Small circles: one run each, minus the mean"
    if not any(arm.interval for arm in data.arms):
        return f"{seeds}; no interval, for there is no spread to judge by."
    return f"Point and bar: mean and {percent(1 - data.found.interval_alpha)} interval, for all arms together. {seeds}."


def remark(found: StudyVerdict) -> str:
    """Say which way is better, and what the margin is."""
    way = f"{'Higher' if found.larger_is_better else 'Lower'} is better."
    if found.margin is None:
        return way
    if found.one_sided:
        return f"{way} Shaded: on the worse side within {found.unit.amount(found.margin)}, the margin."
    return f"{way} Shaded: {within_margin(found)}."


def warnings(found: StudyVerdict) -> Iterator[str]:
    """What can make the verdicts false, in a line or two; the verdicts themselves say all of it."""
    said = [*(["Exploratory."] if found.exploratory else []), *found.alerts[:1]]
    yield from textwrap.wrap(" ".join(said), LINE, max_lines=2, placeholder=" ...")


_ABOUT = "Each arm minus the reference, seed by seed, with the intervals, the margin and the verdicts."
CHARTS.register("differences")(Chart("differences", difference_data, draw_differences, _ABOUT, has_verdicts=True))
