"""Which arm is best: multiple comparisons with the best (Hsu 1984), and a mean without the winner's curse.

Each arm in turn is the base of simultaneous intervals against all others. An arm is excluded if some interval of its
base says that another arm is better. Only the intervals around an arm that is truly best must hold for it not to be
excluded, and they on one side only, so each base gets the whole alpha for that side: with probability 1 - alpha an arm
than which none is better is among those that are left. If one is left, none is better than that. Of two equal arms one
may be excluded: another is as good.

The arm with the highest mean has mostly been lucky, too. Its mean is therefore also estimated by leaving out each seed
in turn: the best arm of the other seeds is measured at the seed that was left out. Where seeds are independent, that
mean is unbiased for an arm chosen by one seed less, whatever the noise (Stone 1974, J. R. Stat. Soc. B 36, 111-147).

Hsu 1984, Constrained simultaneous confidence intervals for multiple comparisons with the best, Ann. Stat. 12,
1136-1144.
"""

from dataclasses import dataclass

import numpy as np

from fairtrial.stats.contrasts import Contrasts
from fairtrial.stats.variance import FloatArray
from fairtrial.stats.verdicts import Verdict


@dataclass(frozen=True)
class BestArm:
    """Which arms may be best, and what to expect of the one that leads."""

    candidates: tuple[str, ...]  # contain the best arm with probability 1 - alpha; one alone is the best
    excluded: tuple[str, ...]  # the other arms: some arm is as good or better
    leader: str | None  # of the arms that lost no seed, that with the best mean over the seeds that they all have
    seeds: int  # how many those are
    mean: float | None  # its mean, too good by selection
    corrected: float | None  # what its choice is worth at a new seed; None below three seeds


def best_arm(contrasts: Contrasts, alpha: float) -> BestArm:
    """Find the arms that may be best on a measure."""
    arms = contrasts.arms
    both_sides = one_sided(alpha)
    families = {base: contrasts.with_base(base, [arm for arm in arms if arm != base], both_sides) for base in arms}
    beaten = {
        base for base, family in families.items() if any(row.verdict is Verdict.BETTER for row in family.comparisons)
    }
    candidates, excluded = (tuple(arm for arm in arms if (arm in beaten) is which) for which in (False, True))
    sound, table = _common(contrasts)
    if not table.size:
        return BestArm(candidates, excluded, None, 0, None, None)
    sign = 1.0 if contrasts.evidence.larger_is_better else -1.0
    leader = int((sign * table.mean(axis=0)).argmax())
    corrected = sign * left_out_mean(sign * table) if len(table) > 2 else None
    return BestArm(candidates, excluded, sound[leader], len(table), float(table[:, leader].mean()), corrected)


def one_sided(alpha: float) -> float:
    """The alpha of two-sided intervals of which only one side counts, the same for all: 1 - (1 - alpha)^2.

    The two sides err equally often and hardly ever together: an arm that seems better than the base makes it no
    likelier that another one seems worse. Simulations confirm it (benchmarks/questions.py).
    """
    return 1.0 - (1.0 - alpha) ** 2


def ranking(contrasts: Contrasts) -> tuple[str, ...]:
    """Order the arms that lost no seed by their means over the seeds that all of them have, the best first."""
    sound, table = _common(contrasts)
    means = table.mean(axis=0) if table.size else np.zeros(0)
    order = np.argsort(-means if contrasts.evidence.larger_is_better else means, kind="stable")
    return tuple(sound[index] for index in order)


def _common(contrasts: Contrasts) -> tuple[list[str], FloatArray]:
    """The arms that lost no seed, and their values, (seeds, arms), at the seeds that all of them have."""
    values, lost = contrasts.data.values, {arm for arm, _ in contrasts.data.lost}
    sound = [arm for arm in contrasts.arms if arm not in lost]
    seeds = [seed for seed in range(contrasts.main.seeds) if all((arm, seed) in values for arm in sound)]
    return sound, np.array([[values[arm, seed] for arm in sound] for seed in seeds])


def left_out_mean(values: FloatArray) -> float:
    """Mean of the arm that is best at all other seeds, over the seeds; values are (seeds, arms), larger is better.

    Example:
        >>> left_out_mean(np.array([[1.0, 0.0], [1.0, 6.0], [1.0, 0.0], [1.0, 0.0]]))
        0.25
    """
    chosen = (values.sum(axis=0) - values).argmax(axis=1)
    return float(values[np.arange(len(values)), chosen].mean())
