"""The grid of cells that every format writes, and a study's table, the paper's Table 1, as one."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from fairtrial.report.settings import adam_columns, differing_columns
from fairtrial.report.words import NOTHING, count
from fairtrial.spec import Measure
from fairtrial.stats.claims import StudyClaims
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.paired import BROKEN, MISSED, OUTLYING, UNLEARNED, fate
from fairtrial.stats.summary import ArmSummary, SeedSpread, StudySummary
from fairtrial.text import one_line, visible

#: Columns of words, which are aligned to the left.
LEFT = frozenset({"arm", "claim", "finding", "verdict"})

#: Words that a reader must not miss, and their colors.
COLORS = {
    **dict.fromkeys(("better", "supported", "non-inferior"), "green"),
    **dict.fromkeys(("worse", "contradicted", "refused", "diverged", "failed"), "red"),
    "equivalent": "cyan",
    "undecided": "yellow",
}
_WORD = re.compile(rf" ({'|'.join(COLORS)})\b")

#: The parts of a cell: side by side, or one above the other where space is scarce.
Cell = tuple[str, ...]
Row = TypeVar("Row")


@dataclass(frozen=True)
class Column:
    """One column: its key, its head in lines, and a cell for each row."""

    key: str
    title: tuple[str, ...]
    cells: tuple[Cell, ...]
    setting: bool = False  # what was set, not what was measured


@dataclass(frozen=True)
class Grid:
    """A table for people, with sentences around it."""

    label: str  # the study's name with the head of its hash, and what the table shows
    columns: tuple[Column, ...]  # the first names the rows; none for sentences alone
    notes: tuple[str, ...]  # below the table; an empty one separates explanations from caveats
    lead: tuple[str, ...] = ()  # above the table, each with its details on further lines
    first: tuple[str, ...] = ()  # before all else: what can make a verdict false


def printable(grid: Grid) -> Grid:
    """Copy a grid with every control character in it written as an escape; details keep their line breaks."""
    return replace(mapped(grid, one_line), lead=tuple(map(visible, grid.lead)))


def mapped(grid: Grid, write: Callable[[str], str]) -> Grid:
    """Copy a grid with each of its texts written by a function."""

    def lines(texts: Iterable[str]) -> Cell:
        return tuple(map(write, texts))

    columns = (replace(one, title=lines(one.title), cells=tuple(map(lines, one.cells))) for one in grid.columns)
    return Grid(write(grid.label), tuple(columns), lines(grid.notes), lines(grid.lead), lines(grid.first))


def label(data: StudySummary | StudyVerdict | StudyClaims) -> str:
    """Name the study of some results, with the head of its hash: ``paper@1f2e3d4c``."""
    return f"{data.study}@{data.hash[:8]}"


def columns(rows: Sequence[Row], table: Iterable[tuple[str, str, Callable[[Row], str | Cell]]]) -> tuple[Column, ...]:
    """Make a column of each key, head (a line break starts a new line) and function that writes a row's cell."""
    written = [(key, head, [write(row) for row in rows]) for key, head, write in table]
    return tuple(
        Column(key, tuple(head.splitlines()), tuple((cell,) if isinstance(cell, str) else cell for cell in cells))
        for key, head, cells in written
    )


def cells_by_row(columns: Sequence[Column]) -> list[tuple[Cell, ...]]:
    """Transpose columns."""
    return list(zip(*(column.cells for column in columns), strict=True))


def cell_color(column: Column, cell: Cell) -> str | None:
    """Color of a cell: that of the first word in `COLORS`, unless the cell names an arm or a claim."""
    words = (
        re.findall(r"[a-z]+(?:-[a-z]+)?", " ".join(cell)) if column.key not in {"arm", "claim", "difference"} else []
    )
    return next((COLORS[word] for word in words if word in COLORS), None)


def verdict_word(sentence: str) -> tuple[int, int, str] | None:
    """Start, end and color of the first word in `COLORS`; the first word of a sentence is an arm's name."""
    found = _WORD.search(sentence)
    return (*found.span(1), COLORS[found[1]]) if found else None


