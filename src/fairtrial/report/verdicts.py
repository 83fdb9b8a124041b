"""Verdicts in words and numbers: for the screen, for a paper, for other programs."""

from collections.abc import Iterator, Sequence
from typing import Any

from fairtrial.measures import measure
from fairtrial.report.grid import Column, Grid
from fairtrial.report.settings import NOTHING
from fairtrial.report.words import count, label, notes_by_arm, percent
from fairtrial.spec.metrics import Unit
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.noise import ArmNoise
from fairtrial.stats.paired import MISSED
from fairtrial.stats.verdicts import Comparison, Verdict


def verdict_grid(found: StudyVerdict, *, screen: bool = False) -> Grid:
    """Lay verdicts out: a sentence an arm, the numbers behind them, and what a reader must know.

    Args:
        found: the verdicts.
        screen: leave out of the table what the sentences above it say.
    """
    measured = measure(found.metric).unit
    title = f"{label(found)}: {measure(found.metric).label}, against {found.reference}"
    if not found.comparisons:
        return Grid(title, (), ("The study has one arm: there is nothing to compare.",))
    lead = tuple(sentence(found, row) for row in found.comparisons)
    columns = [column for column in _columns(found, measured) if not (screen and column.key == "verdict")]
    return Grid(title, tuple(columns), tuple(_notes(found)), lead)


def sentence(found: StudyVerdict, row: Comparison) -> str:
    """Write one verdict as a sentence.

    Example:
        ``low_beta2 is worse than baseline by 1.30 points (95% interval 0.41 to 2.19)``
    """
    if row.arm in found.refused:
        return f"{row.arm}: refused, its trials are not paired with those of {found.reference}"
    lost = "".join(
        f"; {'missed the target' if how == MISSED else how} in {number} of {count(found.ended[row.arm], 'trial')}"
        for how, number in found.lost.get(row.arm, {}).items()
    )
    return _finding(found, row) + lost


def _finding(found: StudyVerdict, row: Comparison) -> str:
    """What is said of an arm by the seeds that have a result."""
    if row.mean_difference is None:
        return f"{row.arm}: undecided, no seed has a result of it and {found.reference}"
    measured = measure(found.metric).unit
    mean, low, high = _in_favour(found, row)
    size = f"{measured.amount(abs(mean))} {'better' if mean > 0 else 'worse'}" if mean else "no difference"
    level = f"{percent(1 - found.alpha)} interval"
    if row.verdict in {Verdict.BETTER, Verdict.WORSE}:
        ends = measured.between(low, high) if row.verdict is Verdict.BETTER else measured.between(-high, -low)
        by = f"by {measured.amount(abs(mean))} ({level} {ends})"
        return f"{row.arm} is {row.verdict.value} than {found.reference} {by}"
    inside = "" if row.interval is None else f", {level} {measured.between(low, high)}"
    if row.verdict is Verdict.EQUIVALENT:
        margin = measured.amount(found.margin or 0.0)
        return f"{row.arm} is equivalent to {found.reference} within {margin} ({size}{inside})"
    more = (
        "" if row.more_seeds is None else f", about {row.more_seeds} more {'seed' if row.more_seeds == 1 else 'seeds'}"
    )
    return f"{row.arm}: undecided{more} ({size} so far{inside})"


def verdict_table(found: StudyVerdict, noise: Sequence[ArmNoise] = ()) -> dict[str, Any]:
    """Lay verdicts out as programs read them; ``noise`` is there only for a study that has it."""
    table: dict[str, Any] = {
        "study": found.study,
        "reference": found.reference,
        "metric": found.metric,
        "margin": found.margin,
        "alpha": found.alpha,
        "comparisons": [_comparison(row) for row in found.comparisons],
    }
    return table | ({"noise": [_noise(arm) for arm in noise]} if noise else {})


