"""What can make a verdict false although its statistics are right: said before all verdicts, and in JSON."""

from collections.abc import Iterator, Mapping, Sequence

from fairtrial.spec import Study
from fairtrial.stats.paired import seed_list
from fairtrial.trial import Outcome, TrialResult


def alerts(study: Study, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """List what a reader must know before any verdict or claim of a study, a sentence each.

    Example:
        >>> alerts(study, results)
        ()
    """
    names = {arm.name for arm in study.arms}
    return tuple(_mixed_code([one for one in results if one.arm in names and one.outcome is Outcome.FINISHED]))


def _mixed_code(finished: Sequence[TrialResult]) -> Iterator[str]:
    """Name the user's own code that finished trials ran in several versions."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for result in finished:
        for name, version in result.machine.code.items():
            seeds.setdefault(name, {}).setdefault(version, set()).add(result.seed)
    for name, versions in sorted(seeds.items()):
        if len(versions) > 1:
            yield f"Not one experiment: {name} changed between trials ({_by_seed(versions)})."


def _by_seed(versions: Mapping[str, set[int]]) -> str:
    return ", then ".join(seed_list(sorted(seeds)) for seeds in sorted(versions.values(), key=min))