def grid(summary: StudySummary) -> Grid:
    """Lay a summary out as the paper's Table 1; a star marks the reference.

    The columns are the arm, Adam's three settings if any arm has them, the other settings in which arms differ, the
    results, and the finished of the planned seeds, unless every arm has finished all.
    """
    settings = [column for column in adam_columns(summary) if any(value is not None for value in column.values)]
    settings += differing_columns(summary)
    shown = [each for each in summary.measures if each.column]
    cells = [[_result(arm, each, first=each is shown[0]) for arm in summary.arms] for each in shown]
    incomplete = any(arm.finished < summary.seeds or _lost(arm) for arm in summary.arms)
    star = {summary.reference: " *"}
    laid_out = (
        *columns(summary.arms, [("arm", "arm", lambda arm: arm.arm + star.get(arm.arm, ""))]),
        *(Column(each.key, (each.title,), tuple((cell,) for cell in each.cells), setting=True) for each in settings),
        *(Column(each.name, each.head, tuple(column)) for each, column in zip(shown, cells, strict=True)),
        *(columns(summary.arms, [("seeds", "seeds", lambda arm: _seeds(arm, summary.seeds))]) if incomplete else ()),
    )
    return Grid(label(summary), laid_out, _notes(summary), first=summary.alerts)


def _result(arm: ArmSummary, measure: Measure, *, first: bool) -> Cell:
    """Write a mean and its spread; the first result of an arm without any says what happened instead."""
    spread = arm.metrics[measure.name]
    if spread.mean is not None:
        return _spread(spread, measure)
    return (_lost(arm) or ("not run",)) if first and not arm.finished else (NOTHING,)


def _spread(spread: SeedSpread, measure: Measure) -> Cell:
    """Write mean and standard deviation, and of how many if some finished trials lack the metric."""
    numbers = [measure.unit.number(value) for value in (spread.mean, spread.sd) if value is not None]
    count = () if spread.count == len(spread.values) else (f"(n={spread.count})",)
    return numbers[0], *(f"± {sd}" for sd in numbers[1:]), *count


def _seeds(arm: ArmSummary, planned: int) -> Cell:
    """Write finished of planned seeds, and what happened to the rest unless the first result says so."""
    others = _lost(arm) if arm.finished else ()
    return f"{arm.finished}/{planned}{',' if others else ''}", *others


def _lost(arm: ArmSummary) -> Cell:
    """Count the trials without a comparable number: ``("2 diverged,", "1 failed")``; empty if all have one."""
    counts = {"diverged": arm.diverged, "failed": arm.failed, UNLEARNED: arm.not_learned, OUTLYING: arm.fell_behind}
    counts |= {BROKEN: arm.not_finite, fate(MISSED): arm.missed, "unfinished": arm.interrupted}
    parts = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    return tuple(f"{part}," for part in parts[:-1]) + tuple(parts[-1:])


def _notes(summary: StudySummary) -> tuple[str, ...]:
    notes = ["* reference.", *(each.note for each in summary.measures if each.note and each.column)]
    if summary.seeds == 1:
        notes.append("One run an arm: nothing here shows how far results spread from seed to seed.")
    else:
        complete = all(arm.finished == summary.seeds for arm in summary.arms)
        at_most = "at most " if summary.min_seeds < summary.seeds else ""
        of = f"{summary.seeds} of " if complete else f"the finished of {at_most}"
        notes.append(f"Mean ± sample standard deviation over {of}{summary.seeds} seeds an arm.")
    if any(arm.diverged or arm.failed for arm in summary.arms):
        notes.append("Diverged and failed trials enter no mean.")
    if any(arm.not_learned for arm in summary.arms):
        notes.append("Did not learn: below the study's floor; in no mean.")
    if any(arm.fell_behind for arm in summary.arms):
        notes.append("Fell behind: far behind the arm's other runs; in no mean.")
    if any(arm.not_finite for arm in summary.arms):
        notes.append(
            "Not finite: finished, but the study's measure is NaN, infinite or beyond 1e99; it counts against the arm."
        )
    if any(arm.interrupted for arm in summary.arms):
        notes.append("Unfinished: interrupted, or still running.")
    if summary.helped and any(each.name == "seconds" for each in summary.measures):
        notes.append(
            f"Times: idle cores helped with part of {count(summary.helped, 'trial')}, which took less time for it."
        )
    return tuple(notes)
