"""A study on fresh seeds that is to confirm what another one found.

The arm that led was chosen by its results, so the same results can't say how good it is. Seeds that nobody has seen
can: the new study compares it with the reference alone, as if for the first time.
"""

from collections.abc import Sequence

from fairtrial.errors import StudyError
from fairtrial.history import FRESH_SEEDS, History
from fairtrial.question import Question
from fairtrial.spec import Origin, Study
from fairtrial.stats.best import ranking
from fairtrial.stats.comparison import compare
from fairtrial.stats.contrasts import Contrasts
from fairtrial.trial import TrialResult


def confirmation(study: Study, results: Sequence[TrialResult], *, history: History | None = None) -> Study:
    """Build the study that confirms which arm is best: the leading arm and the reference on fresh seeds.

    Where the reference leads, it is compared with the arm that comes next. Measure, margin, alpha and the number of
    seeds are those of the study; its claims and further questions are left out. The fresh seeds begin with a multiple
    of 1000, and no study of these arms in the history has any of them, unless it is this confirmation itself.

    Raises:
        StudyError: fewer than two arms have results at the same seeds and lost none.

    Example:
        >>> confirmation(study, results).noise.first_seed
        1000
    """
    order = ranking(Contrasts(study, results, compare(study, results)))
    leaders = {study.reference, next((arm for arm in order if arm != study.reference), study.reference)}
    if len(order) < 2 or len(leaders) < 2:
        raise StudyError(f"{study.label}: has no results yet that tell which arm leads")
    table = study.to_dict()
    further = ("also", "against", "pairs", "best", "aa")
    table["evidence"] = {key: value for key, value in table["evidence"].items() if key not in further}
    table["arms"] = {name: changes for name, changes in table["arms"].items() if name in leaders}
    for key in ("claims", "joint_claims", "reported"):
        table.pop(key, None)
    if "tuning" in table:  # the arms keep the settings that they were tuned to
        own_ranges = table["tuning"].get("arms", {})
        table["tuning"]["arms"] = {name: ranges for name, ranges in own_ranges.items() if name in leaders}
    table["name"] = f"{study.name}-confirmation"
    own, first = Question.of(study), FRESH_SEEDS
    asked = [] if history is None else [question for question in history.asked if question != own]
    while True:
        found = Study.from_dict(table | {"noise": {**table.get("noise", {}), "first_seed": first}})
        question = Question.of(found)
        if question in asked or not any(one.noise_seeds & question.noise_seeds for one in (own, *asked)):
            return found.with_origin(Origin(folder=study.origin.folder))
        first += FRESH_SEEDS
