"""One measure of every trial, joined by arm and seed: the data of comparisons and claims.

A trial that diverged or failed, did not learn, missed its target or has a NaN in its measure has no comparable number.
It is *lost*, and that counts: a seed that an arm lost and the other did not counts against the arm, whatever the seeds
show at which both have a result. See `LostSeeds`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from fairtrial.measures import missed
from fairtrial.spec import Study, Target
from fairtrial.stats.joined import Key, join
from fairtrial.stats.learned import learned
from fairtrial.stats.outliers import Outliers, find_outliers
from fairtrial.stats.variance import FloatArray
from fairtrial.trial import Outcome, TrialResult

#: How a finished trial can be lost, and in words what it did: it missed its target, its measure fell short of the
#: study's floor, it recorded NaN, an infinity or too large a number, or it fell behind without a floor
#: (`stats.outliers`).
MISSED, UNLEARNED, BROKEN, OUTLYING = "missed", "did not learn", "not finite", "fell behind"
_WORDS = {MISSED: "missed the target", BROKEN: "had a value that is NaN, infinite or beyond 1e99"}


@dataclass(frozen=True)
class PairedData:
    """One measure of a study's trials, by arm and seed; each trial that started is in one of the four."""

    values: Mapping[Key, float]
    lost: Mapping[
        Key, str
    ]  # "diverged", "failed", "missed" (the target), "did not learn", "not finite" or "fell behind"
    unreported: frozenset[Key]  # finished, but without a value of the measure
    pending: frozenset[Key]  # started and not ended
    #: Which way is better, to find runs that fell behind; None to leave them, because there is a floor.
    larger_is_better: bool | None = None
    #: Whether the runs of a seed share noise.
    paired: bool = True
    outliers: Outliers = field(default_factory=Outliers)

    @classmethod
    def of(cls, study: Study, results: Sequence[TrialResult], metric: str, target: Target | None) -> "PairedData":
        """Measure every trial.

        Raises:
            ValueError: a result is not of this study, a trial appears twice, or there is no such measure.
        """
        chosen = study.measure(metric)
        values: dict[Key, float] = {}
        lost: dict[Key, str] = {}
        unreported, pending = set(), set()
        settings = {arm.name: arm.settings for arm in study.arms}
        for key, trial in join(study, results).items():
            if trial.outcome is None:
                pending.add(key)
            elif trial.outcome is not Outcome.FINISHED:
                lost[key] = trial.outcome.value
            elif chosen.is_broken(trial.epochs, target):
                lost[key] = BROKEN
            elif (works := learned(study, settings[trial.arm], trial)) is False:
                lost[key] = UNLEARNED
            elif works and (value := chosen.of(trial.epochs, target)) is not None:
                values[key] = value
            elif chosen.needs_target and target is not None and missed(target, trial.epochs):
                lost[key] = MISSED
            else:
                unreported.add(key)
        floored = study.evidence.lost_below is not None or study.evidence.lost_above is not None
        larger = None if floored or chosen.direction is None else chosen.direction == "higher"
        return cls(values, lost, frozenset(unreported), frozenset(pending), larger, not study.evidence.unpaired)

    def sifted(self, seeds: int) -> "PairedData":
        """Move the runs that fell far behind the others of their arm to the lost ones, by the first seeds alone."""
        if self.larger_is_better is None:
            return self
        early = {key: value for key, value in self.values.items() if key[1] < seeds}
        found = find_outliers(early, larger_is_better=self.larger_is_better, paired=self.paired)
        values = {key: value for key, value in self.values.items() if key not in found.behind}
        return replace(self, values=values, lost={**self.lost, **dict.fromkeys(found.behind, OUTLYING)}, outliers=found)

    @cached_property
    def ended(self) -> frozenset[Key]:
        """The trials that have ended, however they did."""
        return frozenset({*self.values, *self.lost, *self.unreported})

    @property
    def not_learned(self) -> frozenset[Key]:
        """The trials that finished without having learned: below the floor, or far behind the others of their arm."""
        return frozenset(key for key, how in self.lost.items() if how in {UNLEARNED, OUTLYING})

    @property
    def seeds(self) -> int:
        """The number of seeds, up to the last with a trial that has ended."""
        return max((seed for _, seed in self.ended), default=-1) + 1

    def differences(self, base: str, others: Sequence[str], seeds: int, *, relative: bool = False) -> FloatArray:
        """Subtract an arm from each of the others, (seeds, others); NaN where a seed lacks one of the two.

        Relative differences are divided by the absolute value of ``base``.
        """
        table = np.full((seeds, len(others)), np.nan)
        for seed in range(seeds):
            own = self.values.get((base, seed), math.nan)
            for column, arm in enumerate(others):
                table[seed, column] = self.values.get((arm, seed), math.nan) - own
            if relative:
                table[seed] = table[seed] / abs(own) if own else math.nan
        return table

    def from_mean(self, base: str, others: Sequence[str], seeds: int) -> FloatArray:
        """Subtract an arm's mean from each run of the others, (seeds, others); NaN where there is none."""
        own = [value for (arm, seed), value in self.values.items() if arm == base and seed < seeds]
        mean = math.fsum(own) / len(own) if own else math.nan
        return np.array([[self.values.get((arm, seed), math.nan) - mean for arm in others] for seed in range(seeds)])

    def lost_seeds(self, arm: str, other: str) -> "LostSeeds":
        """Find the seeds that one of two arms lost and the other did not."""
        ours, theirs = (self.lost_by_arm.get(which, frozenset()) for which in (arm, other))
        both = {seed for seed in ours ^ theirs if (arm, seed) in self.ended and (other, seed) in self.ended}
        return LostSeeds(tuple(sorted(ours & both)), tuple(sorted(theirs & both)))

    @property
    def losses(self) -> dict[str, dict[str, int]]:
        """How many trials of each arm were lost, by what happened; arms that lost none are absent."""
        found: dict[str, dict[str, int]] = {}
        for (arm, _), how in sorted(self.lost.items()):
            counts = found.setdefault(arm, {})
            counts[how] = counts.get(how, 0) + 1
        return found

    @cached_property
    def lost_by_arm(self) -> Mapping[str, frozenset[int]]:
        """The seeds that each arm lost; arms that lost none are absent."""
        found: dict[str, set[int]] = {}
        for arm, seed in self.lost:
            found.setdefault(arm, set()).add(seed)
        return {arm: frozenset(seeds) for arm, seeds in found.items()}


