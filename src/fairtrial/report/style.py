"""The look of figures: one line style for each arm, for print, photocopies and color blindness, and a plain frame."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from fairtrial.text import one_line

#: Okabe and Ito's palette (2008), black first, without its yellow, which is too pale for a line on white.
PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")

#: Dash patterns in pixels: solid, dashed, dotted, dash-dotted, long dashes.
DASHES: tuple[tuple[float, ...], ...] = ((1, 0), (6, 3), (2, 2), (8, 2, 2, 2), (12, 3))

#: Vega's names of point shapes.
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

#: An x, two strokes, as an SVG path in Vega's unit square: where a trial diverged.
CROSS = "M-1,-1L1,1M1,-1L-1,1"

#: Pixels of the width of a plot itself.
WIDTH = 420

#: Rows of a layer, as Vega-Lite takes them inline.
Rows = list[dict[str, Any]]

#: Liberation Sans comes with vl-convert, so that a figure is the same on every machine.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"


@dataclass(frozen=True)
class LineStyle:
    """One arm's look: color, strokes and gaps in pixels, and Vega's name of the point shape."""

    color: str
    dash: tuple[float, ...]
    shape: str


def line_styles(arms: Sequence[str], reference: str) -> dict[str, LineStyle]:
    """Give each arm a style of its own; the reference is solid black.

    The numbers of colors, dashes and shapes share few factors, so that two arms of the same color differ in dash and
    shape; no two of the first 210 arms look the same.
    """
    order = [reference, *(arm for arm in arms if arm != reference)]
    number = {arm: order.index(arm) for arm in arms}
    return {
        arm: LineStyle(PALETTE[at % len(PALETTE)], DASHES[at % len(DASHES)], SHAPES[at % len(SHAPES)])
        for arm, at in number.items()
    }


def frame() -> alt.Config:
    """Configure every figure: white background, thin axes, faint lines behind the data."""
    axis = {"labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8}
    title = {"anchor": "start", "fontSize": 13, "fontWeight": "bold", "offset": 12}
    return alt.Config(
        background="white",
        font=FONT,
        padding=8,
        view={"stroke": None},
        axis=axis | {"gridColor": "#e6e6e6", "domainColor": "#333333", "tickColor": "#333333"},
        title=title | {"subtitleFontSize": 10.5, "subtitleColor": "#444444", "subtitlePadding": 4},
    )


def channels(styles: Mapping[str, LineStyle]) -> tuple[alt.Color, alt.StrokeDash, alt.Shape]:
    """Encode the arm as color, dash and shape, without Vega's legend."""
    arms, looks = list(map(chart_text, styles)), list(styles.values())
    return (
        alt.Color("arm:N", scale=alt.Scale(domain=arms, range=[look.color for look in looks]), legend=None),
        alt.StrokeDash("arm:N", scale=alt.Scale(domain=arms, range=[list(look.dash) for look in looks]), legend=None),
        alt.Shape("arm:N", scale=alt.Scale(domain=arms, range=[look.shape for look in looks]), legend=None),
    )


def chart_text(text: str) -> str:
    """Make a text safe within a chart: no control characters, no end of a script, no backslash.

    A control character ends the process that renders the chart, and ``</`` the script of a page that holds it.
    Vega-Lite puts titles into expressions, in which a backslash could escape the closing quote: it becomes a slash.

    Every text of a chart that may hold a name or label of a user's goes through this; `channels`, `header` and `over`
    do it for theirs.
    """
    return re.sub("<(?=[/!])", "< ", one_line(text).replace("\\", "/"))


def header(title: str, *lines: str) -> alt.TitleParams:
    """Write a chart's title, with smaller lines below it."""
    return alt.TitleParams(chart_text(title), subtitle=[chart_text(line) for line in lines])


def over(rows: Rows, chart: alt.Chart) -> alt.Chart:
    """Put rows into a chart, as JSON text.

    Altair would validate and copy lists of rows again and again (seconds, at a few thousand rows), and refuse data
    frames above 5000 rows.
    """
    safe = [{key: chart_text(each) if isinstance(each, str) else each for key, each in row.items()} for row in rows]
    data = alt.InlineData(values=json.dumps(safe, allow_nan=False), format=alt.JsonDataFormat(type="json"))
    return chart.properties(data=data)
