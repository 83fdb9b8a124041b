"""A study on fresh seeds that is to confirm what another one found.

The arm that led was chosen by its results, so the same results can't say how good it is. Seeds that nobody has seen
can: the new study compares it with the reference alone, as if for the first time.
"""

from collections.abc import Sequence

from fairtrial.errors import StudyError
from fairtrial.spec import Origin, Study
from fairtrial.stats.best import ranking
from fairtrial.stats.comparison import compare
from fairtrial.stats.contrasts import Contrasts
from fairtrial.trial import TrialResult

#: Fresh seeds begin with the next multiple of this, beyond what other studies of the same arms may have used.
STEP = 1_000


def confirmation(study: Study, results: Sequence[TrialResult]) -> Study:
    """Build the study that confirms which arm is best: the leading arm and the reference on fresh seeds.

    Where the reference leads, it is compared with the arm that comes next. Measure, margin, alpha and the number of
    seeds are those of the study; its claims and further questions are left out.

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
    asked = ("also", "against", "pairs", "best", "aa")
    table["evidence"] = {key: value for key, value in table["evidence"].items() if key not in asked}
    table["arms"] = {name: changes for name, changes in table["arms"].items() if name in leaders}
    table["noise"] = {**table.get("noise", {}), "first_seed": fresh_seed(study)}
    for key in ("claims", "joint_claims", "reported"):
        table.pop(key, None)
    table["name"] = f"{study.name}-confirmation"
    return Study.from_dict(table).with_origin(Origin(folder=study.origin.folder))


def fresh_seed(study: Study) -> int:
    """A first seed beyond those that studies of the same arms are likely to have used."""
    return ((study.noise.first_seed or 0) // STEP + 1) * STEP