@dataclass(frozen=True)
class LostSeeds:
    """Seeds that only one of two arms lost.

    A lost seed has no difference, so it enters no interval; it is separate evidence, without a size. An arm that lost a
    seed can be found worse at best, and if the other lost one, better at best.
    """

    arm: tuple[int, ...]
    other: tuple[int, ...]

    def widen(self, interval: tuple[float, float], *, larger_is_better: bool | None) -> tuple[float, float]:
        """Open an interval of arm minus other on the side to which lost seeds point.

        Example:
            >>> LostSeeds(arm=(2,), other=()).widen((0.01, 0.03), larger_is_better=True)
            (-inf, 0.03)
        """
        low, high = interval
        ways = (True, False) if larger_is_better is None else (larger_is_better,)
        for way in ways:
            below, above = (self.arm, self.other) if way else (self.other, self.arm)
            low, high = -math.inf if below else low, math.inf if above else high
        return low, high


def fate(lost: str) -> str:
    """Say what a lost trial did.

    Example:
        >>> fate("missed"), fate("diverged")
        ('missed the target', 'diverged')
    """
    return _WORDS.get(lost, lost)


def seed_list(seeds: Sequence[int]) -> str:
    """Write seeds: ``seed 2``, ``seeds 0, 1 and 4``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
