"""Arms whose records are the same to the bit but for times: what sets them apart changes nothing else.

Such an arm counts as identical in a comparison only if the measure is the same too, which that of a time may not be.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from fairtrial.digests import reproducible
from fairtrial.spec import BUILT_IN, Study
from fairtrial.stats.joined import Key, by_arm
from fairtrial.stats.pairing import RESULT
from fairtrial.stats.verdicts import Comparison, Verdict
from fairtrial.trial import Outcome, TrialResult

#: The records of a trial, without times.
Records: TypeAlias = tuple[tuple[Any, ...], ...]

#: Seeds at which all records of two arms must agree: at a single one, coarse metrics may agree by chance.
LEAST = 2


class Pair:
    """At which seeds two arms are the same; seeds are added in ascending order."""

    def __init__(self) -> None:
        self._seeds: list[int] = []
        self._first_difference = math.inf

    def add(self, seed: int, same: bool | None) -> None:
        """Add a seed, and whether they are; None if it does not tell."""
        if same is None:
            return
        self._seeds.append(seed)
        if not same:
            self._first_difference = min(self._first_difference, seed)

    def seeds(self, below: float = math.inf) -> int:
        """Count the seeds, below a number, at which they are the same; 0 if they differ at any, or share few."""
        shared = bisect_left(self._seeds, below)
        return shared if shared >= LEAST and self._first_difference >= below else 0


class Sameness:
    """At which seeds the trials of two arms had the same records but times, and the same final fingerprints.

    Only the pairs of arms that are asked for are compared. With the values of a measure, they must be equal too, and
    only seeds at which one of the two has a value count. Seeds at which both diverged do not.
    """

    def __init__(self, results: Iterable[TrialResult], values: Mapping[Key, float] | None = None) -> None:
        ended = (one for one in results if one.outcome in {Outcome.FINISHED, Outcome.DIVERGED})
        self._trials = {arm: {one.seed: one for one in trials} for arm, trials in by_arm(ended).items()}
        self._values = values
        self._pairs: dict[tuple[str, str], Pair] = {}

    def seeds(self, arm: str, other: str, below: float = math.inf) -> int:
        """Count the seeds, below a number, at which two arms are the same; 0 if they differ at any, or share few."""
        key = min((arm, other), (other, arm))
        if key not in self._pairs:
            self._pairs[key] = self._pair(*key)
        return self._pairs[key].seeds(below)

    def alike(self) -> Iterator[set[str]]:
        """Give the groups of arms that have the same records at some seed: no others can be the same at every seed."""
        groups: dict[tuple[int, Records], list[str]] = {}
        for arm, trials in self._trials.items():
            for seed, trial in trials.items():
                groups.setdefault((seed, records_of(trial)), []).append(arm)
        return (set(arms) for arms in groups.values() if len(arms) > 1)

    def _pair(self, arm: str, other: str) -> Pair:
        pair, ours, theirs = Pair(), self._trials.get(arm, {}), self._trials.get(other, {})
        for seed in sorted(ours.keys() & theirs.keys()):
            pair.add(seed, same_at(ours[seed], theirs[seed], self._values))
        return pair


def same_at(ours: TrialResult, theirs: TrialResult, values: Mapping[Key, float] | None = None) -> bool | None:
    """Whether two trials of a seed are the same; None if the seed does not tell. See `Sameness`."""
    trials = {(one.arm, one.seed): one for one in (ours, theirs)}
    if any(one.outcome not in {Outcome.FINISHED, Outcome.DIVERGED} for one in trials.values()):
        return None
    finished = {key for key, one in trials.items() if one.outcome is Outcome.FINISHED}
    if not finished or (values is not None and not finished & values.keys()):
        return None
    measured = values is None or len({values.get(key) for key in trials}) == 1
    return measured and same_records(ours, theirs)


def same_records(ours: TrialResult, theirs: TrialResult) -> bool:
    """Whether two trials ended alike, with the same records but times, and final fingerprints where both have them."""
    return ours.outcome is theirs.outcome and records_of(ours) == records_of(theirs) and _same_ends(ours, theirs)


def records_of(trial: TrialResult) -> Records:
    """The records of a trial without times, to the bit."""
    return tuple((one.epoch, *sorted(reproducible(one).items())) for one in trial.epochs)


def identical_arms(study: Study, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """Say which arms are identical to the reference, or to an arm before them, at every seed that both have.

    Example:
        >>> identical_arms(study, results)
        ()
    """
    order = sorted((arm.name for arm in study.arms), key=lambda name: name != study.reference)
    places = {arm: place for place, arm in enumerate(order)}
    sameness, found = Sameness(results), dict[str, str]()
    groups: dict[str, list[set[str]]] = {}
    for group in sameness.alike():
        for arm in group:
            groups.setdefault(arm, []).append(group)
    for arm in order:
        others = {other for group in groups.get(arm, ()) for other in group if places[other] > places[arm]}
        for other in sorted(others, key=places.__getitem__):
            if seeds := sameness.seeds(arm, other):
                found[other] = _sentence(study, other, arm, seeds)
                for group in groups[other]:
                    group.discard(other)
    return tuple(found.values())


def without_difference(
    row: Comparison, other: str, seeds: int, margin: float | None, *, one_sided: bool = False
) -> Comparison:
    """The comparison of an arm that is identical to the reference: equivalent within any margin."""
    within = Verdict.NON_INFERIOR if one_sided else Verdict.EQUIVALENT
    verdict = Verdict.UNDECIDED if margin is None else within
    line = f"All its values are those of {other} to the bit, so it enters no estimate of spread and has no interval."
    return replace(row, seeds=seeds, mean_difference=0.0, sd=0.0, verdict=verdict, more_seeds=None, caveats=(line,))


def _same_ends(ours: TrialResult, theirs: TrialResult) -> bool:
    """Whether two trials agree in all final fingerprints that both reported."""
    both = ours.fingerprints.keys() & theirs.fingerprints.keys()
    return all(ours.fingerprints[name] == theirs.fingerprints[name] for name in both if name.startswith(RESULT))


def _sentence(study: Study, arm: str, other: str, seeds: int) -> str:
    told = f"{arm} is identical to {other} but for times, to the bit at all {seeds} seeds"
    if study.twins.get(arm) == other:
        return f"{told}, though its seeds of noise differ: does the loop use trial.weights_seed and trial.order_seed?"
    if study.compares_code(other, arm):
        return f"{told}: the change under test changes nothing that is recorded."
    if study.imported is not None:
        return f"{told}: are they the same runs under two names?"
    keys = " and ".join(study.differing_keys(other, arm))
    if study.arm(arm).settings.training.loop == BUILT_IN:
        return f"{told}: {keys} changed nothing else."
    return f"{told}: does the training loop read {keys}?"
