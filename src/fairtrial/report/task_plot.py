"""The verdict plot of a study over several tasks: over all of them, and on each."""

from collections.abc import Mapping

import altair as alt
import numpy as np

from fairtrial.report.charts import Figure
from fairtrial.report.charts.differences import (
    Differences,
    arm_differences,
    numbers_of,
    remark,
    rows_chart,
    warnings,
)
from fairtrial.report.style import LINE, chart_text, frame, header
from fairtrial.report.words import percent
from fairtrial.stats.comparison import StudyVerdict

#: What the plot over all tasks is called.
ALL = "over all tasks"


def draw_tasks(overall: StudyVerdict, tasks: Mapping[str, Differences], label: str) -> Figure:
    """Draw a block of rows for all tasks together and for each.

    Args:
        overall: the verdicts over all tasks.
        tasks: the differences on each, by its name.
        label: of the measure.
    """
    blocks = {ALL: Differences(overall, arm_differences(overall, _means(overall, tasks))), **tasks}
    parts = []
    for name, data in blocks.items():
        part = rows_chart(data, None)
        part.title = alt.TitleParams(chart_text(name), fontSize=11, offset=4, anchor="start")
        parts.append(part)
    drawing = alt.VConcatChart(vconcat=parts, spacing=18, config=frame())
    title = f"{label[:1].upper()}{label[1:]}: difference from {overall.reference}, {ALL} and on each"
    level = percent(1 - overall.interval_alpha)
    lines = [
        *warnings(overall),
        f"{overall.study}. Point and bar: mean and {level} interval; circles: one seed each, or its mean over tasks.",
        remark(overall),
    ]
    drawing.title = header(title, *lines, width=LINE + 20)
    said = [
        f"{name}: {', '.join(f'{arm.arm} {arm.words} {numbers_of(arm, data.found.unit)}'.strip() for arm in data.arms)}"
        for name, data in blocks.items()
    ]
    alt_text = f"Difference of each arm from {overall.reference} in {label}, {ALL} and on each; {'; '.join(said)}."
    caption = " ".join([*lines, f"Study: {overall.study}@{overall.hash[:8]}."])
    return Figure("differences", drawing, blocks, *map(chart_text, (title, caption, alt_text)))


def _means(overall: StudyVerdict, tasks: Mapping[str, Differences]) -> dict[str, dict[int, float]]:
    """The mean over tasks of each arm's differences, at the seeds that have one on every task."""
    found = {}
    for row in overall.comparisons:
        each = [arm.by_seed for data in tasks.values() for arm in data.arms if arm.arm == row.arm]
        seeds = sorted(set.intersection(*map(set, each))) if len(each) == len(tasks) else []
        means = {seed: float(np.mean([one[seed] for one in each])) for seed in seeds}
        found[row.arm] = dict([*means.items()][: row.seeds])
    return found
