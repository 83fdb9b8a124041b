"""Power: the smallest difference that some seeds can find, and the further seeds that an arm needs.

For one arm at one look, power is exact, from the noncentral t distribution. For several arms or looks it comes from the
simulated studies of the plan's boundary, because the scale is then no longer a single chi variable.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from scipy import integrate, optimize, special

from fairtrial.stats.boundary import LookPlan, boundary

#: Further seeds are counted up to this total; an arm that needs more is out of reach.
MOST_SEEDS = 1_000


def detectable_differences(sd: float, arms: int, seeds: Iterable[int], alpha: float = 0.05) -> dict[int, float]:
    """The smallest true difference that a study of so many seeds finds with 80% power, by number of seeds.

    Each is a separate study with a single look at its end, and the difference is that of one of the arms that are
    compared with the reference; ``sd`` is that of paired differences, and alpha is family-wise.

    Raises:
        ValueError: sd is not a positive number, or a number of seeds is below 2.

    Example:
        >>> {seeds: round(found, 2) for seeds, found in detectable_differences(0.01, 1, (3, 12)).items()}
        {3: 0.03, 12: 0.01}
    """
    if not (math.isfinite(sd) and sd > 0):
        raise ValueError(f"sd = {sd}: must be a positive number")
    return {count: sd * detectable(LookPlan.of(arms, [count]), alpha, 0) for count in seeds}


@lru_cache(maxsize=256)
def detectable(plan: LookPlan, alpha: float, look: int, power: float = 0.8) -> float:
    """The smallest true difference, in standard deviations, that a plan finds with this power up to a look."""
    if plan.arms == 1 and len(plan.looks) == 1:
        alpha = boundary(plan).level(alpha)
        seeds = plan.looks[0]
        critical = float(-special.stdtrit(seeds - 1, alpha / 2))
        return _noncentrality(seeds - 1, critical, power) / math.sqrt(seeds)
    return boundary(plan).detectable(alpha, look, power)


def _noncentrality(df: int, critical: float, power: float) -> float:
    """The noncentrality at which |t| exceeds its critical value with this probability."""

    def lacking(noncentrality: float) -> float:
        return _power(df, critical, noncentrality) - power

    if lacking(0.0) >= 0.0:
        return 0.0
    high = 1.0
    while lacking(high) < 0.0:
        high *= 2.0
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-12, rtol=1e-13))


def _power(df: int, critical: float, noncentrality: float) -> float:
    """Probability that a noncentral |t| exceeds a value: normal tails, averaged over the scale chi / sqrt(df).

    SciPy's noncentral t gives NaN in the far lower tail (1.17), which two-sided power needs.
    """
    log_constant = math.log(2.0) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)

    def weighted(scale: float) -> float:
        density = math.exp(log_constant + (df - 1) * math.log(scale) - df * scale**2 / 2)
        found = special.ndtr(noncentrality - critical * scale) + special.ndtr(-noncentrality - critical * scale)
        return float(density * found)

    reach = 12.0 / math.sqrt(2.0 * df)  # 12 standard deviations of the scale around 1; beyond, the density vanishes
    total, _ = integrate.quad(weighted, max(1.0 - reach, 0.0), 1.0 + reach, epsabs=1e-13, epsrel=1e-12, limit=200)
    return float(total)


def further_seeds(
    plan: LookPlan,
    alpha: float,
    *,
    seeds: int,
    missing: int,
    mean: float,
    scale: float,
    df: int,
    growth: int,
    margin: float | None,
) -> int | None:
    """How many further seeds would settle an arm if its mean and scale stayed as they are.

    That is the first planned look, or else the first number of seeds beyond the plan, at which the interval around
    the current mean would exclude zero or fit into the margin. The chance to be settled by then is about one half.
    Beyond the plan the last look's nominal significance is used: a guide to a new study, not a further look. None if
    more than `MOST_SEEDS` seeds would be needed.

    Seeds, mean, scale (positive) and its degrees of freedom are those of the current look; ``missing`` seeds have no
    pair in this arm. ``growth`` is the degrees of freedom that each further seed adds: the undecided arms, or 1 for an
    arm's own scale.
    """
    planned = [look for look in plan.looks if look > seeds]
    first_unplanned = max(plan.looks[-1], seeds) + 1
    later = np.array([*planned, *range(first_unplanned, MOST_SEEDS + 1)])
    tail = np.minimum(boundary(plan).level(alpha) * np.minimum(later / plan.looks[-1], 1.0), 1.0) / 2
    critical = -special.stdtrit(df + growth * (later - seeds), tail)
    half = critical * scale / np.sqrt(later - missing)
    settled = abs(mean) > half
    if margin is not None:
        settled |= abs(mean) + half <= margin
    return int(later[settled.argmax()] - seeds) if settled.any() else None
