"""Markdown, LaTeX and CSV, and the table that a study's JSON is made of."""

import json
import re
import unicodedata
from collections.abc import Sequence
from html import escape
from typing import Any

from fairtrial.report.csv_text import csv_text
from fairtrial.report.grid import LEFT, Cell, Column, Grid, cells_by_row
from fairtrial.report.settings import adam_columns, differing_columns
from fairtrial.report.words import NOTHING
from fairtrial.stats.summary import ArmSummary, StudySummary

#: So many characters fit in a line of a LaTeX table at its usual size; of so many more, texts beside it are broken.
ROOMY, CLOSE = 66, 84

#: Words of more characters than this get a column that breaks lines, in tables that are wider than `CLOSE`.
LONG = 20

#: Symbols in labels, and LaTeX's commands for them in math.
_SYMBOLS = {
    "→": "to",
    "←": "leftarrow",
    "↔": "leftrightarrow",
    "⇒": "Rightarrow",
    "↑": "uparrow",
    "↓": "downarrow",
    "≤": "leq",
    "≥": "geq",
    "≠": "neq",
    "≈": "approx",
    "≪": "ll",
    "≫": "gg",
    "∝": "propto",
    "∞": "infty",
    "×": "times",
    "·": "cdot",
    "÷": "div",
    "∈": "in",
    "∇": "nabla",
    "∂": "partial",
    "∑": "sum",
    "ℓ": "ell",
}
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "−": "$-$",
        "°": r"$^{\circ}$",
        "µ": r"$\mu$",
        **{char: rf"$\{name}$" for char, name in _SYMBOLS.items()},
        **{char: f"${char}$" for char in "<>|"},  # LaTeX's default text fonts lack these
        **{char: f"\\{char}" for char in "&%$#_{}"},
    }
)
#: The Greek letters for which LaTeX has commands, for math only.
_GREEK = "α-νξπρσ-ωΓΔΘΛΞΠΣΥΦΨΩ"
_BELOW, _ABOVE = "₀-₉", "⁰¹²³⁴-⁹⁻"
_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "01234567890123456789-")
#: Digits that follow a Greek letter are its subscript: β1, β_1 and β₁ are the same.
_INDEX = rf"(?:(?:\\_)?\d+|[{_BELOW}]*)"
_MATH = re.compile(rf"[{_GREEK}]{_INDEX}[{_ABOVE}]*|[{_BELOW}]+|[{_ABOVE}]+")
_MATH_PARTS = re.compile(rf"([{_GREEK}]?)({_INDEX})([{_ABOVE}]*)")
#: A hyphen before a number that is no range, date or part of a name is a minus.
_MINUS = re.compile(r"(?<![\w.$\\-])-(\d[\d.]*)")
_LATEX_TITLES = {"beta1": r"$\beta_1$", "beta2": r"$\beta_2$", "eps": r"$\epsilon$"}


def markdown(grid: Grid) -> str:
    """Write a pipe table, as GitHub and most others read it, with the sentences as lists around it."""
    lines = [[_markdown(" ".join(column.title)) for column in grid.columns]]
    lines.append([":--" if column.key in LEFT else "--:" for column in grid.columns])
    lines += [[_markdown(" ".join(cell)) for cell in row] for row in cells_by_row(grid.columns)]
    table = [f"| {' | '.join(line)} |" for line in lines] if grid.columns else []
    lead, notes = (
        [f"- {_markdown(' '.join(line.split()))}" for line in part if line] for part in (grid.lead, grid.notes)
    )
    title = [*(f"**{_markdown(line)}**" for line in grid.first)]
    title += [f"**{_markdown(grid.label)}**"] if lead or not table else []
    return "\n\n".join("\n".join(part) for part in (title, lead, table, notes) if part) + "\n"


def latex(grid: Grid) -> str:
    """Write a floating table that needs only the package booktabs; the sentences stand below it, in small print."""
    width = sum(map(_characters, grid.columns))
    aligned = "".join(_alignment(column, width) for column in grid.columns)
    size = r"\footnotesize" if width > CLOSE else r"\small"
    rows = [
        " & ".join(_latex_cell(column, cell) for column, cell in zip(grid.columns, row, strict=True))
        for row in cells_by_row(grid.columns)
    ]
    below = _tex(_prose([*grid.lead, *grid.notes]))
    text = "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_tex(_prose([*grid.first, _latex_caption(grid)]))}}}",
            rf"  \label{{{_latex_label(grid)}}}",
            *([rf"  {size}\setlength{{\tabcolsep}}{{3pt}}"] if width > ROOMY else []),
            rf"  \begin{{tabular}}{{{aligned}}}",
            r"    \toprule",
            rf"    {' & '.join(map(_latex_title, grid.columns))} \\",
            r"    \midrule",
            *(rf"    {_row_start(row)}{row} \\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            *([rf"  \par\medskip{{\footnotesize\raggedright {below}\par}}"] if below else []),
            r"\end{table}",
            "",
        ]
    )
    foreign = "".join(dict.fromkeys(char for char in text if not _typeset(char)))
    warning = f"% pdfLaTeX can't typeset {' '.join(foreign)}: give that arm another label, or use LuaLaTeX\n"
    return warning + text if foreign else text