def noise_grid(found: StudyVerdict, noise: Sequence[ArmNoise]) -> Grid:
    """Lay out where each arm's noise comes from."""
    measured = measure(found.metric).unit
    parts = [(arm, arm.components) for arm in noise]
    columns = [Column("arm", ("arm",), tuple((arm.arm,) for arm in noise))]
    columns.append(Column("runs", ("runs",), tuple((str(arm.runs),) for arm in noise)))
    title = ("spread of", f"a run{f' ({measured.difference})' if measured.difference else ''}")
    spread = tuple((measured.number(split.total**0.5) if split else NOTHING,) for _, split in parts)
    columns.append(Column("spread", title, spread))
    for name, head in (("init", ("initial", "weights")), ("order", ("batch", "order")), ("rest", ("the", "rest"))):
        found_parts = [getattr(split, name) if split else None for _, split in parts]
        if any(found_parts):
            shares = [NOTHING if part is None or part.share is None else percent(part.share) for part in found_parts]
            columns.append(Column(name, head, tuple((share,) for share in shares)))
    rest = "; the rest is what two runs differ by beside both" if columns[-1].key == "rest" else ""
    lead = f"Shares of the variance between runs of one arm{rest}."
    notes = notes_by_arm({arm.arm: split.caveats for arm, split in parts if split}, ())
    notes += [f"{arm.arm}: {arm.left_out} runs left out, to keep the grid whole." for arm, _ in parts if arm.left_out]
    return Grid("Where the noise comes from", tuple(columns), tuple(notes), (lead,))


def _in_favour(found: StudyVerdict, row: Comparison) -> tuple[float, float, float]:
    """Mean and interval turned so that more is better."""
    mean = row.mean_difference or 0.0
    low, high = row.interval or (mean, mean)
    return (mean, low, high) if found.larger_is_better else (-mean, -high, -low)


def _columns(found: StudyVerdict, measured: Unit) -> Iterator[Column]:
    rows = found.comparisons
    named = f"({measured.difference})" if measured.difference else ""
    yield Column("arm", ("arm",), tuple((row.arm,) for row in rows))
    yield Column(
        "verdict", ("verdict",), tuple(("refused" if row.arm in found.refused else row.verdict.value,) for row in rows)
    )
    yield Column("seeds", ("seeds",), tuple((str(row.seeds),) for row in rows))
    means = tuple((NOTHING if row.mean_difference is None else measured.number(row.mean_difference),) for row in rows)
    yield Column("mean_difference", ("diff.", *([named] if named else [])), means)
    ends = tuple((measured.between(*row.interval) if row.interval else NOTHING,) for row in rows)
    yield Column("interval", (percent(1 - found.alpha), "interval"), ends)
    yield Column("p_adjusted", ("adj.", "p"), tuple((_p(row.p_adjusted),) for row in rows))
    yield Column("effect_size", ("effect", "size"), tuple((_two(row.effect_size),) for row in rows))
    yield Column("probability_better", ("beats", "ref."), tuple((_chance(row.probability_better),) for row in rows))
    smallest = (
        NOTHING if row.smallest_detectable is None else measured.number(row.smallest_detectable) for row in rows
    )
    yield Column("smallest_detectable", ("could", "find"), tuple((value,) for value in smallest))


def _notes(found: StudyVerdict) -> Iterator[str]:
    level = percent(1 - found.alpha)
    yield (
        f"Differences: the arm minus {found.reference}, seed by seed. With {level} probability the intervals of all "
        "arms and looks hold at once; p is adjusted likewise."
    )
    if found.margin is not None:
        within = measure(found.metric).unit.amount(found.margin)
        yield f"Equivalent: within {within}, the margin that the study set beforehand."
    yield (
        "Effect size: mean over standard deviation of the differences, above 0 where the arm is better. Beats ref.: "
        "probability at a new seed. Could find: the smallest difference found with 80% power."
    )
    yield ""
    shared = found.caveats
    yield from notes_by_arm({row.arm: row.caveats for row in found.comparisons}, shared)
    yield from shared


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _chance(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "<1%" if value < 0.01 else ">99%" if value > 0.99 else f"{value:.0%}"


def _two(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f}"


def _comparison(row: Comparison) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "seeds": row.seeds,
        "mean_difference": row.mean_difference,
        "interval": None if row.interval is None else list(row.interval),
        "p_adjusted": row.p_adjusted,
        "effect_size": row.effect_size,
        "probability_better": row.probability_better,
        "smallest_detectable": row.smallest_detectable,
        "verdict": row.verdict.value,
        "more_seeds": row.more_seeds,
        "caveats": list(row.caveats),
    }


def _noise(arm: ArmNoise) -> dict[str, Any]:
    split = arm.components
    parts = {"initial_weights": "init", "batch_order": "order", "rest": "rest"}
    table: dict[str, Any] = {"arm": arm.arm, "runs": arm.runs, "variance": split.total if split else None}
    for name, field in parts.items():
        part = getattr(split, field) if split else None
        table[name] = (
            None if part is None else {"variance": part.variance, "interval": list(part.interval), "share": part.share}
        )
    return table
