"""One measure of every trial, joined by arm and seed: what comparisons and claims are made from.

A trial that diverged, failed or missed its target has no number. It is *lost*, and that counts: a seed that an arm lost
and the other did not speaks against the arm, whatever the seeds say that both finished. See `LostSeeds`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairtrial.measures import measure, missed
from fairtrial.spec import Study, Target
from fairtrial.stats.summary import join
from fairtrial.trial import Outcome, TrialResult

#: How a trial can be lost.
MISSED = "missed"

#: A trial: arm and seed.
Key = tuple[str, int]


@dataclass(frozen=True)
class PairedData:
    """One measure of a study's trials.

    Attributes:
        values: the measure of each finished trial that has it.
        lost: of the trials that ended without: ``"diverged"``, ``"failed"`` or ``"missed"`` (the target).
        unreported: finished trials that did not report the metric, or no finite number.
        pending: trials that have begun and not ended.
    """

    values: Mapping[Key, float]
    lost: Mapping[Key, str]
    unreported: frozenset[Key]
    pending: frozenset[Key]

    @classmethod
    def of(cls, study: Study, results: Sequence[TrialResult], metric: str, target: Target | None) -> "PairedData":
        """Take a measure of every trial.

        Raises:
            ValueError: a result is not of this study, one trial is there twice, or there is no such measure.
        """
        taken = measure(metric, study.evidence.direction if metric == study.evidence.metric else None)
        values: dict[Key, float] = {}
        lost: dict[Key, str] = {}
        unreported, pending = set(), set()
        for key, trial in join(study, results).items():
            if trial.outcome is None:
                pending.add(key)
            elif trial.outcome is not Outcome.FINISHED:
                lost[key] = trial.outcome.value
            elif (value := taken.of(trial.epochs, target)) is not None:
                values[key] = value
            elif taken.needs_target and target is not None and missed(target, trial.epochs):
                lost[key] = MISSED
            else:
                unreported.add(key)
        return cls(values, lost, frozenset(unreported), frozenset(pending))

    @property
    def ended(self) -> frozenset[Key]:
        """The trials that have ended, one way or another."""
        return frozenset({*self.values, *self.lost, *self.unreported})

    def differences(
        self, centre: str, others: Sequence[str], seeds: int, *, relative: bool = False
    ) -> npt.NDArray[np.float64]:
        """Each of the others minus the centre, NaN where a seed lacks one of the two.

        Args:
            centre: the arm that the others are compared with.
            others: arms, one a column.
            seeds: rows; row s is seed s.
            relative: divide by the size of the centre's value.

        Returns:
            Shape (seeds, others).
        """
        table = np.full((seeds, len(others)), np.nan)
        for seed in range(seeds):
            base = self.values.get((centre, seed), math.nan)
            for column, arm in enumerate(others):
                table[seed, column] = self.values.get((arm, seed), math.nan) - base
            if relative:
                table[seed] = table[seed] / abs(base) if base else math.nan
        return table

    def standing(self, arm: str, other: str) -> "LostSeeds":
        """Tell which seeds one of two arms lost and the other did not."""
        ours, theirs = ({seed for name, seed in self.lost if name == which} for which in (arm, other))
        both = {seed for _, seed in self.ended if {(arm, seed), (other, seed)} <= self.ended}
        return LostSeeds(tuple(sorted((ours - theirs) & both)), tuple(sorted((theirs - ours) & both)))


@dataclass(frozen=True)
class LostSeeds:
    """Seeds that only one of two arms lost.

    Lost seeds have no difference, so no interval knows of them; they are evidence of their own, without a size. An arm
    that lost a seed can be found worse at best, and where the other lost one, better at best.

    Attributes:
        arm: seeds that the arm lost and the other did not.
        other: the other way round.
    """

    arm: tuple[int, ...]
    other: tuple[int, ...]

    def widen(self, interval: tuple[float, float], *, larger_is_better: bool | None) -> tuple[float, float]:
        """Open an interval of arm minus other on the side to which lost seeds point: what may be concluded from.

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
