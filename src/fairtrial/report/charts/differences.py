"""The verdict plot: each arm's differences from the reference, their interval, the margin, and the verdict in words."""

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.registry import CHARTS
from fairtrial.report.axes import Span, clipped, padded, robust, within
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.style import CROSS, LINE, VERDICT_SHAPES, WIDTH, Rows, chart_text, frame, over, shortened
from fairtrial.report.verdict_marks import in_tooltip, margin_row, margin_span
from fairtrial.report.verdicts import in_short, within_margin
from fairtrial.report.words import count, percent
from fairtrial.spec import Study
from fairtrial.spec.metrics import Unit
from fairtrial.stats.comparison import StudyVerdict, compare, evidence_for
from fairtrial.stats.paired import PairedData, fate
from fairtrial.trial import TrialResult

#: Pixels for each arm; of more arms than `ROOMY`, less, and then there is one line of text for each.
ROW, NARROW, ROOMY = 46, 24, 12

#: So many arms have a row of their own; of more, those with a verdict go first, and the rest is counted.
MOST = 40

#: Between the words of the axis: em spaces, which SVG does not shorten.
_GAP = "\N{EM SPACE}" * 3

#: Characters of an arm's name, and crosses for the lost trials of an arm, at the most.
NAME, CROSSES = 40, 6


@dataclass(frozen=True)
class ArmDifferences:
    """One arm minus the reference, in the measure's own unit."""

    arm: str
    #: The paired differences that the verdict rests on; if runs are not paired, each minus the reference's mean.
    by_seed: Mapping[int, float]
    mean: float | None  # None without a result of both
    interval: Span | None  # None if the spread can't be estimated
    verdict: str  # such as "better" or "refused"
    lost: tuple[str, ...]  # its trials without a result, such as ("1 diverged",)
    short: str = ""  # the verdict in a few words, such as "undecided: about 4 more seeds"
    losses: int = 0  # how many trials have no result

    @property
    def words(self) -> str:
        """The verdict and what was lost: ``worse; 1 diverged``."""
        return "; ".join([self.short or self.verdict, *self.lost])

    @property
    def spans(self) -> tuple[Span, ...]:
        """What an axis must show, the interval only where it does not dwarf the seeds."""
        ends = [*self.by_seed.values(), *(() if self.mean is None else (self.mean,))]
        own = [(min(ends), max(ends))] if ends else []
        return (*own, *(() if self.interval is None else (self.interval,)))


@dataclass(frozen=True)
class Differences:
    """A study's verdicts, and the differences of each arm but the reference, in the study's order."""

    found: StudyVerdict
    arms: tuple[ArmDifferences, ...]

    @property
    def shown(self) -> tuple[ArmDifferences, ...]:
        """The arms with a row of their own: all, or of too many those with a verdict first."""
        if len(self.arms) <= MOST:
            return self.arms
        order = sorted(self.arms, key=lambda arm: arm.verdict not in {"better", "worse"})
        return tuple(arm for arm in self.arms if arm in order[:MOST])

    @property
    def hidden(self) -> tuple[ArmDifferences, ...]:
        """The others."""
        shown = {arm.arm for arm in self.shown}
        return tuple(arm for arm in self.arms if arm.arm not in shown)


def difference_data(
    study: Study,
    results: Sequence[TrialResult],
    *,
    history: History | None = None,
    measure: str | None = None,
    arms: Sequence[str] = (),
) -> Differences:
    """Collect what the verdicts rest on.

    Raises:
        ReportError: no arm has a seed at which it and the reference have a result.
        StudyError: the study has no such measure, or it is unknown which direction is better.
    """
    found = compare(study, results, metric=measure, history=history)
    data = PairedData.of(study, results, found.metric, evidence_for(study, measure).target).sifted(found.seeds)
    others = [row.arm for row in found.comparisons]
    table = (data.differences if found.paired else data.from_mean)(found.reference, others, found.seeds)
    columns = dict(zip(others, table.T, strict=True))
    # A verdict rests on the first pairs, as many as it says: an arm that settled ignores later seeds.
    pairs = {
        row.arm: {int(seed): float(columns[row.arm][seed]) for seed in np.flatnonzero(np.isfinite(columns[row.arm]))}
        for row in found.comparisons
    }
    rows = arm_differences(found, {row.arm: dict([*pairs[row.arm].items()][: row.seeds]) for row in found.comparisons})
    rows = tuple(row for row in rows if not arms or row.arm in arms)
    if not rows and arms:
        raise ReportError(f"no arm but {found.reference}, with which the others are compared, was chosen")
    if not any(arm.by_seed for arm in rows) and not any(arm.losses for arm in rows):
        if not found.paired:
            raise ReportError(f"no run of {found.reference}, or none of another arm, has a result")
        raise ReportError(f"no arm has a seed at which it and {found.reference} have a result")
    return Differences(found, rows)


