"""Small plots side by side, one for each arm: how many are drawn, how large, and what is said of the others."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import altair as alt

from fairtrial.report.chart_options import Size
from fairtrial.report.style import LINE, chart_text, frame, shortened
from fairtrial.report.words import count

#: So many plots are drawn; of so many or more they are smaller.
MOST, MANY = 24, 13

#: Pixels of a small plot's width and height, of few, of up to a dozen, and of many.
SIZES = ((280, 200), (200, 140), (150, 110))

#: Labels of a vertical axis so many pixels from its ends are kept within it: one that stands out at the top lifts its
#: panel's title above those beside it.
FLUSH = 7

Item = TypeVar("Item")


def chosen(items: Sequence[Item], first: Item | None = None) -> list[Item]:
    """The items that are drawn: all, or the first ones, with the reference's among them.

    Example:
        >>> len(chosen(range(30))), chosen(range(3))
        (24, [0, 1, 2])
    """
    shown = list(items[:MOST])
    if first is not None and first not in shown:
        shown[-1] = first
    return shown


def left_out(items: Sequence[object]) -> Iterator[str]:
    """Say that not all arms are drawn."""
    if len(items) > MOST:
        yield f"Not drawn: {count(len(items) - MOST, 'more arm')}; choose them with --arm."


def columns(number: int) -> int:
    """How many plots stand side by side.

    Example:
        >>> [columns(number) for number in (1, 2, 4, 5, 12, 24)]
        [1, 2, 2, 3, 4, 6]
    """
    return next((side for limit, side in ((1, 1), (4, 2), (6, 3), (MANY - 1, 4)) if number <= limit), 6)


def size_of(number: int, size: Size | None) -> Size:
    """Pixels of each of so many plots."""
    return size or SIZES[0 if number <= 4 else 1 if number < MANY else 2]


def line_length(number: int) -> int:
    """Characters that fit in a line above so many plots."""
    width, _ = size_of(number, None)
    return max(70, min(LINE + 40, math.floor(columns(number) * (width + 30) / 5.3)))


def panel(layers: Sequence[alt.Chart], name: str, size: Size, more: str = "") -> alt.LayerChart:
    """One plot under its arm's name, with something more about it in a second line."""
    most = max(14, size[0] // 6)
    lines = [chart_text(shortened(more, most + 4))] if more else []
    head = alt.TitleParams(
        chart_text(shortened(name, most)), subtitle=lines, fontSize=10.5, subtitleFontSize=10, offset=4, anchor="start"
    )
    return alt.LayerChart(layer=list(layers), width=size[0], height=size[1], title=head)


def grid(panels: Sequence[alt.LayerChart]) -> alt.ConcatChart:
    """All plots of a chart."""
    return alt.ConcatChart(concat=list(panels), columns=columns(len(panels)), spacing=14, config=frame())
