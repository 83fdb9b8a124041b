"""A grid as HTML, for notebooks and pages: with its own styles, readable on light and on dark backgrounds."""

from html import escape

from fairtrial.report.grid import LEFT, Column, Grid, cell_color, cells_by_row, verdict_word

#: Shades that stand out from white and from black.
_SHADES = {"green": "#2e9e5b", "red": "#d9534f", "cyan": "#2b8fb3", "yellow": "#b8860b"}
_CELL = "padding: 0.15em 0.6em; white-space: nowrap; background: transparent"
_HEAD = "; vertical-align: bottom; border-bottom: 1px solid rgba(128, 128, 128, 0.4)"


def html(grid: Grid) -> str:
    """Write a table with its title above and its sentences around it; every name and text is escaped."""
    lead = "".join(f"<li>{_sentence(line)}</li>" for line in grid.lead)
    notes = "".join(f"<div>{escape(note)}</div>" for note in grid.notes if note)
    parts = [
        *(f'<div style="color: {_SHADES["red"]}"><strong>{escape(line)}</strong></div>' for line in grid.first),
        f"<div><strong>{escape(grid.label)}</strong></div>",
        f'<ul style="margin: 0.3em 0; padding-left: 1.2em">{lead}</ul>' if lead else "",
        _table(grid.columns) if grid.columns else "",
        f'<div style="opacity: 0.75; font-size: 0.85em; margin-top: 0.4em; max-width: 60em">{notes}</div>',
    ]
    return f'<div style="margin: 0.5em 0; overflow-x: auto">{"".join(parts)}</div>\n'


def _table(columns: tuple[Column, ...]) -> str:
    head = "".join(_cell("th", column, "<br>".join(map(escape, column.title))) for column in columns)
    body = ""
    for row in cells_by_row(columns):
        cells = zip(columns, row, strict=True)
        line = (_cell("td", column, _colored(" ".join(cell), cell_color(column, cell))) for column, cell in cells)
        body += f"<tr>{''.join(line)}</tr>"
    style = "border-collapse: collapse; background: transparent; color: inherit; font-size: inherit; margin: 0.3em 0"
    return f'<table style="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(tag: str, column: Column, content: str) -> str:
    """Align words to the left, numbers to the right."""
    side = "left" if column.key in LEFT else "right"
    return f'<{tag} style="text-align: {side}; {_CELL}{_HEAD if tag == "th" else ""}">{content}</{tag}>'


def _sentence(text: str) -> str:
    first, *others = text.split("\n")
    start, end, color = verdict_word(first) or (0, 0, None)
    verdict = f"<strong>{_colored(first[start:end], color)}</strong>" if color else ""
    return "<br>".join([f"{escape(first[:start])}{verdict}{escape(first[end:])}", *map(escape, others)])


def _colored(text: str, color: str | None) -> str:
    return f'<span style="color: {_SHADES[color]}">{escape(text)}</span>' if color else escape(text)