def arm_differences(found: StudyVerdict, by_seed: Mapping[str, Mapping[int, float]]) -> tuple[ArmDifferences, ...]:
    """Join verdicts with the differences that they rest on."""
    arms = []
    for row in found.comparisons:
        verdict = "refused" if row.arm in found.refused else row.verdict.value
        losses = found.lost.get(row.arm, {})
        lost = tuple(f"{number} {fate(how)}" for how, number in losses.items())
        short = in_short(found, row)
        own = by_seed[row.arm]
        arms.append(
            ArmDifferences(row.arm, own, row.mean_difference, row.interval, verdict, lost, short, sum(losses.values()))
        )
    return tuple(arms)


def draw_differences(study: Study, data: Differences, *, size: Size | None = None) -> alt.LayerChart:
    """Draw a row for each arm: mean and interval with its seeds, and to the right the verdict and the numbers."""
    del study
    return rows_chart(data, frame(), size)


def rows_chart(data: Differences, look: alt.Config | None, size: Size | None = None) -> alt.LayerChart:
    """Draw the rows; without a look it is a part of another chart."""
    found, shown = data.found, data.shown
    step = ROW if len(shown) <= ROOMY else NARROW
    width, height = size or (WIDTH, step * len(shown))
    domain, _ = _domain(data)
    way = ("worse", "better") if found.larger_is_better else ("better", "worse")
    title = f"Arm minus {shortened(found.reference, NAME)} ({found.unit.difference})".removesuffix(" ()")
    x, low = (
        alt.X(
            f"{field}:Q",
            title=chart_text(f"← {way[0]}{_GAP}{title}{_GAP}{way[1]} →"),
            scale=alt.Scale(domain=domain, nice=False, zero=False, clamp=True),
            axis=alt.Axis(tickCount=7, labelFlush=False),
        )
        for field in ("x", "start")
    )
    layers = [*_background(found, x, low, domain), *_rows(data, (x, low), domain, width, height / max(len(shown), 1))]
    return alt.LayerChart(layer=layers, width=width, height=height, config=look or alt.Undefined)


def _background(found: StudyVerdict, x: alt.X, low: alt.X, domain: Span) -> Iterator[alt.Chart]:
    """Draw the margin's band and the line of no difference."""
    if found.margin is not None:
        band = alt.Chart().mark_rect(style="margin", opacity=0.14)
        yield over([margin_row(found, domain)], band).encode(x=low, x2="end:Q")
    yield over([{"x": 0.0}], alt.Chart().mark_rule(style="ink", strokeWidth=1)).encode(x=x)


def _place(arm: ArmDifferences, names: Mapping[str, str]) -> dict[str, str]:
    """The arm, by which a page leaves its rows out, and the row that it has in the plot."""
    return {"arm": arm.arm, "row": names[arm.arm]}


def _rows(data: Differences, axes: tuple[alt.X, alt.X], domain: Span, width: float, step: float) -> Iterator[alt.Chart]:
    factor, roomy = data.found.unit.factor, step >= ROW * 0.8
    names = row_names(data.shown)
    y = alt.Y(
        "row:N",
        sort=list(names.values()),
        title=None,
        axis=alt.Axis(domain=False, ticks=False, labelLimit=280, labelPadding=10, grid=False),
    )
    up, down = (-7, 8) if roomy else (0, 0)
    size = 64 if roomy else 44
    seeds: Rows = [
        {**_place(arm, names), "seed": seed, "x": value * factor}
        for arm in data.shown
        for seed, value in arm.by_seed.items()
        if within(value * factor, domain)
    ]
    dot = alt.Chart().mark_point(style="faint", filled=False, opacity=0.9, size=20, yOffset=down, strokeWidth=1)
    yield over(seeds, dot).encode(axes[0], y)
    for verdict, shape in VERDICT_SHAPES.items():
        if any(arm.verdict == verdict for arm in data.shown):
            yield from _of_verdict(data, verdict, shape, names, factor, domain, axes, y, up, size)
    yield from _lost(data, names, y, width, down)
    yield from _labels(data, names, y, width, (up, down) if roomy else None)


