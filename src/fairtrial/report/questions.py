"""Answers to a study's further questions, below its verdicts."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fairtrial.measures import measure
from fairtrial.report.grid import Column, Grid, columns, label
from fairtrial.report.verdicts import p_value, sentence, verdict_table
from fairtrial.report.words import count, notes_by_arm, of_earlier_looks, or_nothing, percent
from fairtrial.stats.best import BestArm
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.questions import Answer
from fairtrial.stats.verdicts import Comparison


class _Row(NamedTuple):
    """One comparison and the verdicts that it is from."""

    found: StudyVerdict
    result: Comparison


def answer_grid(answer: Answer, main: StudyVerdict, *, screen: bool = False) -> Grid:
    """Lay an answer out: sentences, the numbers behind them, and caveats."""
    rows = [_Row(found, row) for found in answer.verdicts for row in found.comparisons]
    lead = [_sentence(found, row) for found, row in rows]
    shared = main.caveats
    notes = notes_by_arm({f"{row.arm} - {found.against}": row.caveats for found, row in rows}, shared)
    if answer.best is not None:
        lead += _best(answer.best, main)
    laid_out = _columns(rows, screen=screen) if rows else ()
    first = tuple(
        dict.fromkeys(alert for found in answer.verdicts for alert in found.alerts if alert not in main.alerts)
    )
    return Grid(_title(answer, main), laid_out, (*_notes(answer, main), "", *notes), tuple(lead), first)


def answer_table(answer: Answer) -> dict[str, Any]:
    """Lay an answer out as programs read it."""
    table: dict[str, Any] = {"question": answer.question, "alpha": answer.alpha}
    if answer.best is not None:
        return table | {"best": vars(answer.best)}
    return table | {"verdicts": [verdict_table(found) for found in answer.verdicts]}


def _sentence(found: StudyVerdict, row: Comparison) -> str:
    """Write one comparison; where no verdict names both sides, the arm is followed by what it is compared with."""
    written, open_ = sentence(found, row), f"{row.arm}: "
    if not written.startswith(open_):
        return written
    return f"{row.arm} against {found.against}: {written.removeprefix(open_)}"


def _title(answer: Answer, main: StudyVerdict) -> str:
    on = measure((answer.verdicts or (main,))[0].metric).label
    against = {
        "also": f", against {main.against}",
        "pairs": ", the other arms against each other",
        "tasks": ", on each task",
        "best": ", best arm",
    }
    other = against.get(answer.question) or f", against {answer.verdicts[0].against}"
    return f"{label(main)}: {on}{other}"


def _best(best: BestArm, main: StudyVerdict) -> Iterator[str]:
    unit = main.unit
    excluded = f"; not {', '.join(best.excluded)}" if best.excluded else ""
    if len(best.candidates) == 1:
        yield f"{best.candidates[0]} is the best arm: no other is better"
    else:
        yield f"The best arm is undecided: it may be any of {', '.join(best.candidates)}{excluded}"
    if best.leader is not None and best.mean is not None:
        sign = f" {unit.name}".replace(" %", "%").rstrip()
        mean = f"{best.leader} has the best mean over {count(best.seeds, 'seed')}, {unit.number(best.mean)}{sign}"
        fair = (
            "" if best.corrected is None else f"; without the luck of being chosen {unit.number(best.corrected)}{sign}"
        )
        yield mean + fair


def _columns(rows: list[_Row], *, screen: bool) -> tuple[Column, ...]:
    first = rows[0].found
    unit = first.unit
    table: list[tuple[str, str, Callable[[_Row], str]]] = [
        ("arm", "arm", lambda row: row.result.arm),
        ("against", "against", lambda row: row.found.against),
        ("verdict", "verdict", _verdict),
        ("seeds", "seeds", lambda row: str(row.result.seeds)),
        (
            "mean_difference",
            f"diff.\n({unit.difference})".removesuffix("\n()"),
            lambda row: or_nothing(row.result.mean_difference, unit.number),
        ),
        (
            "interval",
            f"{percent(1 - first.alpha)}\ninterval",
            lambda row: or_nothing(row.result.interval, lambda ends: unit.between(*ends)),
        ),
        ("p_adjusted", "adj.\np", lambda row: or_nothing(row.result.p_adjusted, p_value)),
    ]
    return columns(rows, [one for one in table if not (screen and one[0] == "verdict")])


def _verdict(row: _Row) -> str:
    return "refused" if row.result.arm in row.found.refused else row.result.verdict.value


def _notes(answer: Answer, main: StudyVerdict) -> Iterator[str]:
    alone = percent(1 - answer.alpha)
    if main.spent:
        yield of_earlier_looks(main.spent, main.stage)
    elif answer.question == "best":
        yield f"With {alone} probability no other arm is better than all of those that may be the best, at all looks."
    elif answer.verdicts[0].alpha > answer.alpha:
        yield f"One-sided: with {alone} probability no arm is wrongly called better, over all arms and looks."
    else:
        yield f"With {alone} probability these intervals hold at once, for all arms and looks; p is adjusted likewise."
    if answer.question == "best":
        yield "Without the luck: the best arm of the other seeds, at each seed in turn, on average."
    if answer.question == "also" and answer.verdicts[0].margin is not None:
        within = answer.verdicts[0].unit.amount(answer.verdicts[0].margin)
        yield f"Equivalent: within {within}."
    shared = "The tasks and the mean over them share alpha equally" if answer.question == "tasks" else ""
    yield f"{shared or 'Each question of the study has an equal part of its alpha'}: {percent(answer.alpha)}."
