"""Replays a sequential study seed by seed: which arms stop, after how many seeds, and why.

A replay takes results as they come and looks once after each seed that is complete. So a study that has all its trials
costs as many looks as it has seeds, and one that is running costs one more look per seed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairtrial import progress
from fairtrial.history import History
from fairtrial.spec import Study
from fairtrial.stats.failures import failures_among
from fairtrial.stats.identical import Pair, same_at, without_difference
from fairtrial.stats.joined import by_arm
from fairtrial.stats.judge import verdict_of
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.outliers import far_runs
from fairtrial.stats.paired import LostSeeds, PairedData
from fairtrial.stats.pairing import find_conflict
from fairtrial.stats.sequential import Looks
from fairtrial.stats.stages import standing, without
from fairtrial.stats.stopping import stop_reason
from fairtrial.stats.variance import BoolArray, FloatArray
from fairtrial.stats.verdicts import Comparison
from fairtrial.trial import TrialResult


def replayed(study: Study, results: Sequence[TrialResult], *, history: History | None = None) -> "Replay":
    """Replay a study on all of its results."""
    replay = Replay(study, history)
    replay.add(results)
    return replay


class Stops:
    """The stopping rule of `fairtrial.scheduler` by a study's verdicts, which remembers the looks that it has taken.

    Args:
        history: what was asked of the study's trials before, as it is now; None for nothing.
    """

    def __init__(self, history: Callable[[], History | None]) -> None:
        self._read_history = history
        self._history: History | None = None
        self._replay: Replay | None = None
        self._added = 0

    def __call__(self, study: Study, results: Sequence[TrialResult]) -> Mapping[str, str]:
        """Say which arms have stopped, and why; ``results`` begin with those of the call before."""
        history = self._read_history()
        if self._replay is None or history != self._history:
            self._replay, self._history, self._added = Replay(study, history), history, 0
        self._replay.add(results[self._added :])
        self._added = len(results)
        return self._replay.stopped


class Replay:
    """The looks at a sequential study by its own measure.

    A look uses nothing of later seeds, and of an arm that has stopped no more than the seeds that it had then: another
    study in the same store may have trained it further.

    Attributes:
        seeds: how many are complete: all arms have ended them that had not stopped.
        stopped: why arms have stopped, by name.
        over: whether all arms have, so that the reference has, too.

    Example:
        >>> replay = Replay(study)
        >>> replay.add(results)
        >>> replay.seeds, replay.stopped
        (5, {'low_beta2': 'its verdict is settled'})
    """

    def __init__(self, study: Study, history: History | None = None) -> None:
        self._study, self._evidence = study, study.evidence
        self._standing = standing(study, history, self._evidence.metric, self._evidence.target)
        self._others = [arm.name for arm in study.arms if arm.name != study.reference]
        self._columns = {arm: column for column, arm in enumerate([study.reference, *self._others])}
        shape = (study.seeds, len(self._columns))
        self._values, self._lost, self._ended = np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, bool)
        self._limits = np.full(len(self._columns), study.seeds)  # seeds that count, of each arm
        self._pairs = {arm: Pair() for arm in self._others}
        self._conflicts: dict[str, tuple[int, str]] = {}
        self._larger_is_better: bool | None = None
        self._looks: tuple[tuple[list[str], list[int]], Looks] | None = None
        self.seeds, self.over = 0, False
        self.stopped: dict[str, str] = {}

    def add(self, results: Sequence[TrialResult]) -> None:
        """Add results of trials that have none yet, and take all looks that they complete."""
        data = PairedData.of(self._study, results, self._evidence.metric, self._evidence.target)
        self._larger_is_better = data.larger_is_better
        for keys, table in ((data.lost, self._lost), (data.ended, self._ended)):
            for arm, seed in keys:
                table[seed, self._columns[arm]] = True
        for (arm, seed), value in data.values.items():
            self._values[seed, self._columns[arm]] = value
        self._add_pairs(results, data)
        first, most = self.seeds, self._study.seeds
        while not self.over and self.seeds < most and self._complete(self.seeds):
            progress.report(self.seeds - first, most - first, "looks")
            self.seeds += 1
            if self.seeds >= self._study.min_seeds:
                self._look()
        progress.report(most - first, most - first, "looks")

    def _add_pairs(self, results: Iterable[TrialResult], data: PairedData) -> None:
        """Note at which seeds arms conflict with the reference, or are the same."""
        trials = by_arm(results)
        reference = {one.seed: one for one in trials.get(self._study.reference, [])}
        for arm in self._others:
            own = {one.seed: one for one in trials.get(arm, [])}
            if arm not in self._conflicts:
                both = [*reference.values(), *own.values()]
                if conflict := find_conflict(self._study, self._study.reference, arm, both):
                    self._conflicts[arm] = conflict
            for seed in sorted(own.keys() & reference.keys()):
                self._pairs[arm].add(seed, same_at(reference[seed], own[seed], data.values))

    def _complete(self, seed: int) -> bool:
        """Whether all arms have ended a seed that have not stopped."""
        return bool((self._ended[seed] | (self._limits <= seed)).all())

    def _look(self) -> None:
        """Look after the complete seeds."""
        counted = np.arange(self.seeds)[:, None] < self._limits
        values = np.where(counted, self._values[: self.seeds], np.nan)
        lost, ended = (counted & table[: self.seeds] for table in (self._lost, self._ended))
        ahead = np.zeros(values.shape, bool)
        if self._larger_is_better is not None:
            behind, ahead = far_runs(values, larger_is_better=self._larger_is_better)
            values[behind], lost = np.nan, lost | behind
        below = dict(zip(self._columns, np.minimum(self._limits, self.seeds).tolist(), strict=True))
        refused = {arm for arm, (seed, _) in self._conflicts.items() if seed < below[arm]}
        same = {arm: shared for arm, pair in self._pairs.items() if (shared := pair.seeds(below[arm]))}
        same = {arm: shared for arm, shared in same.items() if arm not in refused}
        leading = {arm for arm, column in self._columns.items() if ahead[:, column].any()}
        rows = self._judge(values, leading, refused, same)
        found = {arm: self._reason(rows[arm], lost, ended) for arm in self._others}
        if self.seeds > 1:
            found |= dict.fromkeys(same, f"its trials are identical to those of {self._study.reference}")
        found |= dict.fromkeys(refused, f"its trials are not paired with those of {self._study.reference}")
        self._stop({arm: reason for arm, reason in found.items() if reason and arm not in self.stopped})

    def _judge(
        self, values: FloatArray, leading: Collection[str], refused: Collection[str], same: Mapping[str, int]
    ) -> dict[str, Comparison]:
        """The verdict on each arm by the seeds with a result, and the number of these; nothing else of a comparison."""
        rows = {arm: Comparison.nothing(arm) for arm in self._others}
        bound, one_sided = self._evidence.bound, self._evidence.one_sided
        for arm, shared in same.items():
            rows[arm] = without_difference(rows[arm], self._study.reference, shared, bound, one_sided=one_sided)
        arms = [arm for arm in self._others if arm not in refused and arm not in same]
        if not arms:
            return rows
        columns = [self._columns[arm] for arm in arms]
        judged = self._looks_at(arms, leading).take(values[:, columns] - values[:, :1])
        sign = 1 if self._evidence.larger_is_better else -1
        for arm, finding, count in zip(arms, judged.finding.tolist(), judged.count.tolist(), strict=True):
            verdict = verdict_of(finding, sign, one_sided=one_sided)
            rows[arm] = replace(rows[arm], seeds=count, verdict=verdict)
        return rows

    def _looks_at(self, arms: list[str], leading: Collection[str]) -> Looks:
        """The looks at some arms; new ones if they, or those that are apart, are others than before."""
        apart = [n for n, arm in enumerate(arms, start=1) if arm in self._study.twins or arm in leading]
        key = arms, apart
        if self._looks is None or self._looks[0] != key:
            judged = {*arms}
            left_out = {n for n, arm in enumerate(self._others, start=1) if arm not in judged}
            plan = LookPlan.of(
                len(arms),
                self._standing.looks or (2,),
                self._evidence.pooling or "guarded",
                earlier=without(self._standing.earlier, len(self._others), left_out),
                share=self._standing.share,
                apart=apart,
            )
            side = (1 if self._evidence.larger_is_better else -1) * self._evidence.one_sided
            self._looks = key, Looks(plan, self._study.interval_alpha, self._evidence.bound, side)
        return self._looks[1]

    def _reason(self, row: Comparison, lost: BoolArray, ended: BoolArray) -> str:
        """Why an arm stops now; empty if it goes on."""
        column = self._columns[row.arm]
        one_only = np.flatnonzero(ended[:, 0] & ended[:, column] & (lost[:, 0] != lost[:, column]))
        ours = lost[one_only, column]
        seeds = LostSeeds(tuple(one_only[ours].tolist()), tuple(one_only[~ours].tolist()))
        failures = failures_among(ours.tolist(), (~ours).tolist(), len(self._others))
        return stop_reason(self._study, row, seeds, failures, self.seeds)

    def _stop(self, found: Mapping[str, str]) -> None:
        """Stop arms; with the last one that is no A/A arm, the A/A arms stop, too."""
        self.stopped |= found
        tested = {*self._others} - self._study.twins.keys()
        if tested and tested <= self.stopped.keys():
            self.stopped = dict.fromkeys(self._study.twins, "no other arm is left to check") | self.stopped
        for arm in self.stopped:
            column = self._columns[arm]
            self._limits[column] = min(self._limits[column], self.seeds)
        self.over = self.stopped.keys() >= {*self._others}
