"""Finds runs far from the other runs of their arm: those that did not work, where a study set no floor.

The runs of an arm are cut at their largest gap. The gap is measured in standard deviations: that of the larger part,
or the median of those of the other arms, whichever is larger. If it exceeds `GAPS`, the worse part fell behind, and its
runs count as lost. But where the worse part is the larger one, and the other arms' runs are typically like it, the
better part is ahead, and nothing is lost.

`GAPS` are simulated (docs/evidence.md): in a study of equally noisy arms with normal noise, looked at after every seed
from 3 to 12, the probability that any run is ever far from the others is below 0.5%.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median, stdev

from fairtrial.stats.joined import Key

#: The smallest gap, in standard deviations of the larger part, by its number of runs.
GAPS = {2: 80.0, 3: 30.0}
#: The same for larger parts.
GAP = 12.0


@dataclass(frozen=True)
class Outliers:
    """Runs far from the others of their arm."""

    behind: dict[Key, float] = field(default_factory=dict)  # on the worse side: they count as lost
    ahead: dict[Key, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Cut:
    """An arm's runs, turned so that higher is better, cut at their largest gap."""

    arm: str
    low: tuple[tuple[float, int], ...]  # values and seeds
    high: tuple[tuple[float, int], ...]

    @classmethod
    def of(cls, arm: str, runs: list[tuple[float, int]]) -> "_Cut":
        runs = sorted(runs)
        at = max(range(1, len(runs)), key=lambda index: runs[index][0] - runs[index - 1][0])
        return cls(arm, tuple(runs[:at]), tuple(runs[at:]))

    @property
    def larger(self) -> tuple[float, ...]:
        """The values of the larger part; of equal parts the better one."""
        return tuple(value for value, _ in (self.low if len(self.low) > len(self.high) else self.high))

    @property
    def gap(self) -> float:
        return self.high[0][0] - self.low[-1][0]


def find_outliers(values: Mapping[Key, float], *, larger_is_better: bool) -> Outliers:
    """Find the outlying runs of a study by the values of its runs.

    Arms with fewer than three runs have none, and neither has a study with a single such arm. What shifts all arms of a
    seed alike makes no run outlying.

    Example:
        >>> runs = {"a": [0.84, 0.85, 0.86, 0.85], "b": [0.86, 0.10, 0.87, 0.88]}
        >>> keyed = {(arm, seed): value for arm, row in runs.items() for seed, value in enumerate(row)}
        >>> find_outliers(keyed, larger_is_better=True).behind
        {('b', 1): 0.1}
    """
    by_arm: dict[str, list[tuple[float, int]]] = {}
    for (arm, seed), value in values.items():
        by_arm.setdefault(arm, []).append((value if larger_is_better else -value, seed))
    cuts = [_Cut.of(arm, runs) for arm, runs in by_arm.items() if len(runs) > 2]
    found = [
        (cut, others) for cut in cuts if (others := [one for one in cuts if one is not cut]) and _apart(cut, others)
    ]
    ahead = {cut.arm for cut, others in found if _is_ahead(cut, others)}
    usual = {cut.arm: median(cut.larger) for cut in cuts}
    usual |= {cut.arm: median(value for value, _ in (cut.low if cut.arm in ahead else cut.high)) for cut, _ in found}
    off = {(cut.arm, seed): value - usual[cut.arm] for cut in cuts for value, seed in (*cut.low, *cut.high)}
    outliers = Outliers({}, {})
    for cut, _ in found:
        runs, into = (cut.high, outliers.ahead) if cut.arm in ahead else (cut.low, outliers.behind)
        keys = [(cut.arm, seed) for _, seed in runs if abs(_alone(off, cut.arm, seed)) > cut.gap / 2]
        into.update({key: values[key] for key in keys})
    return outliers


def _alone(off: Mapping[Key, float], arm: str, seed: int) -> float:
    """How far a run is off the usual level of its arm, beyond what the other arms are at that seed."""
    others = [value for (name, number), value in off.items() if number == seed and name != arm]
    return off[arm, seed] - (median(others) if others else 0.0)


def _apart(cut: _Cut, others: list[_Cut]) -> bool:
    """Tell whether an arm's largest gap is too large for the noise of its runs and of the other arms'."""
    spread = max(stdev(cut.larger), median(stdev(other.larger) for other in others), _resolution([cut, *others]))
    return cut.gap > GAPS.get(len(cut.larger), GAP) * spread


def _is_ahead(cut: _Cut, others: list[_Cut]) -> bool:
    """Tell whether the better part is the outlying one: it is the smaller, and better than other arms' typical runs."""
    if len(cut.low) <= len(cut.high):
        return False
    typical = median(median(other.larger) for other in others)
    return abs(cut.high[0][0] - typical) > abs(cut.low[-1][0] - typical)


def _resolution(cuts: list[_Cut]) -> float:
    """The smallest step between values: rounded values can be equal by chance, which is no sign of little noise."""
    values = sorted(value for cut in cuts for value, _ in (*cut.low, *cut.high))
    return min(_steps(values), default=0.0)


def _steps(values: list[float]) -> Iterator[float]:
    rounding = 1e-9 * max(map(abs, values))
    for low, high in pairwise(values):
        if high - low > rounding:
            yield high - low
