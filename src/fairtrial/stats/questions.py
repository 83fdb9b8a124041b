"""Further questions of a study, which [evidence] asks beside that of the arms and the reference.

The main question and each further one get an equal part of alpha (`Study.question_alpha`). Within its part, a question
about several arms keeps its error rate over all of them and all planned looks. So with probability 1 - alpha no answer
is wrong.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from fairtrial.spec import Evidence, Study
from fairtrial.stats.best import BestArm, best_arm
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.contrasts import Contrasts
from fairtrial.stats.verdicts import Comparison
from fairtrial.trial import TrialResult

#: The keys of [evidence] that ask further questions, and the tasks of a study over several.
Question: TypeAlias = Literal["also", "against", "pairs", "best", "tasks"]


@dataclass(frozen=True)
class Answer:
    """The answer to a further question.

    Attributes:
        question: which.
        alpha: its part of the study's alpha: the probability of any false verdict in it.
        verdicts: comparisons, one for each arm or constant that others are compared with. The alpha of each is that of
            its intervals.
        best: of the question "best", and only of that.
    """

    question: Question
    alpha: float
    verdicts: tuple[StudyVerdict, ...]
    best: BestArm | None = None


def answer_questions(study: Study, results: Sequence[TrialResult], main: StudyVerdict) -> tuple[Answer, ...]:
    """Answer the further questions of a study on results of its trials, in any order.

    Args:
        study: the study.
        results: of its trials.
        main: the verdict on its main question, see `fairtrial.stats.comparison.compare`.

    Example:
        >>> from fairtrial.stats.comparison import compare
        >>> [answer.question for answer in answer_questions(study, results, compare(study, results))]
        []
    """
    return tuple(_answers(study, results, main)) if study.evidence.further_questions else ()


def _answers(study: Study, results: Sequence[TrialResult], main: StudyVerdict) -> Iterator[Answer]:
    evidence, alpha = study.evidence, study.question_alpha
    others = [arm.name for arm in study.arms if arm.name != study.reference]
    tested = [arm for arm in others if arm not in study.twins]
    for also in evidence.also or ():
        settings = Evidence(metric=also.metric, direction=also.direction, margin=also.margin, target=evidence.target)
        found = Contrasts(study, results, main, settings).with_base(study.reference, others, alpha, margin=also.margin)
        yield Answer("also", alpha, (found,))
    contrasts = Contrasts(study, results, main)
    if evidence.against is not None:
        value, unit = evidence.against.value, main.unit
        name = f"{unit.number(value)}{'' if unit.name == '%' else ' '}{unit.name}".rstrip()
        one_sided = bool(evidence.against.one_sided)
        yield Answer("against", alpha, (contrasts.with_constant(value, name, alpha, one_sided=one_sided),))
    if evidence.pairs is not None:
        yield Answer("pairs", alpha, _pairs(contrasts, tested, alpha))
    if evidence.best:
        yield Answer("best", alpha, (), best_arm(contrasts, alpha))


def _pairs(contrasts: Contrasts, others: Sequence[str], alpha: float) -> tuple[StudyVerdict, ...]:
    """Compare all arms but the reference with each other; the main question has those with the reference.

    Each arm but the last is the base of a family of intervals against the arms after it, with a part of alpha in
    proportion to their number. The reference is in every family for its spread: with few seeds, degrees of freedom are
    worth more than the alpha that they cost.
    """
    pairs, found = len(others) * (len(others) - 1) // 2, []
    for index, base in enumerate(others[:-1]):
        later = others[index + 1 :]
        columns, part = [contrasts.study.reference, *later], alpha * len(later) / pairs
        family = contrasts.with_base(base, columns, part, margin=contrasts.evidence.margin)
        rows = [_adjusted(row, pairs / len(later)) for row in family.comparisons if row.arm in later]
        found.append(replace(family, alpha=alpha, comparisons=tuple(rows)))
    return tuple(found)


def _adjusted(row: Comparison, factor: float) -> Comparison:
    """Adjust the p value of a family that has one part in so many of alpha."""
    return replace(row, p_adjusted=None if row.p_adjusted is None else min(row.p_adjusted * factor, 1.0))
