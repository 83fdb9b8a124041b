"""A grid on the screen: one table where it fits, or else several that each begin with the first column."""

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

from fairtrial.report.grid import LEFT, Cell, Column, Grid, rows
from fairtrial.report.words import COLORS


def screen_text(grid: Grid, width: int, color: bool) -> str:
    """Render with Rich; without color there is no escape code and no blank at the end of a line."""
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
    for sentence in grid.lead:
        for line in _hanging(sentence, console):
            console.print(line)
    blank = [""] if grid.lead and grid.columns else []
    for part in _fitting(grid.columns, console) if grid.columns else []:
        console.print(*blank, part, sep="\n")
        blank = [""]
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
    first, *others = columns
    if len(others) < 2:
        return [table]
    settings = sum(column.setting for column in others)
    cut = settings if 0 < settings < len(others) else len(others) // 2
    return [*_fitting([first, *others[:cut]], console), *_fitting([first, *others[cut:]], console)]


def _rich(columns: Sequence[Column], *, stacked: bool, gap: int) -> Table:
    """Build a table with ``gap`` blanks between columns, of which Rich's box has one."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "left" if column.key in LEFT else "right"
        table.add_column("\n".join(column.title), justify=justify, overflow="fold", vertical="top")
    for row in rows(columns):
        table.add_row(*(_cell(column, cell, stacked=stacked) for column, cell in zip(columns, row, strict=True)))
    return table


def _cell(column: Column, cell: Cell, *, stacked: bool) -> Text:
    words = " ".join(cell).replace(",", "").split() if column.key != "arm" else []
    style = next((COLORS[word] for word in words if word in COLORS), "")
    return Text(("\n" if stacked else " ").join(cell), style=style)


def _hanging(sentence: str, console: Console) -> list[Text]:
    """A sentence on lines that fit, those after the first further in."""
    first, *others = sentence.split("\n")
    head = _styled(first)
    lines = [head] if len(head) <= console.width - 2 else list(head.wrap(console, console.width - 6))
    lines += [line for text in others for line in Text(text).wrap(console, console.width - 6)]
    return [Text("  " if number == 0 else "      ").append_text(line) for number, line in enumerate(lines)]


def _styled(line: str) -> Text:
    """A sentence, its verdict in color: the first such word, unless it is an arm's name at the beginning."""
    text = Text(line)
    found = [(line.index(f" {word}"), word) for word in COLORS if f" {word}" in line]
    if found:
        start, word = min(found)
        text.stylize(f"bold {COLORS[word]}", start, start + 1 + len(word))
    return text
