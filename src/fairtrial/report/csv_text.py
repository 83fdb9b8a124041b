"""CSV that no spreadsheet runs: a text that would be read as a formula is marked as text."""

import csv
import re
from collections.abc import Iterable, Sequence
from io import StringIO

from fairtrial.text import visible

#: What begins a formula in a spreadsheet, which skips what is blank before it, and has full-width forms of the signs.
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table: texts without control characters, with an apostrophe before what would be a formula.

    Numbers, and texts that are numbers, stay as they are. JSON and Parquet have every text unchanged.

    Example:
        >>> print(csv_text(["arm", "change"], [["=cmd()", -0.5]]), end="")
        arm,change
        '=cmd(),-0.5
    """
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in (head, *rows))
    return out.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    formula = _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{visible(value)}" if formula else visible(value)
