"""A study's results as a table: for the screen, for a paper, for other programs."""

import sys
from collections.abc import Sequence
from io import StringIO
from itertools import product
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fairtrial.errors import ReportError
from fairtrial.evidence.summary import StudySummary
from fairtrial.report.formats import WRITERS
from fairtrial.report.grid import Cell, Column, Grid, grid, rows

Format = Literal["text", "markdown", "csv", "latex", "json"]

#: Every format of `table`.
FORMATS: tuple[str, ...] = ("text", *WRITERS)


def table(summary: StudySummary, format: Format = "text", *, width: int = 80, color: bool = False) -> str:  # noqa: A002
    """Write a summary as the paper's Table 1.

    Args:
        summary: what `fairtrial.evidence.summary.summarise` returned.
        format: ``"text"`` for the screen, ``"markdown"`` (a pipe table), ``"latex"`` (a table of the booktabs
            package), ``"csv"`` (one row an arm) or ``"json"``. The first three show accuracies in percent, the
            last two as fractions.
        width: columns of the screen; for text alone.
        color: whether to use a terminal's colours; for text alone.

    Returns:
        The table, with one line break at its end.

    Raises:
        ReportError: there is no such format.
    """
    if format == "text":
        return _text(grid(summary), width, color)
    if format not in WRITERS:
        raise ReportError(f'format = "{format}": must be one of {", ".join(FORMATS)}')
    return WRITERS[format](summary)


def _text(grid: Grid, width: int, color: bool) -> str:
    """Render with Rich; without colour there is no escape code and no blank at the end of a line."""
    out = StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=color,
        force_jupyter=False,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        legacy_windows=False,
    )
    console.print(Text(grid.label, style="bold"))
    for number, part in enumerate(_fitting(grid.columns, console)):
        console.print(*([""] if number else []), part, sep="\n")
    console.print("", Text("\n".join(grid.notes), style="dim"), sep="\n")
    lines = out.getvalue().splitlines()
    return "\n".join(lines if color else [line.rstrip() for line in lines]).strip("\n") + "\n"


def _fitting(columns: Sequence[Column], console: Console) -> list[Table]:
    """Choose the most open layout that fits the screen; a number that breaks at the edge could be read as another.

    That is one table with its cells in one line, or with the spread below the mean, or else several tables that each
    begin with the arm: settings and results apart, and those in halves if need be.
    """
    unlimited = console.options.update(max_width=sys.maxsize)
    for stacked, gap in product((False, True), (2, 1)):
        table = _rich(columns, stacked=stacked, gap=gap)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            return [table]
    arm, *others = columns
    if len(others) < 2:
        return [table]
    settings = sum(column.setting for column in others)
    cut = settings if 0 < settings < len(others) else len(others) // 2
    return [*_fitting([arm, *others[:cut]], console), *_fitting([arm, *others[cut:]], console)]


def _rich(columns: Sequence[Column], *, stacked: bool, gap: int) -> Table:
    """Build a table with ``gap`` blanks between columns, of which Rich's box has one."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.key == "arm" else "right"
        table.add_column("\n".join(column.title), justify=justify, overflow="fold", vertical="top")
    for row in rows(columns):
        table.add_row(*(_cell(cell, stacked=stacked) for cell in row))
    return table


def _cell(cell: Cell, *, stacked: bool) -> Text:
    text = ("\n" if stacked else " ").join(cell)
    alarming = any(word in text for word in (" diverged", " failed"))
    return Text(text, style="red" if alarming else "")
