"""Finds runs far from the other runs of their arm: those that did not work, where a study set no floor.

The runs of an arm are cut at their largest gap. The gap is measured in standard deviations: that of the larger part,
or the median of those of the other arms, whichever is larger. If it exceeds `GAPS`, the worse part fell behind, and its
runs count as lost. But where the worse part is the larger one, and the other arms' runs are typically like it, the
better part is ahead, and nothing is lost.

`GAPS` are simulated (docs/evidence.md): in a study of equally noisy arms with normal noise, looked at after every seed
from 3 to 12, the probability that any run is ever far from the others is below 0.5%.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from fairtrial.stats.joined import Key
from fairtrial.stats.variance import BoolArray, FloatArray, IntArray

#: The smallest gap, in standard deviations of the larger part, by its number of runs.
GAPS = {2: 80.0, 3: 30.0}
#: The same for larger parts.
GAP = 12.0


@dataclass(frozen=True)
class Outliers:
    """Runs far from the others of their arm."""

    behind: dict[Key, float] = field(default_factory=dict)  # on the worse side: they count as lost
    ahead: dict[Key, float] = field(default_factory=dict)


def find_outliers(values: Mapping[Key, float], *, larger_is_better: bool, paired: bool = True) -> Outliers:
    """Find the outlying runs of a study by the values of its runs.

    Arms with fewer than three runs have none, and neither has a study with a single such arm. What shifts all arms of a
    seed alike makes no run outlying, if runs are paired.

    Example:
        >>> runs = {"a": [0.84, 0.85, 0.86, 0.85], "b": [0.86, 0.10, 0.87, 0.88]}
        >>> keyed = {(arm, seed): value for arm, row in runs.items() for seed, value in enumerate(row)}
        >>> find_outliers(keyed, larger_is_better=True).behind
        {('b', 1): 0.1}
    """
    arms = {arm: column for column, arm in enumerate(dict.fromkeys(arm for arm, _ in values))}
    table = np.full((max((seed for _, seed in values), default=-1) + 1, len(arms)), np.nan)
    for (arm, seed), value in values.items():
        table[seed, arms[arm]] = value
    behind, ahead = far_runs(table, larger_is_better=larger_is_better, paired=paired)
    names = [*arms]
    keys = [
        [(names[column], int(seed)) for column, seed in zip(*np.nonzero(found.T), strict=True)]
        for found in (behind, ahead)
    ]
    return Outliers(*({key: values[key] for key in found} for found in keys))


def far_runs(values: FloatArray, *, larger_is_better: bool, paired: bool = True) -> tuple[BoolArray, BoolArray]:
    """Find the runs far behind, and those far ahead, in values of (seeds, arms), NaN where there is none."""
    turned = values if larger_is_better else -values
    cuts = _Cuts.of(turned)
    behind, ahead = np.zeros(values.shape, bool), np.zeros(values.shape, bool)
    found = [arm for arm in np.flatnonzero(cuts.wide).tolist() if cuts.usable.sum() > 1 and cuts.apart(arm)]
    if not found:
        return behind, ahead
    leading = {arm for arm in found if cuts.leads(arm)}
    usual = np.array([cuts.usual(arm, arm in leading if arm in found else None) for arm in range(values.shape[1])])
    off = turned - usual
    for arm in found:
        split = cuts.ascending[cuts.low[arm], arm]
        far = np.abs(_alone(off, arm) if paired else off[:, arm]) > cuts.gap[arm] / 2
        if arm in leading:
            ahead[:, arm] = far & (turned[:, arm] >= split)
        else:
            behind[:, arm] = far & (turned[:, arm] < split)
    return behind, ahead


@dataclass(frozen=True)
class _Cuts:
    """The runs of each arm, turned so that higher is better, cut at their largest gap; arrays are (arms,)."""

    ascending: FloatArray  # (seeds, arms), the values in order, and then NaN
    count: IntArray
    low: IntArray  # how many runs are below the gap
    gap: FloatArray
    spread: FloatArray  # standard deviation of the larger part; of equal parts the better one counts

    @classmethod
    def of(cls, values: FloatArray) -> "_Cuts":
        ascending, count = np.sort(values, axis=0), np.isfinite(values).sum(axis=0)
        gaps = np.nan_to_num(np.diff(ascending, axis=0), nan=-1.0)
        ranks = np.arange(len(values))[:, None]
        low = gaps.argmax(axis=0) + 1 if len(gaps) else np.zeros_like(count)
        larger = np.where(low > count - low, ranks < low, (ranks >= low) & (ranks < count))
        number = np.maximum(larger.sum(axis=0), 1)
        rest = np.where(larger, ascending - np.where(larger, ascending, 0.0).sum(axis=0) / number, 0.0)
        spread = np.sqrt((rest**2).sum(axis=0) / np.maximum(number - 1, 1))
        return cls(ascending, count, low, gaps.max(axis=0, initial=-1.0), spread)

    @property
    def usable(self) -> BoolArray:
        """Which arms have enough runs."""
        return self.count > 2

    @property
    def wide(self) -> BoolArray:
        """Which gaps are too large for the noise of the arm's own runs."""
        return self.usable & (self.gap > self._limit() * self.spread)

    def apart(self, arm: int) -> bool:
        """Tell whether an arm's largest gap is also too large for the noise of the other arms'."""
        spread = max(float(np.median(self.spread[self._others(arm)])), self._resolution())
        return bool(self.gap[arm] > self._limit()[arm] * spread)

    def leads(self, arm: int) -> bool:
        """Tell whether the better part is the outlying one: smaller, and better than other arms' typical runs."""
        low = self.low[arm]
        if low <= self.count[arm] - low:
            return False
        typical = np.median(self._typical[self._others(arm)])
        below, above = self.ascending[low - 1, arm], self.ascending[low, arm]
        return bool(abs(above - typical) > abs(below - typical))

    @cached_property
    def _typical(self) -> FloatArray:
        return np.array([self.usual(arm, None) for arm in range(len(self.count))])

    def usual(self, arm: int, leading: bool | None) -> float:
        """The usual value of an arm: of its part that is not outlying, or of the larger if none is (None)."""
        low, count = self.low[arm], self.count[arm]
        if count <= 2:
            return np.nan
        below = low > count - low if leading is None else leading
        return float(np.median(self.ascending[slice(0, low) if below else slice(low, count), arm]))

    def _limit(self) -> FloatArray:
        number = np.maximum(self.low, self.count - self.low)
        return np.select([number == least for least in GAPS], list(GAPS.values()), GAP)

    def _others(self, arm: int) -> IntArray:
        return np.flatnonzero(self.usable & (np.arange(len(self.count)) != arm))

    def _resolution(self) -> float:
        """The smallest step between values: rounded values can be equal by chance, which is no sign of little noise."""
        values = np.sort(self.ascending[:, self.usable], axis=None)
        values = values[np.isfinite(values)]
        steps = np.diff(values)
        steps = steps[steps > 1e-9 * np.abs(values).max()]
        return float(steps.min()) if steps.size else 0.0


def _alone(off: FloatArray, arm: int) -> FloatArray:
    """How far each run of an arm is off its usual level, beyond what the other arms are at that seed."""
    others = np.delete(off, arm, axis=1)
    some = np.isfinite(others).any(axis=1)
    typical = np.zeros(len(off))
    typical[some] = np.nanmedian(others[some], axis=1)
    return off[:, arm] - typical