def _of_verdict(  # noqa: PLR0917  (one layer's looks)
    data: Differences,
    verdict: str,
    shape: str,
    names: Mapping[str, str],
    factor: float,
    domain: Span,
    axes: tuple[alt.X, alt.X],
    y: alt.Y,
    up: float,
    size: float,
) -> Iterator[alt.Chart]:
    """Draw means and intervals; where they go beyond the axis, an arrow."""
    arms = [arm for arm in data.shown if arm.verdict == verdict]
    bars: Rows = []
    arrows: Rows = []
    means: Rows = []
    found = data.found
    for arm in arms:
        mean = None if arm.mean is None else arm.mean * factor
        ends = [end * factor for end in arm.interval] if arm.interval else [] if mean is None else [mean, mean]
        if not ends:
            continue
        low, high = clipped((ends[0], ends[1]), domain)
        row = {**_place(arm, names), **in_tooltip(found, arm.interval, arm.mean), "words": arm.words}
        bars += [row | {"start": low, "end": high, "seeds": len(arm.by_seed)}] if arm.interval else []
        arrows += [row | {"start": domain[0], "turn": -90}] if ends[0] < domain[0] else []
        arrows += [row | {"start": domain[1], "turn": 90}] if ends[1] > domain[1] else []
        means += [row | {"start": mean}] if mean is not None and within(mean, domain) else []
    rule = alt.Chart().mark_rule(style=verdict, strokeWidth=2.4, yOffset=up)
    point = alt.Chart().mark_point(style=verdict, filled=True, opacity=1, size=size, yOffset=up, shape=shape)
    arrow = alt.Chart().mark_point(style=verdict, filled=True, opacity=1, size=52, yOffset=up, shape="triangle-up")
    yield over(bars, rule).encode(axes[1], alt.X2("end:Q"), y)
    yield over(means, point).encode(axes[1], y)
    if arrows:
        yield over(arrows, arrow).encode(axes[1], y, angle=alt.Angle("turn:Q", scale=None))


def _lost(data: Differences, names: Mapping[str, str], y: alt.Y, width: float, down: float) -> Iterator[alt.Chart]:
    """Draw a cross for each trial without a result, at the worse edge of the plot."""
    places = [6 + 11 * at if data.found.larger_is_better else width - 6 - 11 * at for at in range(CROSSES)]
    rows: Rows = [{**_place(arm, names), "at": at} for arm in data.shown for at in places[: arm.losses]]
    if rows:
        cross = alt.Chart().mark_point(style="worse", shape=CROSS, size=36, strokeWidth=1.6, opacity=1, yOffset=down)
        yield over(rows, cross).encode(x=alt.X("at:Q", scale=None, axis=None), y=y)


def _labels(
    data: Differences, names: Mapping[str, str], y: alt.Y, width: float, offsets: tuple[float, float] | None
) -> Iterator[alt.Chart]:
    """Write verdicts in their colors, with the numbers below them, or before them where a row is low."""
    up, down = offsets or (0, 0)
    numbers: Rows = [
        {**_place(arm, names), "words": numbers_of(arm, data.found.unit)} for arm in data.shown if arm.mean is not None
    ]
    places = (width + 12, width + 12)
    if not offsets and numbers:
        places = (width + 24 + 5.8 * max(len(row["words"]) for row in numbers), width + 12)
    for verdict in VERDICT_SHAPES:
        rows: Rows = [{**_place(arm, names), "words": arm.words} for arm in data.shown if arm.verdict == verdict]
        text = alt.Chart().mark_text(style=verdict, align="left", fontSize=11, fontWeight="bold", yOffset=up)
        if rows:
            yield over(rows, text).encode(y=y, x=alt.value(places[0]), text="words:N")
    if numbers:
        text = alt.Chart().mark_text(style="text", align="left", fontSize=10.5, yOffset=down)
        yield over(numbers, text).encode(y=y, x=alt.value(places[1]), text="words:N")


def numbers_of(arm: ArmDifferences, unit: Unit) -> str:
    """Write mean and interval: ``−1.27 (−2.49 to −0.05)``."""
    if arm.mean is None:
        return ""
    ends = "" if arm.interval is None else f" ({unit.between(*arm.interval)})"
    return f"{unit.number(arm.mean)}{ends}".replace("-", "−")  # a real minus


