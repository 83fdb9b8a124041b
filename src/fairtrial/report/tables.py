"""A study's results as a table: for the screen, for a paper, for other programs."""

from typing import Literal

from fairtrial.errors import ReportError
from fairtrial.report.formats import WRITERS
from fairtrial.report.grid import grid
from fairtrial.report.screen import screen_text
from fairtrial.stats.summary import StudySummary

Format = Literal["text", "markdown", "csv", "latex", "json"]

#: Every format of `table`.
FORMATS: tuple[str, ...] = ("text", *WRITERS)


def table(summary: StudySummary, format: Format = "text", *, width: int = 80, color: bool = False) -> str:  # noqa: A002
    """Write a summary as the paper's Table 1.

    Args:
        summary: what `fairtrial.stats.summary.summarise` returned.
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
        return screen_text(grid(summary), width, color)
    if format not in WRITERS:
        raise ReportError(f'format = "{format}": must be one of {", ".join(FORMATS)}')
    return WRITERS[format](summary)
