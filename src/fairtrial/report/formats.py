"""The formats that documents and other programs take: Markdown, LaTeX, CSV, and what JSON is made of."""

import csv
import json
import re
from collections.abc import Sequence
from io import StringIO
from typing import Any

from fairtrial.report.grid import LEFT, Column, Grid, rows
from fairtrial.report.settings import adam_columns, differing_columns
from fairtrial.stats.summary import ArmSummary, SeedSpread, StudySummary

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "<": "$<$",  # which the fonts that LaTeX starts with don't have in text
        ">": "$>$",
        "|": "$|$",
        **{char: f"\\{char}" for char in "&%$#_{}"},
    }
)
_LATEX_TITLES = {"beta1": r"$\beta_1$", "beta2": r"$\beta_2$", "eps": r"$\epsilon$"}


def markdown(table: Grid) -> str:
    """Write a pipe table, as GitHub and most others read it, with the sentences as lists around it."""
    lines = [[" ".join(column.title) for column in table.columns]]
    lines.append([":--" if column.key in LEFT else "--:" for column in table.columns])
    lines += [[_markdown(" ".join(cell)) for cell in row] for row in rows(table.columns)]
    grid_lines = [f"| {' | '.join(line)} |" for line in lines] if table.columns else []
    lead, notes = (
        [f"- {_markdown(' '.join(line.split()))}" for line in part if line] for part in (table.lead, table.notes)
    )
    above = [f"**{_markdown(table.label)}**", ""] if lead or not grid_lines else []
    return (
        "\n".join([*above, *lead, *([""] if lead else []), *grid_lines, *([""] if grid_lines else []), *notes]) + "\n"
    )


def latex(table: Grid) -> str:
    """Write a floating table that needs the package booktabs and nothing else; sentences go into its caption."""
    aligned = "".join("l" if column.key in LEFT else "r" for column in table.columns)
    head = " & ".join(_latex_title(column) for column in table.columns)
    body = [
        " & ".join(_latex_cell(column, cell) for column, cell in zip(table.columns, row, strict=True))
        for row in rows(table.columns)
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_latex(_prose([table.label, *table.lead, *table.notes]))}}}",
            rf"  \begin{{tabular}}{{{aligned}}}",
            r"    \toprule",
            rf"    {head} \\",
            r"    \midrule",
            *(rf"    {line} \\" for line in body),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def comma_separated(summary: StudySummary) -> str:
    """Write one row an arm: accuracies as fractions, an empty field where there is nothing.

    The columns arm to interrupted are always there, then come mean and standard deviation of each metric, then the
    other settings in which the arms differ, named by their place.
    """
    settings = adam_columns(summary)
    others = differing_columns(summary)
    counts = ("seeds", "finished", "diverged", "failed", "interrupted")
    metrics = [f"{name}_{part}" for name in summary.arms[0].metrics for part in ("mean", "sd")]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", *(c.key for c in settings), *counts, *metrics, *(c.key for c in others)])
    for index, arm in enumerate(summary.arms):
        spreads = [number for spread in arm.metrics.values() for number in (spread.mean, spread.sd)]
        ended = [arm.finished, arm.diverged, arm.failed, arm.interrupted]
        own, other = ([_field(column.values[index]) for column in part] for part in (settings, others))
        writer.writerow([arm.arm, *own, summary.seeds, *ended, *spreads, *other])
    return out.getvalue()


def summary_table(summary: StudySummary) -> dict[str, Any]:
    """Lay a summary out as programs read it."""
    return {
        "study": summary.study,
        "hash": summary.hash,
        "reference": summary.reference,
        "planned_seeds": summary.seeds,
        "arms": [_arm(arm) for arm in summary.arms],
    }


def _arm(arm: ArmSummary) -> dict[str, Any]:
    return {
        "arm": arm.arm,
        "settings": arm.settings,
        "seeds": arm.seeds,
        "finished": arm.finished,
        "diverged": arm.diverged,
        "failed": arm.failed,
        "interrupted": arm.interrupted,
        "outcomes": arm.outcomes,
        **{name: _spread(spread) for name, spread in arm.metrics.items()},
    }


def _spread(spread: SeedSpread) -> dict[str, Any]:
    return {"mean": spread.mean, "sd": spread.sd, "values": spread.values}


def _field(value: object) -> object:
    """Leave numbers and words to the CSV writer; write lists and truth values as JSON does."""
    return json.dumps(value) if isinstance(value, list | bool) else value


def _markdown(text: str) -> str:
    return re.sub(r"([\\|*_])", r"\\\1", text)


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def _prose(sentences: Sequence[str]) -> str:
    """Sentences one after another, each with its stop."""
    lines = [" ".join(sentence.split()) for sentence in sentences if sentence]
    return " ".join(line if line.endswith((".", "!", "?")) else f"{line}." for line in lines)


def _latex_title(column: Column) -> str:
    lines = r" \\ ".join(_latex(line) for line in column.title)
    return _LATEX_TITLES.get(column.key) or (rf"\shortstack{{{lines}}}" if len(column.title) > 1 else lines)


def _latex_cell(column: Column, cell: tuple[str, ...]) -> str:
    """Typeset a cell; a setting such as ``1e-8`` becomes a power of ten, a lone hyphen a dash."""
    text = " ".join(cell)
    if column.setting and (power := re.fullmatch(r"([\d.]+)e(-?\d+)", text)):
        mantissa = "" if power[1] == "1" else rf"{power[1]} \times "
        return f"${mantissa}10^{{{power[2]}}}$"
    return "--" if text == "-" else _latex(text)
