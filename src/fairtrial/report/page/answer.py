"""A study's question and answer in three sentences, made from its verdicts.

A confidence level is no probability of the study's own result, and "undecided" is no "no difference": the sentences say
neither.
"""

from collections.abc import Iterator, Sequence

from fairtrial.measures import measure
from fairtrial.report.page.items import listed
from fairtrial.report.page.rounding import amount, rounded
from fairtrial.report.verdicts import sentence
from fairtrial.report.words import count, percent
from fairtrial.spec import Study
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.paired import fate
from fairtrial.stats.verdicts import Comparison, Verdict

#: Up to this many arms each have their numbers in the answer; of more, the numbers of arms are told.
FEW = 4


def three_sentences(study: Study, found: StudyVerdict, ended: int, planned: int) -> tuple[str, str, str]:
    """Write the question, the answer, and what the answer rests on.

    Args:
        study: the study, under the labels of its arms.
        found: its verdicts.
        ended: how many of its trials have ended.
        planned: how many it has at most.
    """
    return _question(study, found), _answer(found), _basis(study, found, ended, planned)


def _question(study: Study, found: StudyVerdict) -> str:
    label = measure(found.metric).label
    others = [row.arm for row in found.comparisons]
    if not others:
        return f"What {label} does {study.reference} reach?"
    if len(others) <= FEW:
        start = "Does" if len(others) == 1 else "Do"
        return f"{start} {listed(others)} differ from {found.against} in {label}?"
    return f"Which of {len(others)} arms differ from {found.against} in {label}?"


def _answer(found: StudyVerdict) -> str:
    if not found.comparisons:
        lost = _mostly_lost(found, found.reference)
        return f"The study has one arm, so there is no difference to judge{f'; {lost}' if lost else ''}."
    few = len(found.comparisons) <= FEW
    parts = [_one(found, row) for row in found.comparisons] if few else list(_counts(found))
    losses = [_mostly_lost(found, name) for name in (found.reference, *(row.arm for row in found.comparisons))]
    text = "; ".join([*parts, *filter(None, losses)])
    return f"{text[:1].upper() if not _starts_with_name(found, text) else text[:1]}{text[1:]}."


def _starts_with_name(found: StudyVerdict, text: str) -> bool:
    return any(text.startswith(name) for name in (found.reference, *(row.arm for row in found.comparisons)))


def _one(found: StudyVerdict, row: Comparison) -> str:
    """Say what is known of an arm."""
    if row.by_failures or row.arm in found.refused or row.mean_difference is None:
        return sentence(found, row).partition("; ")[0] if not row.by_failures else sentence(found, row)
    toward = row.mean_difference if found.larger_is_better else -row.mean_difference
    ends = row.interval and (row.interval if found.larger_is_better else (-row.interval[1], -row.interval[0]))
    half = None if ends is None else (ends[1] - ends[0]) / 2
    interval = f" ({percent(1 - found.interval_alpha)} interval {_range(found, ends, half)})" if ends else ""
    if row.verdict in {Verdict.BETTER, Verdict.WORSE}:
        return f"{row.arm} is {row.verdict.value} by {_settled(found, toward, ends or (0.0, 0.0))}"
    if row.verdict is Verdict.EQUIVALENT:
        return f"{row.arm} is equivalent within the margin of {found.unit.amount(found.margin or 0.0)}{interval}"
    if row.verdict is Verdict.NON_INFERIOR:
        return f"{row.arm} is not worse by {found.unit.amount(found.margin or 0.0)} or more{interval}"
    if ends is None:
        return f"{row.arm} is undecided, without an interval"
    return (
        f"{row.arm} is undecided, with a {percent(1 - found.interval_alpha)} interval from {_range(found, ends, half)}"
    )


def _settled(found: StudyVerdict, toward: float, ends: tuple[float, float]) -> str:
    """Write a difference with its interval, turned as its verdict says; no end of it is rounded to zero."""
    low, high = ends if toward > 0 else (-ends[1], -ends[0])
    uncertainty = (high - low) / 2
    for _ in range(4):
        if float(rounded(low, uncertainty, found.unit)) > 0.0:
            break
        uncertainty /= 10
    size, *numbers = (rounded(value, uncertainty, found.unit) for value in (abs(toward), low, high))
    unit = f"{'' if found.unit.difference == '%' else ' '}{found.unit.difference}".rstrip()
    return f"{size}{unit} ({percent(1 - found.interval_alpha)} interval {' to '.join(numbers)})"


