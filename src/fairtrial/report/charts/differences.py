"""The picture behind the verdicts: each arm's paired differences from the reference, their interval, and the margin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from fairtrial.errors import ReportError
from fairtrial.measures import measure
from fairtrial.registry import CHARTS
from fairtrial.report.charts import Chart
from fairtrial.report.style import WIDTH, LineStyle, channels, frame, line_styles, over
from fairtrial.report.words import percent
from fairtrial.spec import Study
from fairtrial.spec.metrics import Unit
from fairtrial.stats.comparison import StudyVerdict, compare
from fairtrial.stats.paired import PairedData
from fairtrial.trial import TrialResult

#: Pixels of an arm.
ROW = 46


@dataclass(frozen=True)
class ArmDifferences:
    """One arm minus the reference.

    Attributes:
        arm: the arm's name.
        by_seed: the paired differences that the verdict rests on, by seed.
        mean: their mean; None without a pair.
        interval: lower and upper end of the interval; None where there is no spread to judge by.
        verdict: what may be said: ``"better"``, ``"refused"``.
        lost: trials of the arm without a result, such as ``("1 diverged",)``.
    """

    arm: str
    by_seed: Mapping[int, float]
    mean: float | None
    interval: tuple[float, float] | None
    verdict: str
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Differences:
    """A study's comparisons, in its measure's own unit.

    Attributes:
        found: the verdicts.
        arms: one an arm, in the study's order, without the reference.
    """

    found: StudyVerdict
    arms: tuple[ArmDifferences, ...]


def difference_data(study: Study, results: Sequence[TrialResult]) -> Differences:
    """Collect what the verdicts rest on.

    Raises:
        ReportError: no arm has a seed at which it and the reference have a result.
    """
    found = compare(study, results)
    table = PairedData.of(study, results, found.metric, study.evidence.target).differences(
        found.reference, [row.arm for row in found.comparisons], found.seeds
    )
    arms = []
    for row, column in zip(found.comparisons, table.T, strict=True):
        # A verdict rests on the first pairs, as many as it says: an arm that settled takes no notice of later seeds.
        pairs = [(int(seed), float(column[seed])) for seed in np.flatnonzero(np.isfinite(column))[: row.seeds]]
        verdict = "refused" if row.arm in found.refused else row.verdict.value
        lost = tuple(f"{number} {how}" for how, number in found.lost.get(row.arm, {}).items())
        arms.append(ArmDifferences(row.arm, dict(pairs), row.mean_difference, row.interval, verdict, lost))
    if not any(arm.by_seed for arm in arms):
        raise ReportError(f"no arm has a seed at which it and {found.reference} have a result")
    return Differences(found, tuple(arms))


def draw_differences(study: Study, data: Differences) -> alt.LayerChart:
    """Draw a row an arm: mean and interval above, seeds below them, the verdict to the right."""
    found, shown = data.found, measure(data.found.metric)
    styles = line_styles([arm.name for arm in study.arms], study.reference)
    own = {arm.arm: styles[arm.arm] for arm in data.arms}
    unit = f" ({shown.unit.difference})" if shown.unit.difference else ""
    header = alt.TitleParams(
        f"Differences from {found.reference}: {shown.label}",
        subtitle=[f"{study.label}. {_caption(data)}", *_remarks(data)],
    )
    x = alt.X(
        "x:Q",
        title=f"Arm minus {found.reference}{unit}",
        scale=alt.Scale(domain=_domain(data), nice=True, zero=False),
        axis=alt.Axis(tickCount=7, labelFlush=False),
    )
    layers = [*_ground(data, x), *_rows(data, shown.unit, own, x)]
    height = ROW * len(data.arms)
    return alt.LayerChart(layer=layers, width=WIDTH, height=height, title=header, config=alt.Config(**frame()))


def _ground(data: Differences, x: alt.X) -> Iterator[alt.Chart]:
    """What lies behind the rows: the margin's band, and the line of no difference."""
    margin, factor = data.found.margin, measure(data.found.metric).unit.factor
    if margin is not None:
        band = [{"x": -margin * factor, "end": margin * factor}]
        yield over(band, alt.Chart().mark_rect(color="#0072B2", opacity=0.12)).encode(x=x, x2="end:Q")
    yield over([{"x": 0.0}], alt.Chart().mark_rule(color="#333333", strokeWidth=1)).encode(x=x)


def _rows(data: Differences, unit: Unit, styles: Mapping[str, LineStyle], x: alt.X) -> Iterator[alt.Chart]:
    color, _, shape = channels(styles)
    rows = list(_arm_rows(data, unit))
    seeds = [
        {"arm": arm.arm, "seed": seed, "x": value * unit.factor}
        for arm in data.arms
        for seed, value in arm.by_seed.items()
    ]
    y = alt.Y(
        "arm:N", sort=list(styles), title=None, axis=alt.Axis(domain=False, ticks=False, labelLimit=260, grid=False)
    )
    bars, means = [row for row in rows if "low" in row], [row for row in rows if "x" in row]
    rule = alt.Chart().mark_rule(strokeWidth=2.2, yOffset=-6)
    point = alt.Chart().mark_point(filled=True, opacity=1, size=70, yOffset=-6)
    dot = alt.Chart().mark_point(filled=False, opacity=0.75, size=22, yOffset=9, shape="circle", strokeWidth=1)
    words = alt.Chart().mark_text(align="left", fontSize=11, color="#333333")
    yield over(bars, rule).encode(x="low:Q", x2="high:Q", y=y, color=color)
    yield over(seeds, dot).encode(x, y, color)
    yield over(means, point).encode(x, y, color, shape)
    yield over(rows, words).encode(y=y, x=alt.value(WIDTH + 10), text="words:N")


def _arm_rows(data: Differences, unit: Unit) -> Iterator[dict[str, Any]]:
    for arm in data.arms:
        row: dict[str, Any] = {"arm": arm.arm, "words": "; ".join([arm.verdict, *arm.lost])}
        if arm.mean is not None:
            row["x"] = arm.mean * unit.factor
        if arm.interval is not None:
            row |= {"low": arm.interval[0] * unit.factor, "high": arm.interval[1] * unit.factor}
        yield row


def _domain(data: Differences) -> tuple[float, float]:
    """All that is drawn, and no difference, with some room."""
    factor, margin = measure(data.found.metric).unit.factor, data.found.margin or 0.0
    ends = [-margin, margin, *(value for arm in data.arms for value in (*arm.by_seed.values(), *(arm.interval or ())))]
    room = 0.04 * (max(ends) - min(ends)) or 1.0 / factor
    return (min(ends) - room) * factor, (max(ends) + room) * factor


def _caption(data: Differences) -> str:
    """Say what the marks are."""
    found = data.found
    seeds = "Small circles: one seed each"
    if not any(arm.interval for arm in data.arms):
        return f"{seeds}; no interval, for there is no spread to judge by."
    return f"Point and bar: mean and {percent(1 - found.alpha)} interval, for all arms together. {seeds}."


def _remarks(data: Differences) -> Iterator[str]:
    found = data.found
    way = f"{'Higher' if found.larger_is_better else 'Lower'} is better."
    if found.margin is None:
        yield way
    else:
        yield f"{way} Shaded: within {measure(found.metric).unit.amount(found.margin)}, the margin set beforehand."


CHARTS.register("differences")(
    Chart("differences", "Differences from the reference", difference_data, draw_differences)
)
