"""A grid on the screen: one table where it fits, otherwise several that each begin with the first column."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from io import StringIO
from itertools import product

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Span, Text

from fairtrial.report.grid import LEFT, Column, Grid, cell_color, cells_by_row, mapped, verdict_word
from fairtrial.streams import encodable


def screen_text(grid: Grid, width: int, color: bool, encoding: str = "utf-8") -> str:
    """Render with Rich; without color there are no escape codes and no trailing blanks.

    What the screen's encoding lacks is replaced before the columns are aligned.
    """
    grid = mapped(grid, partial(encodable, encoding=encoding))
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
    for sentence in grid.first:
        console.print(Text(sentence, style="bold red"))
    console.print(Text(grid.label, style="bold"))
    for sentence in grid.lead:
        console.print(*_hanging(sentence, console), sep="\n")
    for number, table in enumerate(_fitting(grid.columns, console) if grid.columns else []):
        # Lines that are laid out already are not wrapped: that is slow for thousands.
        console.print(*([""] if grid.lead or number else []), table, sep="\n", no_wrap=isinstance(table, Text))
    console.print("", Text("\n".join(grid.notes), style="dim"), sep="\n")
    lines = out.getvalue().splitlines()
    return "\n".join(lines if color else [line.rstrip() for line in lines]).strip("\n") + "\n"


#: Rows from which a table is laid out here: Rich takes a millisecond a row.
LONG = 200


def _fitting(columns: Sequence[Column], console: Console) -> list[Table | Text]:
    """Choose the most open layout that fits the screen; a number broken at the edge could be read as another.

    That is one table with each cell on one line, or with the spread below the mean, or else several tables that each
    begin with the arm: settings and results apart, and those halved if need be.
    """
    unlimited = console.options.update(max_width=sys.maxsize)
    for stacked, gap in product((False, True), (2, 1)):
        if len(columns[0].cells) >= LONG and (lines := _lines(columns, console.width, stacked=stacked, gap=gap)):
            return [lines]
        table = _table(columns, stacked=stacked, gap=gap)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            return [table]
    first, *others = columns
    if len(others) < 2:
        return [table]
    settings = sum(column.setting for column in others)
    cut = settings if 0 < settings < len(others) else len(others) // 2
    return [*_fitting([first, *others[:cut]], console), *_fitting([first, *others[cut:]], console)]


def _table(columns: Sequence[Column], *, stacked: bool, gap: int) -> Table:
    """Build a table with ``gap`` blanks between columns, of which Rich's box has one."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0), pad_edge=False, header_style="bold")
    for column in columns:
        head, words = Text("\n".join(column.title)), column.key in LEFT
        table.add_column(head, justify="left" if words else "right", overflow="fold", vertical="top")
    between = "\n" if stacked else " "
    for row in cells_by_row(columns):
        cells = zip(columns, row, strict=True)
        table.add_row(*(Text(between.join(cell), cell_color(column, cell) or "") for column, cell in cells))
    return table


def _lines(columns: Sequence[Column], width: int, *, stacked: bool, gap: int) -> Text | None:
    """Lay a table out in lines as `_table` does; None if it does not fit."""
    between = "\n" if stacked else " "
    cells = [[between.join(cell).split("\n") for cell in column.cells] for column in columns]
    pairs = [*zip(columns, cells, strict=True)]
    widths = [max(cell_len(line) for lines in (column.title, *rows) for line in lines) for column, rows in pairs]
    total = sum(widths) + gap * (len(widths) - 1)
    if total > width:
        return None

    pieces, spans, at = list[str](), list[Span](), 0

    def add(row: Sequence[Sequence[str]], styles: Sequence[str], *, from_top: bool = True) -> None:
        nonlocal at
        height = max(map(len, row))
        for index in range(height):
            for number, (lines, style) in enumerate(zip(row, styles, strict=True)):
                line = index if from_top else index - height + len(lines)
                text = lines[line] if 0 <= line < len(lines) else ""
                blanks = " " * (widths[number] - cell_len(text))
                padded = text + blanks if columns[number].key in LEFT else blanks + text
                pieces.extend((padded, " " * gap))
                if style:
                    spans.append(Span(at, at + len(padded), style))
                at += len(padded) + gap
            pieces[-1] = "\n"
            at += 1 - gap

    add([column.title for column in columns], ["bold"] * len(columns), from_top=False)
    pieces.append("─" * total + "\n")
    at += total + 1
    for number, row in enumerate(zip(*cells, strict=True)):
        add(row, [cell_color(column, column.cells[number]) or "" for column in columns])
    return Text("".join(pieces[:-1]), spans=spans, no_wrap=True)


def _hanging(sentence: str, console: Console) -> Iterator[Text]:
    """Break a sentence into lines that fit, those after the first indented further; color its verdict."""
    first, *others = sentence.split("\n")
    head = Text(first)
    if found := verdict_word(first):
        start, end, color = found
        head.stylize(f"bold {color}", start, end)
    lines = [head] if len(head) <= console.width - 2 else list(head.wrap(console, console.width - 6))
    lines += [line for text in others for line in Text(text).wrap(console, console.width - 6)]
    for number, line in enumerate(lines):
        yield Text("      " if number else "  ").append_text(line)
