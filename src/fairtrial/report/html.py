"""A grid as HTML, for notebooks and pages: no style but its own, readable on light and on dark ground."""

import re
from html import escape

from fairtrial.report.grid import LEFT, Cell, Column, Grid, rows

#: Words that a reader must not miss, in colors that stand out from white and from black.
_COLORS = {
    "better": "#2e9e5b",
    "supported": "#2e9e5b",
    "worse": "#d9534f",
    "contradicted": "#d9534f",
    "refused": "#d9534f",
    "diverged": "#d9534f",
    "failed": "#d9534f",
    "equivalent": "#2b8fb3",
    "undecided": "#b8860b",
}
_WORD = re.compile(rf"(?<= )(?:{'|'.join(_COLORS)})\b")
_LINE = "border-bottom: 1px solid rgba(128, 128, 128, 0.4)"


def html(grid: Grid) -> str:
    """Write a table with its title above and its sentences around it; every name and text is escaped."""
    lead = "".join(f"<li>{_sentence(line)}</li>" for line in grid.lead)
    notes = "".join(f"<div>{escape(note)}</div>" for note in grid.notes if note)
    parts = [
        f"<div><strong>{escape(grid.label)}</strong></div>",
        f'<ul style="margin: 0.3em 0; padding-left: 1.2em">{lead}</ul>' if lead else "",
        _table(grid) if grid.columns else "",
        f'<div style="opacity: 0.75; font-size: 0.85em; margin-top: 0.4em; max-width: 60em">{notes}</div>',
    ]
    return f'<div style="margin: 0.5em 0">{"".join(parts)}</div>\n'


def _table(grid: Grid) -> str:
    head = "".join(_tag("th", column, "<br>".join(map(escape, column.title))) for column in grid.columns)
    lines = [zip(grid.columns, row, strict=True) for row in rows(grid.columns)]
    cells = ["".join(_tag("td", column, _cell(column, cell)) for column, cell in line) for line in lines]
    body = "".join(f"<tr>{line}</tr>" for line in cells)
    style = "border-collapse: collapse; background: transparent; margin: 0.3em 0"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _tag(name: str, column: Column, content: str) -> str:
    """Write a cell; words stand to the left, numbers to the right."""
    side = "left" if column.key in LEFT else "right"
    line = f"; vertical-align: bottom; {_LINE}" if name == "th" else ""
    return (
        f'<{name} style="text-align: {side}; padding: 0.15em 0.6em; background: transparent{line}">{content}</{name}>'
    )


def _cell(column: Column, cell: Cell) -> str:
    text = " ".join(cell)
    word = next((word for word in re.findall(r"[a-z]+", text) if word in _COLORS), None)
    colored = column.key not in {"arm", "claim", "difference"} and word is not None
    return _colored(text, word) if colored and word else escape(text)


def _sentence(text: str) -> str:
    """Write a sentence, the first word of a verdict in color, unless it is the arm's name at the beginning."""
    first, *others = text.split("\n")
    found = _WORD.search(first)
    if found:
        head = f"{escape(first[: found.start()])}<strong>{_colored(found[0], found[0])}</strong>"
        first = f"{head}{escape(first[found.end() :])}"
    else:
        first = escape(first)
    return "<br>".join([first, *map(escape, others)])


def _colored(text: str, word: str) -> str:
    return f'<span style="color: {_COLORS[word]}">{escape(text)}</span>'
