"""Verdicts as sentences, as a grid, and as the tables that JSON is made of."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fairtrial.measures import measure
from fairtrial.report.grid import Column, Grid, columns, label
from fairtrial.report.words import count, exploratory, notes_by_arm, of_earlier_looks, or_nothing, percent
from fairtrial.sources import code_of
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.noise import ArmNoise
from fairtrial.stats.paired import fate
from fairtrial.stats.verdicts import Comparison, Failures, Verdict

_PAIRED = (
    "Effect size: mean over standard deviation of the differences, above 0 where the arm is better. Beats ref.: "
    "probability at a new seed. Could find: the smallest difference found with 80% power."
)
_UNPAIRED = (
    "Effect size: difference over the root mean square of both standard deviations, above 0 where the arm is better. "
    "Beats ref.: probability that a new run of the arm beats a new one of the reference. Could find: the smallest "
    "difference found with 80% power."
)


def verdict_grid(data: StudyVerdict, *, screen: bool = False) -> Grid:
    """Lay verdicts out: a sentence for each arm, the numbers behind them, and caveats.

    On a screen the table has no column of verdicts, because the sentences above it have them.
    """
    title = f"{label(data)}: {measure(data.metric).label}, against {data.against}"
    if not data.comparisons:
        return Grid(title, (), ("The study has one arm: there is nothing to compare.",))
    shown = tuple(column for column in _columns(data) if not (screen and column.key == "verdict"))
    lead = tuple(sentence(data, row) for row in data.comparisons)
    return Grid(title, shown, tuple(_notes(data)), lead, (*exploratory(data.exploratory), *data.alerts))


def sentence(data: StudyVerdict, row: Comparison) -> str:
    """Write one verdict: ``low_beta2 is worse than baseline by 1.30 points (95% interval 0.41 to 2.19)``."""
    if row.arm in data.refused and not data.paired:
        return f"{row.arm}: refused, its trials did not run the code of those of {data.against}"
    if row.arm in data.refused:
        return f"{row.arm}: refused, its trials are not paired with those of {data.against}"
    return _verdict(data, row) + "".join(
        f"; {fate(how)} in {number} of {count(data.ended[row.arm], 'trial')}"
        for how, number in data.lost.get(row.arm, {}).items()
    )


def _verdict(data: StudyVerdict, row: Comparison) -> str:
    """Write what the runs that have a result show."""
    if row.mean_difference is None and row.by_failures:
        return _by_failures(data, row)
    if row.mean_difference is None and not data.paired:
        return f"{row.arm}: undecided, no run of it or of {data.against} has a result"
    if row.mean_difference is None:
        none = f"no seed has a result of it and {data.against}" if data.seeds else "no seed is complete yet"
        return f"{row.arm}: undecided, {none}"
    unit, level = data.unit, f"{percent(1 - data.interval_alpha)} interval"
    mean, (low, high) = row.mean_difference, row.interval or (0.0, 0.0)
    if mean < 0:  # turned as the sentence says it: above 0 is better if it says better, and worse if it says worse
        low, high = -high, -low
    mean = mean if data.larger_is_better else -mean
    size = f"{unit.amount(abs(mean))} {'better' if mean > 0 else 'worse'}" if mean else "no difference"
    failed = row.failures is not None and (row.failures.arm or row.failures.reference)
    where = (" where both have a result" if data.paired else " in runs with a result") if failed else ""
    if row.by_failures:
        interval = f", {level} {unit.between(low, high)}" if row.interval else ""
        return f"{_by_failures(data, row)}; {size}{interval}{where}"
    if row.verdict in {Verdict.BETTER, Verdict.WORSE}:
        by = f"by {unit.amount(abs(mean))} ({level} {unit.between(low, high)})"
        return f"{row.arm} is {row.verdict.value} than {data.against} {by}{where}"
    interval = f", {level} {unit.between(low, high)}" if row.interval else ""
    if row.verdict in {Verdict.EQUIVALENT, Verdict.NON_INFERIOR}:
        margin = unit.amount(data.margin or 0.0)
        same = f"equivalent to {data.against} within {margin} ({size}{interval})"
        not_worse = f"not worse than {data.against} by {margin} or more ({size}{interval}{where})"
        return f"{row.arm} is {not_worse if row.verdict is Verdict.NON_INFERIOR else same}"
    if row.failures is not None and row.failures.verdict(data.alpha).settled:  # the opposite of what the numbers say
        ends = f" ({level} {unit.between(low, high)})" if row.interval else ""
        return f"{row.arm}: undecided, {size}{ends}{where}, but {_more_often(data, row.failures)}"
    more = f", {more}" if (more := more_needed(data, row)) else ""
    return f"{row.arm}: undecided{more} ({size}{where or ' so far'}{interval})"


def in_short(data: StudyVerdict, row: Comparison) -> str:
    """Write a verdict in a few words: ``better``, ``worse: fails more often``, ``undecided: about 4 more seeds``."""
    if row.arm in data.refused:
        return "refused"
    if row.by_failures:
        who = "" if row.failures is None or row.failures.side == "arm" else f"{data.reference} "
        return f"{row.verdict.value}: {who}fails more often"
    more = "" if row.verdict.settled else more_needed(data, row)
    return f"{row.verdict.value}: {more}" if more else row.verdict.value


def more_needed(data: StudyVerdict, row: Comparison) -> str:
    """Write how many more seeds or runs an undecided arm needs: ``about 4 more seeds``; empty if nobody can tell.

    Seeds beyond the last look of a plan that spent all of alpha would be those of a new study; a note says so.
    """
    over = row.arm in data.spent or (data.whole and data.seeds + (row.more_seeds or 0) > max(data.looks, default=0))
    if row.more_seeds is None or over:
        return ""
    return f"about {count(row.more_seeds, 'more seed' if data.paired else 'more run')}"


def _by_failures(data: StudyVerdict, row: Comparison) -> str:
    """Write a verdict that failures alone decided."""
    found = row.failures
    assert found is not None
    return f"{row.arm} is {row.verdict.value} than {data.against}: {_more_often(data, found)}"


def _more_often(data: StudyVerdict, found: Failures) -> str:
    """Write which of the two fails more often."""
    who = "it" if found.side == "arm" else data.against
    counts = f"it at {found.arm} of {found.seeds} seeds, {data.against} at {found.reference}"
    if found.reference_runs is not None:
        theirs = f"{data.against} in {found.reference} of {found.reference_runs}"
        counts = f"it in {found.arm} of {count(found.seeds, 'run')}, {theirs}"
    return f"{who} fails more often ({counts}, p {p_value(found.p_adjusted)})"


def verdict_table(data: StudyVerdict, noise: Sequence[ArmNoise] = ()) -> dict[str, Any]:
    """Lay verdicts out as programs read them; ``noise`` is there only for a study that has it."""
    keys = ("study", "hash", "reference", "metric", "margin", "alpha", "looks", "stage", "spent", "seeds")
    table = {key: getattr(data, key) for key in (*keys, "exploratory", "alerts", "caveats")}
    rows = [{key: _plain(value) for key, value in vars(row).items() if key != "sd"} for row in data.comparisons]
    jitter = None if data.jitter is None else vars(data.jitter) | {"split": vars(data.jitter.split)}
    table |= {"comparisons": rows, "jitter": jitter}
    table |= {"tasks": data.tasks} if data.tasks else {}
    table |= {} if data.paired else {"paired": False}
    table |= {"measure_code": code} if (code := code_of([data.metric])) else {}  # of a measure of the user's own
    return table | ({"noise": [_noise(arm) for arm in noise]} if noise else {})


def _plain(value: object) -> object:
    if not isinstance(value, Failures):
        return value
    return {key: part for key, part in vars(value).items() if key != "reference_runs" or part is not None}


def _noise(arm: ArmNoise) -> dict[str, Any]:
    split, names = arm.components, {"initial_weights": "init", "batch_order": "order", "rest": "rest"}
    parts = {name: getattr(split, field, None) for name, field in names.items()}
    shown = {name: None if part is None else vars(part) for name, part in parts.items()}
    return {"arm": arm.arm, "runs": arm.runs, "variance": split.total if split else None, **shown}


def noise_grid(data: StudyVerdict, noise: Sequence[ArmNoise]) -> Grid:
    """Lay out where each arm's noise comes from."""
    unit = data.unit
    spread = f"spread of\na run ({unit.difference})".removesuffix(" ()")

    def share(part: str) -> Callable[[ArmNoise], str]:
        return lambda arm: or_nothing(getattr(getattr(arm.components, part, None), "share", None), percent)

    heads = {"init": "initial\nweights", "order": "batch\norder", "rest": "the\nrest"}
    parts = [part for part in heads if any(getattr(arm.components, part, None) for arm in noise)]
    table: list[tuple[str, str, Callable[[ArmNoise], str]]] = [
        ("arm", "arm", lambda arm: arm.arm),
        ("runs", "runs", lambda arm: str(arm.runs)),
        ("spread", spread, lambda arm: or_nothing(arm.components, lambda split: unit.number(split.total**0.5))),
        *((part, heads[part], share(part)) for part in parts),
    ]
    rest = "; the rest is what two runs differ by beside both" if "rest" in parts else ""
    lead = f"Shares of the variance between runs of one arm{rest}."
    notes = notes_by_arm({arm.arm: arm.components.caveats for arm in noise if arm.components})
    notes += [f"{arm.arm}: {arm.left_out} runs left out, to keep the grid whole." for arm in noise if arm.left_out]
    return Grid("Where the noise comes from", columns(noise, table), tuple(notes), (lead,))


