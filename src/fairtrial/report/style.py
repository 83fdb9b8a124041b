"""The look of figures, on light and on dark backgrounds: colors, dashes and shapes for each arm, and a plain frame.

A chart names no black, white or gray of its own: it names styles (`mark_rule(style="ink")`) and takes the colors of
arms from the configuration's range of categories. So `config` alone decides whether it is for a light or a dark page.
"""

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import altair as alt

from fairtrial.text import one_line

Theme: TypeAlias = Literal["light", "dark"]

#: Okabe and Ito's palette (2008), black first, without its yellow, which is too pale for a line on white.
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
#: The same for a dark page: black becomes white, and the blue is lighter.
DARK_PALETTE = ("#f2f2f2", "#2f86d1", "#e5702a", "#14ad83", "#CC79A7", "#E69F00", "#6cc3f5")

#: Dash patterns in pixels: solid, dashed, dotted, dash-dotted, long dashes.
DASHES: tuple[tuple[float, ...], ...] = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (12, 3))

#: Vega's names of point shapes.
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

#: The shape of a verdict's point; its color is that of the style with its name.
VERDICT_SHAPES: Mapping[str, str] = {
    "reference": "diamond",
    "better": "triangle-up",
    "equivalent": "circle",
    "non-inferior": "circle",
    "undecided": "square",
    "worse": "triangle-down",
    "refused": "cross",
}

#: An x, two strokes, as an SVG path in Vega's unit square: where a trial was lost.
CROSS = "M-1,-1L1,1M1,-1L-1,1"

#: Pixels of the width of a plot itself.
WIDTH = 420

#: Characters that fit in a line of the subtitle of a chart as wide as that with what is beside it.
LINE = 110

#: Rows of a layer, as Vega-Lite takes them inline.
Rows = list[dict[str, Any]]

#: Liberation Sans comes with vl-convert, so that a figure is the same on every machine.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


@dataclass(frozen=True)
class _Inks:
    """The colors of one theme."""

    page: str
    ink: str  # the reference, and text that must be read
    text: str  # other text
    faint: str  # what stands behind: other arms, single seeds
    grid: str
    margin: str
    better: str
    worse: str
    equivalent: str
    undecided: str
    palette: tuple[str, ...]
    diverging: tuple[str, str, str]  # worse, equal, better


_THEMES: Mapping[Theme, _Inks] = {
    "light": _Inks(
        page="#ffffff",
        ink="#000000",
        text="#333333",
        faint="#8a8a8a",
        grid="#e6e6e6",
        margin="#0072B2",
        better="#007a5a",
        worse="#c04f00",
        equivalent="#0072B2",
        undecided="#666666",
        palette=PALETTE,
        diverging=("#D55E00", "#ffffff", "#0072B2"),
    ),
    "dark": _Inks(
        page="#14171a",
        ink="#f2f2f2",
        text="#cfd2d6",
        faint="#8a8f96",
        grid="#30343a",
        margin="#4aa3df",
        better="#2fc795",
        worse="#f58549",
        equivalent="#5fb2ea",
        undecided="#a9adb3",
        palette=DARK_PALETTE,
        diverging=("#D55E00", "#24272c", "#0072B2"),
    ),
}


@dataclass(frozen=True)
class LineStyle:
    """One arm's look: color, strokes and gaps in pixels, and Vega's name of the point shape."""

    color: str
    dash: tuple[float, ...]
    shape: str


def line_styles(arms: Sequence[str], reference: str) -> dict[str, LineStyle]:
    """Give each arm a style of its own; the reference is solid black, or white on a dark page.

    The numbers of colors, dashes and shapes share few factors, so that two arms of the same color differ in dash and
    shape; no two of the first 210 arms look the same.
    """
    number = {arm: at for at, arm in enumerate(dict.fromkeys([reference, *arms]))}
    return {
        arm: LineStyle(PALETTE[at % len(PALETTE)], DASHES[at % len(DASHES)], SHAPES[at % len(SHAPES)])
        for arm, at in ((arm, number[arm]) for arm in arms)
    }


