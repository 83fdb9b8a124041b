"""Arms whose records are the same to the bit but for times: what sets them apart changes nothing else.

Such an arm counts as identical in a comparison only if the measure is the same too, which that of a time may not be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from fairtrial.spec import BUILT_IN, Study
from fairtrial.stats.joined import Key
from fairtrial.stats.pairing import RESULT
from fairtrial.stats.verdicts import Comparison, Verdict
from fairtrial.trial import Outcome, TrialResult, reproducible

#: Seeds at which all records of two arms must agree: at a single one, coarse metrics may agree by chance.
LEAST = 2


@dataclass(frozen=True)
class Sameness:
    """At which seeds the trials of two arms had the same records but times, and the same final fingerprints."""

    by_pair: Mapping[tuple[str, str], Mapping[int, bool]]  # the arms in the study's order; by seed

    @classmethod
    def of(cls, study: Study, results: Sequence[TrialResult], values: Mapping[Key, float] | None = None) -> "Sameness":
        """Compare all arms of a study at the seeds that both ended, but for those at which both diverged.

        With the values of a measure, they must be equal too, and only seeds at which one of the two has a value count.
        """
        ended = (Outcome.FINISHED, Outcome.DIVERGED)
        trials = {(one.arm, one.seed): one for one in results if one.outcome in ended}
        told = {key: [(one.epoch, reproducible(one)) for one in trial.epochs] for key, trial in trials.items()}

        def same(*keys: tuple[str, int]) -> bool:
            ours, theirs = (trials[key] for key in keys)
            measured = values is None or values.get(keys[0]) == values.get(keys[1])
            return (
                ours.outcome is theirs.outcome
                and told[keys[0]] == told[keys[1]]
                and _same_ends(ours, theirs)
                and measured
            )

        finished = {key for key, trial in trials.items() if trial.outcome is Outcome.FINISHED}
        telling = finished if values is None else finished & values.keys()
        return cls(
            {
                (arm, other): {
                    seed: same((arm, seed), (other, seed))
                    for seed in range(study.seeds)
                    if {(arm, seed), (other, seed)} <= trials.keys() and {(arm, seed), (other, seed)} & telling
                }
                for arm, other in combinations((one.name for one in study.arms), 2)
            }
        )

    def seeds(self, arm: str, other: str, below: int | None = None) -> int:
        """Count the seeds, below a number, at which two arms are the same; 0 if they differ at any, or share few."""
        pair = self.by_pair.get((arm, other)) or self.by_pair.get((other, arm), {})
        shared = [same for seed, same in pair.items() if below is None or seed < below]
        return len(shared) if len(shared) >= LEAST and all(shared) else 0


def identical_arms(study: Study, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """Say which arms are identical to the reference, or to an arm before them, at every seed that both have.

    Example:
        >>> identical_arms(study, results)
        ()
    """
    sameness, found = Sameness.of(study, results), dict[str, str]()
    order = sorted((arm.name for arm in study.arms), key=lambda name: name != study.reference)
    for arm, other in ((arm, other) for arm, other in combinations(order, 2) if other not in found):
        if seeds := sameness.seeds(arm, other):
            found[other] = _sentence(study, other, arm, seeds)
    return tuple(found.values())


def without_difference(row: Comparison, other: str, seeds: int, margin: float | None) -> Comparison:
    """The comparison of an arm that is identical to the reference: equivalent within any margin."""
    verdict = Verdict.UNDECIDED if margin is None else Verdict.EQUIVALENT
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
    keys = " and ".join(study.differing_keys(other, arm))
    if study.arm(arm).settings.training.loop == BUILT_IN:
        return f"{told}: {keys} changed nothing else."
    return f"{told}: does the training loop read {keys}?"
