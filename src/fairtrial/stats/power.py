"""Power: the smallest difference that some seeds can find, and the further seeds that an arm needs.

For one arm at one look, power is exact, from the noncentral t distribution. For several arms or looks it comes from the
simulated studies of the plan's boundary, because the scale is then no longer a single chi variable.
"""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.boundary import boundary
from fairtrial.stats.looks import LookPlan, next_share

#: Further seeds are counted up to this total; an arm that needs more is out of reach.
MOST_SEEDS = 1_000

#: Simulated continuations of a study, to predict when an arm settles.
FUTURES = 1_000

#: Single looks after more seeds have the level of one after so many, which is in the table of levels. Of more arms than
#: this, all have the level of one after as many seeds as the plan has.
LARGEST_TABULATED, MOST_ARMS = 15, 10


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
    """The noncentrality at which |t| exceeds its critical value with this probability, by bisection.

    SciPy's root finders and quadrature would do, but take a tenth of a second to load, which every small study's
    verdict would wait for.
    """
    if _power(df, critical, 0.0) >= power:
        return 0.0
    low, high = 0.0, 1.0
    while _power(df, critical, high) < power:
        low, high = high, 2.0 * high
    while low < (middle := (low + high) / 2.0) < high:
        low, high = (middle, high) if _power(df, critical, middle) < power else (low, middle)
    return high


def _power(df: int, critical: float, noncentrality: float) -> float:
    """Probability that a noncentral |t| exceeds a value: normal tails, averaged over the scale chi / sqrt(df).

    SciPy's noncentral t gives NaN in the far lower tail (1.17), which two-sided power needs.
    """
    scales, weights = _scales(df)
    tails = special.ndtr(noncentrality - critical * scales) + special.ndtr(-noncentrality - critical * scales)
    return float(weights @ tails)


@lru_cache(maxsize=256)
def _scales(df: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Nodes and weights for means over the scale chi / sqrt(df), by Gauss and Legendre's quadrature."""
    log_constant = math.log(2.0) + df / 2 * math.log(df / 2) - math.lgamma(df / 2)
    reach = 12.0 / math.sqrt(2.0 * df)  # 12 standard deviations of the scale around 1; beyond, the density vanishes
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low, high = max(1.0 - reach, 0.0), 1.0 + reach
    scales = low + (high - low) / 2.0 * (nodes + 1.0)
    density = np.exp(log_constant + (df - 1) * np.log(scales) - df * scales**2 / 2)
    return scales, (high - low) / 2.0 * weights * density


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
    side: int = 0,
) -> int | None:
    """How many further seeds settle an arm with an even chance, if it goes on as it began.

    The true difference has the distribution that the mean so far leaves (normal, from a flat prior), the scale stays as
    it is, and further seeds are simulated. The arm is settled at the first planned look at which the interval
    excludes zero or fits into the margin, which counts on both sides of zero unless ``side`` says on which. Beyond the
    plan there is one more look: the next stage if the plan leaves a share of alpha, with the level of its own part
    (`boundary.next_share`), otherwise that of a new study of the same size. The answer is the look by which nearest to
    half of the simulated arms are settled; None if that takes more than `MOST_SEEDS` seeds.

    Seeds, mean, scale (positive) and its degrees of freedom are those of the current look; ``missing`` seeds have no
    pair in this arm. ``growth`` is the degrees of freedom that each further seed adds: the undecided arms, or 1 for an
    arm's own scale.
    """
    planned = [look for look in plan.looks if look > seeds]
    later = np.array([*planned, *_beyond(max(plan.looks[-1], seeds))])
    if not later.size:
        return None
    level = boundary(plan).level(alpha) * later[: len(planned)] / plan.looks[-1]
    tail = np.minimum(np.r_[level, _next_levels(plan, alpha, later[len(planned) :])], 1.0) / 2
    half = -special.stdtrit(df + growth * (later - seeds), tail) / np.sqrt(later - missing)
    means = mean / scale + _future(seeds, tuple(later))
    settled = np.abs(means) > half
    if margin is not None:
        settled |= (-side * means if side else np.abs(means)) + half <= margin / scale
    settled[:, : len(planned)] = np.maximum.accumulate(settled[:, : len(planned)], axis=1)
    if planned:  # the look beyond the plan comes after all the planned ones
        settled[:, len(planned) :] |= settled[:, len(planned) - 1 : len(planned)]
    chance = settled.mean(axis=0)
    first = int((chance >= 0.5).argmax())
    if chance[first] < 0.5:
        return None
    nearer = first > 0 and 0.5 - chance[first - 1] < chance[first] - 0.5
    return int(later[first - nearer] - seeds)


def _beyond(last: int) -> list[int]:
    """Numbers of seeds beyond the last look to try: each at first, then in steps of a twentieth."""
    found = [last + 1]
    while found[-1] < MOST_SEEDS:
        found.append(found[-1] + max(1, found[-1] // 20))
    return [seeds for seeds in found if seeds <= MOST_SEEDS]


def _next_levels(plan: LookPlan, alpha: float, later: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Levels of one look after so many seeds beyond the plan; the number of seeds hardly matters to them."""
    share = next_share(plan.share) - plan.share if plan.share < 1.0 else 1.0
    sizes = np.minimum(later, LARGEST_TABULATED) if plan.arms <= MOST_ARMS else np.full_like(later, plan.looks[-1])
    levels = {size: boundary(LookPlan.of(plan.arms, [size], plan.pooling)).level(alpha * share) for size in {*sizes}}
    return np.array([levels[size] for size in sizes])


@lru_cache(maxsize=4)  # an answer has up to eight megabytes, and all arms of a study ask for the same
def _future(seeds: int, later: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """How far the mean moves from the current one, in scales; (futures, later looks).

    The mean after n of N seeds moves with variance 1 / n - 1 / N, with independent steps, if the prior is flat. Half of
    the futures are the others mirrored.
    """
    moved = 1.0 / seeds - 1.0 / np.array(later)
    steps = np.sqrt(np.diff(moved, prepend=0.0))
    paths = (np.random.default_rng(FUTURES).standard_normal((FUTURES // 2, len(later))) * steps).cumsum(axis=1)
    return np.concatenate([paths, -paths])