def config(theme: Theme = "light") -> dict[str, Any]:
    """Configure a figure for a light or a dark page, as Vega-Lite's ``config``: all that depends on the background.

    Example:
        >>> config("dark")["range"]["category"][0]      # the reference
        '#f2f2f2'
    """
    inks = _THEMES[theme]
    axis = {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8}
    lines = {"gridColor": inks.grid, "domainColor": inks.text, "tickColor": inks.text}
    words = {"labelColor": inks.text, "titleColor": inks.text}
    title = {"anchor": "start", "fontSize": 13, "fontWeight": "bold", "offset": 12, "color": inks.ink}
    subtitle = {"subtitleFontSize": 10.5, "subtitleColor": inks.text, "subtitlePadding": 4}
    header = {"labelFontSize": 11, "labelFontWeight": "bold", "title": None}
    return {
        "background": inks.page,
        "font": FONT,
        "padding": 8,
        "view": {"stroke": None},
        "axis": axis | lines | words,
        "legend": words | {"labelFontSize": 11, "symbolBaseFillColor": inks.text, "symbolBaseStrokeColor": inks.text},
        "header": header | words,
        "title": title | subtitle,
        "range": {"category": list(inks.palette), "diverging": list(inks.diverging)},
        "text": {"color": inks.text},
        "style": {name: {"color": color} for name, color in _styles(inks).items()} | {"on-color": {"color": "#ffffff"}},
    }


def _styles(inks: _Inks) -> dict[str, str]:
    """The colors that charts name."""
    verdicts = {name: getattr(inks, name) for name in ("better", "worse", "equivalent", "undecided")}
    verdicts |= {"non-inferior": inks.equivalent, "refused": inks.worse, "reference": inks.ink}
    return {name: getattr(inks, name) for name in ("ink", "text", "faint", "grid", "margin")} | verdicts


def frame() -> alt.Config:
    """Configure every figure as it is written to files: for paper."""
    return alt.Config(**config("light"))


def channels(arms: Sequence[str], reference: str) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """Encode the arm as color, dash and shape, without Vega's legend.

    Args:
        arms: all arms of the study, in its order, also those that are not drawn: an arm looks the same in each chart.
        reference: one of them.
    """
    order = list(map(chart_text, dict.fromkeys([reference, *arms])))
    looks = list(line_styles(list(dict.fromkeys([reference, *arms])), reference).values())
    return (
        alt.Color("arm:N", scale=alt.Scale(domain=order, range="category"), legend=None),
        alt.StrokeDash("arm:N", scale=alt.Scale(domain=order, range=[list(look.dash) for look in looks]), legend=None),
        alt.Shape("arm:N", scale=alt.Scale(domain=order, range=[look.shape for look in looks]), legend=None),
    )


def chart_text(text: str) -> str:
    """Make a text safe within a chart: no control characters, no end of a script, no backslash.

    A control character ends the process that renders the chart, and ``</`` the script of a page that holds it.
    Vega-Lite puts titles into expressions, in which a backslash could escape the closing quote: it becomes a slash.

    Every text of a chart that may hold a name or label of a user's goes through this; `channels`, `header` and `over`
    do it for theirs.
    """
    return re.sub("<(?=[/!])", "< ", one_line(text).replace("\\", "/"))


def shortened(text: str, most: int) -> str:
    """Shorten a name to so many characters, with an ellipsis in place of its middle.

    Example:
        >>> shortened("a_very_long_name_of_an_arm", 11)
        'a_ver…n_arm'
    """
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def header(title: str, *lines: str, width: int = LINE) -> alt.TitleParams:
    """Write a chart's title, with smaller lines below it; long ones are wrapped to so many characters."""
    wrapped = [part for line in lines for part in textwrap.wrap(chart_text(line), width)]
    return alt.TitleParams(shortened(chart_text(title), width), subtitle=wrapped)


def over(rows: Rows, chart: alt.Chart) -> alt.Chart:
    """Put rows into a chart, as JSON text.

    Altair would validate and copy lists of rows again and again (seconds, at a few thousand rows), and refuse data
    frames above 5000 rows.
    """
    safe = [{key: chart_text(each) if isinstance(each, str) else each for key, each in row.items()} for row in rows]
    data = alt.InlineData(values=json.dumps(safe, allow_nan=False), format=alt.JsonDataFormat(type="json"))
    return chart.properties(data=data)
