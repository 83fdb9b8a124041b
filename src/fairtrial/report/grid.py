"""The paper's Table 1 as a grid of cells, before any format: what text, Markdown and LaTeX have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from fairtrial.report.settings import NOTHING, adam_columns, differing_columns
from fairtrial.report.words import label
from fairtrial.spec import Measure
from fairtrial.stats.summary import ArmSummary, SeedSpread, StudySummary

#: Columns of words, which stand to the left of their place.
LEFT = frozenset({"arm", "claim", "finding", "verdict"})

#: What a cell says, in parts that stand side by side, or one above the other where room is scarce.
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: ``"arm"``, ``"seeds"``, a metric's name or a setting's key.
        title: the head, in lines.
        cells: one an arm.
        setting: whether it shows what was set, not what was measured.
    """

    key: str
    title: tuple[str, ...]
    cells: tuple[Cell, ...]
    setting: bool = False


@dataclass(frozen=True)
class Grid:
    """A table for people.

    Attributes:
        label: the study's name with the head of its hash, and what the table is about.
        columns: what the rows are of comes first; none for sentences alone.
        notes: sentences that belong below the table; an empty one parts those that explain it from what must be known.
        lead: sentences that belong above it, each with what belongs to it on lines of its own.
    """

    label: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    lead: tuple[str, ...] = ()


def rows(columns: Sequence[Column]) -> list[tuple[Cell, ...]]:
    """The cells of columns by row, one row an arm."""
    return list(zip(*(column.cells for column in columns), strict=True))


def grid(summary: StudySummary) -> Grid:
    """Lay a summary out as the paper's Table 1.

    The columns are the arm, Adam's three settings if any arm has them, the other settings in which arms differ, the
    results, and the seeds finished of those planned, unless every arm has all of them. A star marks the reference.
    """
    names = [arm.arm + (" *" if arm.arm == summary.reference else "") for arm in summary.arms]
    columns = [Column("arm", ("arm",), tuple((name,) for name in names))]
    adam = [column for column in adam_columns(summary) if any(value is not None for value in column.values)]
    columns += [
        Column(setting.key, (setting.title,), tuple((cell,) for cell in setting.cells), setting=True)
        for setting in (*adam, *differing_columns(summary))
    ]
    shown = [each for each in summary.measures if each.column]
    columns += [Column(each.name, each.head, _results(summary, each, first=each is shown[0])) for each in shown]
    if any(arm.finished < summary.seeds for arm in summary.arms):
        columns.append(Column("seeds", ("seeds",), tuple(_seeds(arm, summary.seeds) for arm in summary.arms)))
    return Grid(label(summary), tuple(columns), _notes(summary))


def _results(summary: StudySummary, shown: Measure, *, first: bool) -> tuple[Cell, ...]:
    """Write one measure's mean and spread for every arm; what happened instead stands in the first result."""
    cells = []
    for arm in summary.arms:
        spread = arm.metrics[shown.name]
        if spread.mean is not None:
            cells.append(_spread(spread, shown))
        elif first and not arm.finished:
            cells.append(_not_finished(arm) or ("not run",))
        else:
            cells.append((NOTHING,))
    return tuple(cells)


def _spread(spread: SeedSpread, shown: Measure) -> Cell:
    """Write mean and standard deviation, and of how many if some finished trials lack the metric."""
    numbers = [shown.unit.number(value) for value in (spread.mean, spread.sd) if value is not None]
    count = () if spread.count == len(spread.values) else (f"(n={spread.count})",)
    return numbers[0], *(f"± {sd}" for sd in numbers[1:]), *count


def _seeds(arm: ArmSummary, planned: int) -> Cell:
    """Write seeds finished of those planned; with what became of the rest, unless the first result says so."""
    done = f"{arm.finished}/{planned}"
    beside = _not_finished(arm) if arm.finished else ()
    return (f"{done},", *beside) if beside else (done,)


def _not_finished(arm: ArmSummary) -> Cell:
    """Count the trials that did not finish: ``("2 diverged,", "1 failed")``; empty if all did."""
    counts = {"diverged": arm.diverged, "failed": arm.failed, "unfinished": arm.interrupted}
    parts = [f"{count} {outcome}" for outcome, count in counts.items() if count]
    return tuple(f"{part}," for part in parts[:-1]) + tuple(parts[-1:])


def _notes(summary: StudySummary) -> tuple[str, ...]:
    notes = [
        "* reference.",
        *(each.note for each in summary.measures if each.note and each.column),
    ]
    if summary.seeds == 1:
        notes.append("One run an arm: nothing here shows how far results spread from seed to seed.")
    else:
        complete = all(arm.finished == summary.seeds for arm in summary.arms)
        at_most = "at most " if summary.min_seeds < summary.seeds else ""
        finished = f"the finished of {at_most}{summary.seeds} seeds"
        seeds = f"{summary.seeds} of {summary.seeds} seeds" if complete else finished
        notes.append(f"Mean ± sample standard deviation over {seeds} an arm.")
    if any(arm.diverged or arm.failed for arm in summary.arms):
        notes.append("Diverged and failed trials enter no mean.")
    if any(arm.interrupted for arm in summary.arms):
        notes.append("Unfinished: interrupted, or still running.")
    return tuple(notes)