def _columns(data: StudyVerdict) -> tuple[Column, ...]:
    unit, level = data.unit, percent(1 - data.interval_alpha)
    diff = f"diff.\n({unit.difference})".removesuffix("\n()")
    table: list[tuple[str, str, Callable[[Comparison], str]]] = [
        ("arm", "arm", lambda row: row.arm),
        ("verdict", "verdict", lambda row: "refused" if row.arm in data.refused else row.verdict.value),
        ("seeds", "seeds" if data.paired else "runs", lambda row: str(row.seeds)),
        ("mean_difference", diff, lambda row: or_nothing(row.mean_difference, unit.number)),
        ("interval", f"{level}\ninterval", lambda row: or_nothing(row.interval, lambda ends: unit.between(*ends))),
        ("p_adjusted", "adj.\np", lambda row: or_nothing(row.p_adjusted, p_value)),
        ("effect_size", "effect\nsize", lambda row: or_nothing(row.effect_size, "{:.1f}".format)),
        ("probability_better", "beats\nref.", lambda row: or_nothing(row.probability_better, _chance)),
        ("smallest_detectable", "could\nfind", lambda row: or_nothing(row.smallest_detectable, unit.number)),
    ]
    return columns(data.comparisons, table)


def within_margin(data: StudyVerdict) -> str:
    """Write which differences do not matter, and whether that was set beforehand."""
    set_when = "that the study set beforehand" if data.set_beforehand else "of the study"
    return f"within {data.unit.amount(data.margin or 0.0)}, the margin {set_when}"


def p_value(value: float) -> str:
    """Write a p value: ``0.012``, ``<0.001``."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _chance(value: float) -> str:
    return "<1%" if value < 0.01 else ">99%" if value > 0.99 else f"{value:.0%}"


def _notes(data: StudyVerdict) -> Iterator[str]:
    every = "all arms and looks" if data.paired else "all arms"
    together = (
        f" With {percent(1 - data.interval_alpha)} probability the intervals of {every} hold at once; p is adjusted "
        "likewise."
    )
    how = "the arm minus {}, seed by seed" if data.paired else "mean of the arm's runs minus mean of {}'s; not paired"
    yield f"Differences: {how.format(data.against)}.{'' if data.spent else together}"
    if earlier := of_earlier_looks(data.spent, data.stage):
        yield earlier
    if data.margin is not None and not data.one_sided:
        yield f"Equivalent: {within_margin(data)}."
    yield _PAIRED if data.paired else _UNPAIRED
    yield ""
    yield from notes_by_arm({row.arm: row.caveats for row in data.comparisons}, data.caveats)
    yield from data.caveats
