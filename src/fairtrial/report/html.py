"""A grid as HTML: with its own styles for notebooks, or with class names for pages that have a style sheet."""

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from fairtrial.report.grid import LEFT, Column, Grid, cell_color, cells_by_row, verdict_word

#: Shades that stand out from white and from black.
_SHADES = {"green": "#2e9e5b", "red": "#d9534f", "cyan": "#2b8fb3", "yellow": "#b8860b"}
_CELL = "padding: 0.15em 0.6em; white-space: nowrap; background: transparent"
_HEAD = "; vertical-align: bottom; border-bottom: 1px solid rgba(128, 128, 128, 0.4)"
_STYLES = {
    "grid-box": "margin: 0.5em 0; overflow-x: auto",
    "lead": "margin: 0.3em 0; padding-left: 1.2em",
    "notes": "opacity: 0.75; font-size: 0.85em; margin-top: 0.4em; max-width: 60em",
    "grid": "border-collapse: collapse; background: transparent; color: inherit; font-size: inherit; margin: 0.3em 0",
    "head left": f"text-align: left; {_CELL}{_HEAD}",
    "head right": f"text-align: right; {_CELL}{_HEAD}",
    "left": f"text-align: left; {_CELL}",
    "right": f"text-align: right; {_CELL}",
    "": "",
    **{f"word {color}": f"color: {shade}" for color, shade in _SHADES.items()},
}


def html(grid: Grid, *, classes: bool = False) -> str:
    """Write a table with its title above and its sentences around it; every name and text is escaped.

    Args:
        grid: the table.
        classes: whether elements have class names, for a page with a style sheet, instead of their own styles, which
            notebooks need and a strict content security policy forbids.
    """
    return (_CLASSES if classes else _INLINE).write(grid)


@dataclass(frozen=True)
class _Writer:
    """Writes grids with one way to say how an element looks."""

    look: Callable[[str], str]
    page: bool

    def write(self, grid: Grid) -> str:
        """Write a grid; on a page, a table that is too wide can be scrolled by keyboard, too."""
        lead = "".join(f"<li>{self._sentence(line)}</li>" for line in grid.lead)
        notes = "".join(f"<div>{escape(note)}</div>" for note in grid.notes if note)
        table = self._table(grid.columns) if grid.columns else ""
        if table and self.page:
            table = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(grid.label)}">{table}</div>'
        parts = [
            *(f"<div{self.look('word red')}><strong>{escape(line)}</strong></div>" for line in grid.first),
            f"<div><strong>{escape(grid.label)}</strong></div>",
            f"<ul{self.look('lead')}>{lead}</ul>" if lead else "",
            table,
            f"<div{self.look('notes')}>{notes}</div>",
        ]
        return f"<div{self.look('grid-box')}>{''.join(parts)}</div>\n"

    def _table(self, columns: tuple[Column, ...]) -> str:
        head = "".join(self._cell("th", column, "<br>".join(map(escape, column.title))) for column in columns)
        body = ""
        for row in cells_by_row(columns):
            cells = zip(columns, row, strict=True)
            line = (
                self._cell("td", column, self._colored(" ".join(cell), cell_color(column, cell)))
                for column, cell in cells
            )
            body += f"<tr>{''.join(line)}</tr>"
        return f"<table{self.look('grid')}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cell(self, tag: str, column: Column, content: str) -> str:
        """Align words to the left, numbers to the right."""
        side = "left" if column.key in LEFT else "right"
        scope = ' scope="col"' if tag == "th" and self.page else ""
        return f"<{tag}{scope}{self.look(f'head {side}' if tag == 'th' else side)}>{content}</{tag}>"

    def _sentence(self, text: str) -> str:
        first, *others = text.split("\n")
        start, end, color = verdict_word(first) or (0, 0, None)
        verdict = f"<strong>{self._colored(first[start:end], color)}</strong>" if color else ""
        return "<br>".join([f"{escape(first[:start])}{verdict}{escape(first[end:])}", *map(escape, others)])

    def _colored(self, text: str, color: str | None) -> str:
        return f"<span{self.look(f'word {color}')}>{escape(text)}</span>" if color else escape(text)


_CLASSES = _Writer(lambda name: f' class="{name}"', page=True)
_INLINE = _Writer(lambda name: f' style="{_STYLES[name]}"', page=False)