def row_names(arms: Sequence[ArmDifferences]) -> dict[str, str]:
    """What the rows are called: the arms' names, long ones shortened, each different."""
    names: dict[str, str] = {}
    for arm in arms:
        short = shortened(chart_text(arm.arm), NAME)
        names[arm.arm] = short if short not in names.values() else f"{short} ({len(names) + 1})"
    return names


def _domain(data: Differences) -> tuple[Span, tuple[str, ...]]:
    """Span what is drawn, zero and the margin; name the arms that lie so far off that they would squash the others."""
    factor = data.found.unit.factor
    keep = margin_span(data.found) if data.found.margin is not None else (0.0, 0.0)
    spans = [(arm.arm, (low * factor, high * factor)) for arm in data.shown for low, high in arm.spans]
    if not spans:
        return padded(keep if keep[1] > keep[0] else (-factor, factor), 0.05), ()
    span, out = robust([each for _, each in spans], keep)
    low, high = padded(span if span[1] > span[0] else (span[0] - factor, span[1] + factor), 0.05)
    # Room for the crosses at the worse edge.
    crosses = min(max((arm.losses for arm in data.shown), default=0), CROSSES)
    room = (high - low) * (11 * crosses + 8) / WIDTH if crosses else 0.0
    low, high = (low - room, high) if data.found.larger_is_better else (low, high + room)
    return (low, high), tuple(dict.fromkeys(spans[at][0] for at in out))


def words(study: Study, data: Differences) -> Words:
    """Say what is drawn."""
    found = data.found
    label = study.measure(found.metric).label
    title = f"{label[:1].upper()}{label[1:]}: difference from {found.against}"
    lines = [*warnings(found), f"{study.name}. {_caption(data)}", remark(found), *_remarks(data)]
    return Words(title, tuple(lines), _in_words(data, label), LINE + 20)


def _in_words(data: Differences, label: str) -> str:
    """Describe the picture in a sentence."""
    found = data.found
    if len(data.arms) <= ROOMY:
        parts = [
            f"{arm.arm} is {arm.words}" + (f", {numbers_of(arm, found.unit)}" if arm.mean is not None else "")
            for arm in data.arms
        ]
    else:
        parts = [f"{number} {verdict}" for verdict, number in Counter(arm.verdict for arm in data.arms).items()]
    unit = f" in {found.unit.difference}" if found.unit.difference else ""
    return f"Difference of each arm from {found.against}{unit}, {label}, with its interval: {'; '.join(parts)}."


def _caption(data: Differences) -> str:
    """Say what marks are."""
    seeds = "small circles: one seed each" if data.found.paired else "small circles: one run each, minus the mean"
    if not any(arm.interval for arm in data.arms):
        return f"{seeds[:1].upper()}{seeds[1:]}; no interval, for there is no spread to judge by."
    return f"Point and bar: mean and {percent(1 - data.found.interval_alpha)} interval, for all arms together; {seeds}."


def _remarks(data: Differences) -> Iterator[str]:
    """Say what else a reader sees, and what is not to be seen."""
    found, (domain, _) = data.found, _domain(data)
    if any(arm.losses for arm in data.shown):
        yield "× at the edge: a trial without a result; it has no difference, and counts against its arm."
    if theirs := found.lost.get(found.reference, {}):
        yield f"{found.reference}: {', '.join(f'{number} {fate(how)}' for how, number in theirs.items())}."
    factor = found.unit.factor
    if any(not within(end * factor, domain) for arm in data.shown for span in arm.spans for end in span):
        yield "Arrow: goes on beyond the axis; the numbers are to the right."
    if data.hidden:
        counts = Counter(arm.verdict for arm in data.hidden)
        what = ", ".join(f"{number} {verdict}" for verdict, number in counts.items())
        yield f"Not drawn: {count(len(data.hidden), 'more arm')} ({what})."


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
    if said:
        yield textwrap.shorten(" ".join(said), 2 * LINE, placeholder=" ...")


_ABOUT = "The verdict plot: each arm minus the reference, with its seeds, interval, margin and verdict in words."
CHARTS.register("differences")(
    Chart(
        "differences",
        difference_data,
        draw_differences,
        _ABOUT,
        has_verdicts=True,
        words=words,
        options=frozenset({"measure", "arms", "size"}),
    )
)