def comma_separated(summary: StudySummary) -> str:
    """Write one row for each arm: accuracies as fractions, an empty field where there is nothing.

    The columns are the arm, Adam's settings if any arm has them, seeds and how they ended, mean and standard deviation
    of each metric, then the other settings in which the arms differ, by their full names.
    """
    settings = [column for column in adam_columns(summary) if any(value is not None for value in column.values)]
    others = differing_columns(summary)
    counts = ("finished", "diverged", "failed", "interrupted", "not_learned", "fell_behind", "not_finite", "missed")
    metrics = [f"{name}_{part}" for name in summary.arms[0].metrics for part in ("mean", "sd")]
    head = ["arm", *(each.key for each in settings), "seeds", *counts, *metrics, *(each.key for each in others)]
    rows = []
    for index, arm in enumerate(summary.arms):
        spreads = [number for spread in arm.metrics.values() for number in (spread.mean, spread.sd)]
        own, other = ([_field(column.values[index]) for column in part] for part in (settings, others))
        rows.append([arm.arm, *own, summary.seeds, *(getattr(arm, name) for name in counts), *spreads, *other])
    return csv_text(head, rows)


def summary_table(summary: StudySummary) -> dict[str, Any]:
    """Lay a summary out as programs read it."""
    table = {key: getattr(summary, key) for key in ("study", "hash", "reference", "alerts")}
    return table | {"planned_seeds": summary.seeds, "arms": [_arm(arm) for arm in summary.arms]}


def _arm(arm: ArmSummary) -> dict[str, Any]:
    table = dict(vars(arm))
    return table | {name: vars(spread) for name, spread in table.pop("metrics").items()}


def _field(value: object) -> object:
    """Leave numbers and words to the CSV writer; write lists and truth values as JSON does."""
    return json.dumps(value) if isinstance(value, list | bool) else value


def _markdown(text: str) -> str:
    r"""Escape text for Markdown: no emphasis, code, links, images, HTML or cells of its own.

    Example:
        >>> print(_markdown("<b> ![x](y) | www.x.org"))
        &lt;b&gt; !\[x\](y) \| www\.x.org
    """
    text = re.sub(r"([\\|*_`~#${\[\]]|(?<=www)\.|:(?=//)|@(?=[\w-]+\.))", r"\\\1", text)
    return escape(text, quote=False)  # not every reader of Markdown knows \<


def _prose(sentences: Sequence[str]) -> str:
    """Join sentences, each with its full stop."""
    lines = [" ".join(sentence.split()) for sentence in sentences if sentence]
    return " ".join(line if line.endswith((".", "!", "?")) else f"{line}." for line in lines)


def _characters(column: Column) -> int:
    """How wide a column is, with what separates it from the next."""
    return 2 + max(len(text) for text in (*column.title, *(" ".join(cell) for cell in column.cells)))


def _alignment(column: Column, width: int) -> str:
    """Align words to the left and numbers to the right; long words in a wide table break."""
    words = column.key != "arm" and any(len(re.findall(r"[A-Za-z]", " ".join(cell))) > LONG for cell in column.cells)
    if width > CLOSE and words:
        return r"p{0.18\linewidth}"
    return "l" if column.key in LEFT else "r"


def _latex_caption(grid: Grid) -> str:
    """Say what the table shows; the label of a study's table names the study alone."""
    return f"{grid.label}: results of each arm" if grid.columns and ":" not in grid.label else grid.label


def _latex_label(grid: Grid) -> str:
    """Make a label for references, of the study's name and what the table shows, without the hash."""
    words = re.sub(r"@[0-9a-f]{8}", "", grid.label).lower()
    slug = re.sub(r"[^a-z0-9]+", "-", words)[:60].strip("-")
    return f"tab:{slug or 'table'}"


def _tex(text: str) -> str:
    r"""Escape text for LaTeX; Greek letters, subscripts and superscripts become math, and so does a minus.

    Example:
        >>> print(_tex("β1 = 10⁻³ & ε_max, -0.5"))
        $\beta_1$ = 10$^{-3}$ \& $\epsilon$\_max, $-0.5$
    """
    return _MATH.sub(_math, _MINUS.sub(r"$-\1$", text.translate(_LATEX)))


def _typeset(char: str) -> bool:
    """Tell whether LaTeX typesets a character in text by default: Latin letters with accents, and punctuation."""
    return ord(char) < 0x180 or char in "–—‘’“”„…•"


def _math(found: re.Match[str]) -> str:
    letter, *digits = _MATH_PARTS.findall(found[0])[0]
    written = ""
    if letter:
        _, case, _, name = unicodedata.name(letter).split()  # GREEK SMALL LETTER BETA
        name = name.replace("LAMDA", "LAMBDA")
        written = f"\\{name.lower() if case == 'SMALL' else name.capitalize()}"
    for mark, part in zip("_^", digits, strict=True):
        plain = part.translate(_DIGITS).removeprefix("\\_")
        written += f"{mark}{plain if len(plain) == 1 else f'{{{plain}}}'}" if plain else ""
    return f"${written}$"


def _latex_title(column: Column) -> str:
    lines = r" \\ ".join(_tex(line) for line in column.title)
    return _LATEX_TITLES.get(column.key) or (rf"\shortstack{{{lines}}}" if len(column.title) > 1 else lines)


def _row_start(row: str) -> str:
    """Separate a row from the command before it, which would take [...] or * for its argument."""
    return "{}" if row.startswith(("[", "*")) else ""


def _latex_cell(column: Column, cell: Cell) -> str:
    """Typeset a cell; a setting such as ``1e-8`` becomes a power of ten, a lone hyphen a dash."""
    text = " ".join(cell)
    if column.setting and (power := re.fullmatch(r"([\d.]+)e(-?\d+)", text)):
        mantissa = "" if power[1] == "1" else rf"{power[1]} \times "
        return f"${mantissa}10^{{{power[2]}}}$"
    return "--" if text == NOTHING else _tex(text)
