"""History of a sequential study: how each arm's interval narrowed seed by seed, and when its verdict was settled."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import altair as alt

from fairtrial.errors import ReportError
from fairtrial.history import History
from fairtrial.registry import CHARTS
from fairtrial.report.axes import Span, joined, padded, robust, within
from fairtrial.report.chart_options import Size
from fairtrial.report.charts import Chart, Words
from fairtrial.report.charts.differences import remark, warnings
from fairtrial.report.panels import FLUSH, chosen, columns, grid, left_out, line_length, panel, size_of
from fairtrial.report.style import VERDICT_SHAPES, Rows, over
from fairtrial.report.verdict_marks import in_tooltip, margin_row, margin_span
from fairtrial.report.words import count, percent
from fairtrial.spec import Study
from fairtrial.stats.comparison import StudyVerdict, compare
from fairtrial.trial import TrialResult

#: At most so many looks are drawn, evenly spaced, the first and the last among them.
LOOKS = 40


@dataclass(frozen=True)
class Look:
    """What one look said of an arm, in the measure's own unit."""

    seeds: int  # after so many
    mean: float
    interval: Span | None
    verdict: str


@dataclass(frozen=True)
class ArmHistory:
    """All looks at an arm, up to the one that settled it."""

    arm: str
    looks: tuple[Look, ...]  # ascending; none if there was no pair
    settled: int | None  # after how many seeds; None if it is undecided
    verdict: str  # the last one


@dataclass(frozen=True)
class Histories:
    """The latest verdicts, and the looks at each arm before."""

    found: StudyVerdict
    arms: tuple[ArmHistory, ...]


def history_data(
    study: Study, results: Sequence[TrialResult], *, history: History | None = None, arms: Sequence[str] = ()
) -> Histories:
    """Repeat the looks of the study, each on the seeds that there were.

    Raises:
        ReportError: the study looks once, or has not looked yet.
    """
    found = compare(study, results, history=history)
    taken = [seeds for seeds in found.looks if seeds <= found.seeds]
    if len(found.looks) < 2:
        raise ReportError("the study looks at its arms once, so no interval narrowed seed by seed")
    if not taken or not found.comparisons:
        raise ReportError("no look has been taken yet")
    step = (len(taken) - 1) / (LOOKS - 1)
    shown = taken if len(taken) <= LOOKS else [taken[round(at * step)] for at in range(LOOKS)]
    looks = {
        seeds: compare(study, [one for one in results if one.seed < seeds], history=history)
        for seeds in dict.fromkeys(shown)
    }
    names = [row.arm for row in found.comparisons if not arms or row.arm in arms]
    return Histories(found, tuple(_of_arm(arm, looks) for arm in names))


def _of_arm(arm: str, looks: dict[int, StudyVerdict]) -> ArmHistory:
    own: list[Look] = []
    verdict = ""
    for seeds, found in looks.items():
        row = next(row for row in found.comparisons if row.arm == arm)
        if row.mean_difference is not None and arm not in found.refused:
            own.append(Look(seeds, row.mean_difference, row.interval, row.verdict.value))
        verdict = row.verdict.value
        if row.verdict.settled:
            return ArmHistory(arm, tuple(own), seeds, verdict)
    return ArmHistory(arm, tuple(own), None, verdict)


def draw_history(study: Study, data: Histories, *, size: Size | None = None) -> alt.ConcatChart:
    """Draw a plot for each arm: its interval after each seed, and a mark where the verdict was settled."""
    del study
    shown = chosen(data.arms)
    domain = _domain(data.found, shown)
    last = max((look.seeds for arm in shown for look in arm.looks), default=1)
    each, side = size_of(len(shown), size), columns(len(shown))
    panels = []
    for at, arm in enumerate(shown):
        title = f"Difference ({data.found.unit.difference})".removesuffix(" ()") if at % side == 0 else ""
        panels.append(panel(list(_layers(arm, data.found, domain, last, title)), arm.arm, each, _said(arm)))
    return grid(panels)