def _range(found: StudyVerdict, ends: tuple[float, float], half: float | None) -> str:
    """Write an interval in words: ``1.2 points worse to 2.0 points better``."""

    def end(value: float) -> str:
        text = amount(abs(value), half, found.unit)
        return f"{text} {'better' if value > 0 else 'worse'}" if float(rounded(abs(value), half, found.unit)) else text

    return f"{end(ends[0])} to {end(ends[1])}"


def _counts(found: StudyVerdict) -> Iterator[str]:
    kinds: dict[str, list[str]] = {}
    for row in found.comparisons:
        kinds.setdefault("refused" if row.arm in found.refused else row.verdict.value, []).append(row.arm)
    words = {
        "better": "better",
        "worse": "worse",
        "equivalent": "equivalent to it within the margin",
        "non-inferior": "not worse by the margin or more",
        "undecided": "undecided",
        "refused": "refused",
    }
    for kind, text in words.items():
        if arms := kinds.get(kind):
            yield f"{len(arms)} {'is' if len(arms) == 1 else 'are'} {text} ({listed(arms)})"


def _mostly_lost(found: StudyVerdict, arm: str) -> str:
    """Name an arm that has no result in at least half of its trials, and why; empty for any other."""
    ended = found.ended.get(arm, 0)
    ways = found.lost.get(arm, {})
    if not ended or 2 * sum(ways.values()) < ended:
        return ""
    told = " and ".join(f"{fate(how)} in {number} of {count(ended, 'trial')}" for how, number in ways.items())
    return f"{arm} {told}"


def _basis(study: Study, found: StudyVerdict, ended: int, planned: int) -> str:
    unfinished = f"{ended} of {'at most ' if study.sequential else ''}{planned} trials have ended"
    parts = []
    if found.seeds == 0:
        parts.append(f"So far {unfinished}, and no seed has ended in every arm")
    elif found.seeds == 1:
        parts.append("This rests on one run an arm, which shows nothing of how far results spread from seed to seed")
    elif found.paired:
        parts.append(f"This rests on up to {found.seeds} seeds an arm, compared seed by seed")
    else:
        parts.append(
            f"This rests on up to {count(max(found.ended.values(), default=0), 'run')} an arm, not paired by seed"
        )
    if found.seeds > 1 and found.comparisons and any(row.interval for row in found.comparisons):
        parts.append(f"the {percent(1 - found.interval_alpha)} confidence level is that of all intervals together")
    if any(row.verdict is Verdict.UNDECIDED and row.arm not in found.refused for row in found.comparisons):
        parts.append("undecided means that these runs show neither a difference nor that there is none that matters")
    if found.seeds > 0 and _open(study, ended, planned, found):
        parts.append(f"{unfinished}, so the answer may change")
    if found.exploratory:
        parts.append(f"it is exploratory, because {found.exploratory[0]}")
    return "; ".join(parts) + "."


def _open(study: Study, ended: int, planned: int, found: StudyVerdict) -> bool:
    """Tell whether further trials are planned; an arm of a sequential study gets none once it is settled."""
    if study.sequential:
        settled = [row.verdict.settled or row.arm in found.refused for row in found.comparisons]
        return found.seeds < study.seeds and not (settled and all(settled))
    return ended < planned


def verdict_counts(found: StudyVerdict) -> str:
    """Write how many arms have which verdict: ``1 worse, 2 undecided``."""
    kinds: dict[str, int] = {}
    for row in found.comparisons:
        kind = "refused" if row.arm in found.refused else row.verdict.value
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{number} {kind}" for kind, number in kinds.items())


def claim_counts(findings: Sequence[str]) -> str:
    """Write how many claims have which finding: ``1 supported, 2 undecided``."""
    return ", ".join(f"{findings.count(kind)} {kind}" for kind in dict.fromkeys(findings))
