"""Keys a study's results by arm and seed."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from fairtrial.spec import Study
from fairtrial.trial import TrialResult

#: A trial: arm and seed.
Key: TypeAlias = tuple[str, int]


def by_arm(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Group results by arm."""
    found: dict[str, list[TrialResult]] = {}
    for one in results:
        found.setdefault(one.arm, []).append(one)
    return found


def join(study: Study, results: Sequence[TrialResult]) -> dict[Key, TrialResult]:
    """Key results by arm and seed, in the study's order; raises ValueError for a foreign or repeated trial."""
    order = {arm.name: index for index, arm in enumerate(study.arms)}
    trials: dict[Key, TrialResult] = {}
    for result in results:
        if result.arm not in order or not 0 <= result.seed < study.seeds:
            raise ValueError(f"{study.label} has no trial of arm {result.arm!r} at seed {result.seed}")
        if (result.arm, result.seed) in trials:
            raise ValueError(f"{study.label}: arm {result.arm!r} at seed {result.seed} appears twice")
        trials[result.arm, result.seed] = result
    return {key: trials[key] for key in sorted(trials, key=lambda key: (order[key[0]], key[1]))}