def _layers(arm: ArmHistory, found: StudyVerdict, domain: Span, last: int, title: str) -> Iterator[alt.Chart]:
    factor = found.unit.factor
    first = min(found.looks)
    x = alt.X(
        "seeds:Q",
        title="Seeds",
        scale=alt.Scale(domain=(first - 0.5, max(last, first + 1) + 0.5), nice=False, zero=False),
        axis=alt.Axis(format="d", tickMinStep=1, tickCount=6, grid=False),
    )
    scale = alt.Scale(domain=domain, nice=True, zero=False)
    axis = alt.Axis(labelFlush=FLUSH)
    mean, low = (alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis) for field in ("mean", "start"))
    if found.margin is not None:
        band = alt.Chart().mark_rect(style="margin", opacity=0.14)
        yield over([margin_row(found, domain)], band).encode(y=low, y2="end:Q")
    yield over([{"mean": 0.0}], alt.Chart().mark_rule(style="ink", strokeWidth=1)).encode(y=mean)
    rows: Rows = []
    for look in arm.looks:
        row = {"arm": arm.arm, "seeds": look.seeds, "mean": look.mean * factor, "verdict": look.verdict}
        ends = (look.interval[0] * factor, look.interval[1] * factor) if look.interval else (row["mean"], row["mean"])
        rows.append(row | in_tooltip(found, look.interval, look.mean) | {"start": ends[0], "end": ends[1]})
    for verdict, shape in VERDICT_SHAPES.items():
        own = [row for row in rows if row["verdict"] == verdict]
        if own:
            bar = alt.Chart().mark_rule(style=verdict, strokeWidth=2, clip=True)
            settled = verdict != "undecided"
            point = alt.Chart().mark_point(
                style=verdict, shape=shape, filled=True, opacity=1, size=70 if settled else 26, clip=True
            )
            yield over(own, bar).encode(x, low, alt.Y2("end:Q"))
            yield over(own, point).encode(x, mean)

    if rows and not any(within(row["mean"], domain) for row in rows):
        last_row, edge = rows[-1], domain[0] if rows[-1]["mean"] < domain[0] else domain[1]
        words = found.unit.number(last_row["mean"] / factor).replace("-", "−")
        below = edge == domain[0]
        text = alt.Chart().mark_text(style=arm.verdict, dy=-10 if below else 12, fontSize=11, fontWeight="bold")
        beyond: Rows = [{"arm": arm.arm, "seeds": (first + max(last, first + 1)) / 2, "mean": edge}]
        beyond[0]["label"] = f"{'↓' if below else '↑'} {words}"
        yield over(beyond, text).encode(x, mean, text="label:N")


def _domain(found: StudyVerdict, arms: Sequence[ArmHistory]) -> Span:
    """Fit the axis to the last third of each arm's looks: the first intervals are several times as wide."""
    factor, spans = found.unit.factor, []
    for arm in arms:
        later = arm.looks[2 * len(arm.looks) // 3 :]
        ends = [end * factor for look in later for end in (look.mean, *(look.interval or ()))]
        ends += [look.mean * factor for look in arm.looks]
        if ends:
            spans.append((min(ends), max(ends)))
    keep = margin_span(found) if found.margin is not None else (0.0, 0.0)
    span = robust(spans, keep)[0] if spans else joined([keep, (-factor, factor)])
    return padded(span, 0.06)


def _said(arm: ArmHistory) -> str:
    if arm.settled is not None:
        return f"{arm.verdict} after {count(arm.settled, 'seed')}"
    return f"undecided after {count(arm.looks[-1].seeds, 'seed')}" if arm.looks else "no pair with a result"


def words(study: Study, data: Histories) -> Words:
    """Say what is drawn."""
    found = data.found
    label = study.measure(found.metric).label
    level = percent(1 - found.interval_alpha)
    lines = [
        *warnings(found),
        f"{study.name}. Bars: {level} intervals after each seed, for all arms and looks together.",
        remark(found),
    ]
    if _leaves(data):
        lines.append("Where a bar leaves the plot, it goes on beyond it.")
    lines += left_out(data.arms)
    said = (
        "; ".join(f"{arm.arm}: {_said(arm)}" for arm in data.arms) if len(data.arms) <= 12 else f"{len(data.arms)} arms"
    )
    alt_text = f"Difference in {label} from {found.against} after each seed, with intervals that narrow: {said}."
    title = f"{label[:1].upper()}{label[1:]}: difference from {found.against}, seed by seed"
    return Words(title, tuple(lines), alt_text, line_length(len(data.arms)))


def _leaves(data: Histories) -> bool:
    domain, factor = _domain(data.found, chosen(data.arms)), data.found.unit.factor
    looks = [look for arm in data.arms for look in arm.looks]
    return any(not within(end * factor, domain) for look in looks for end in (look.mean, *(look.interval or ())))


_ABOUT = "History of a sequential study: how each interval narrowed seed by seed, and when it was settled."
CHARTS.register("history")(
    Chart(
        "history",
        history_data,
        draw_history,
        _ABOUT,
        has_verdicts=True,
        words=words,
        options=frozenset({"arms", "size"}),
    )
)
