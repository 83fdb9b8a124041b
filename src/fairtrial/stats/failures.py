"""Failures as a comparison of their own: does an arm lose more seeds than the reference?

Only seeds that one of the two lost and the other did not are informative. If both fail equally often, each of those is
the arm's with probability 1/2 (McNemar 1947, Psychometrika 12, 153-157). The evidence that the arm fails more often is
a likelihood ratio against 1/2: three quarters of it that all such seeds are the arm's, a quarter that their share is
uniform between 1/2 and 1. It is a test martingale, so that by Ville's inequality it ever exceeds 1/p with probability
at most p, however often one looks and whenever one stops (Shafer, Shen, Vereshchagin & Vovk 2011, Statistical Science
26, 84-101). p-values are doubled for the two directions and multiplied by the number of arms.

The test takes nothing from the other verdicts. An arm that lost a seed can't be found better, so the alpha of that side
is unused, and it pays for the test: docs/evidence.md has simulations.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from fairtrial.stats.paired import PairedData
from fairtrial.stats.verdicts import Failures, Verdict

#: The part of the likelihood ratio that says that all informative seeds are one arm's.
_ALL = 0.75


def compare_failures(data: PairedData, arm: str, reference: str, seeds: int, arms: int) -> Failures:
    """Compare how often an arm and the reference lose one of the first seeds, in a study of so many other arms.

    Example:
        >>> compare_failures(data, "wild", "baseline", seeds=12, arms=4).p_adjusted       # doctest: +SKIP
        0.0026
    """
    ended = data.ended
    both = [seed for seed in range(seeds) if (arm, seed) in ended and (reference, seed) in ended]
    ours, theirs = ([(name, seed) in data.lost for seed in both] for name in (arm, reference))
    return failures_among(ours, theirs, arms)


def failures_among(ours: Sequence[bool], theirs: Sequence[bool], arms: int) -> Failures:
    """Compare an arm's failures with the reference's, seed by seed, in a study of so many arms beside the reference."""
    apart = [(one, other) for one, other in zip(ours, theirs, strict=True) if one is not other]
    only_arm = sum(one for one, _ in apart)
    smallest = min(_p_values([one for one, _ in apart])), min(_p_values([other for _, other in apart]))
    return Failures(
        seeds=len(ours),
        arm=sum(ours),
        reference=sum(theirs),
        only_arm=only_arm,
        only_reference=len(apart) - only_arm,
        p_adjusted=min(2.0 * arms * min(smallest), 1.0),
        side="arm" if smallest[0] < smallest[1] else "reference",
        highest_rate=_highest_rate(sum(ours), len(ours)),
    )


def compare_rates(lost: int, runs: int, reference_lost: int, reference_runs: int, arms: int) -> Failures:
    """Compare how many of its runs an arm lost with how many the reference did, where runs are not paired.

    The test is Fisher's exact one (1935), for one look; p is doubled for the two directions, and multiplied by the
    number of arms. Means can only err where one of the two lost all the runs that were lost. If that is significant, it
    is a verdict by failures anyway; if not, that side's part of alpha is unspent. So verdicts by means and by failures
    together err in at most alpha.

    Example:
        >>> round(compare_rates(5, 6, 0, 6, arms=1).p_adjusted, 4)
        0.0152
    """
    total, both = lost + reference_lost, runs + reference_runs

    def tail(failed: int, number: int) -> float:  # at least so many of the lost ones among a number of runs
        ways = (math.comb(number, one) * math.comb(both - number, total - one) for one in range(failed, total + 1))
        return sum(ways) / math.comb(both, total)

    ours, theirs = tail(lost, runs), tail(reference_lost, reference_runs)
    return Failures(
        seeds=runs,
        arm=lost,
        reference=reference_lost,
        only_arm=lost,
        only_reference=reference_lost,
        p_adjusted=min(2.0 * arms * min(ours, theirs), 1.0),
        side="arm" if ours < theirs else "reference",
        highest_rate=_highest_rate(lost, runs),
        reference_runs=reference_runs,
    )


def failure_caveats(found: Failures, reference: str, verdict: Verdict, alpha: float) -> Iterator[str]:
    """Say what failures show, and what no failure does not show, beside the verdict of the seeds with a result."""
    unpaired = found.reference_runs is not None
    if found.arm == found.seeds and found.reference == (found.reference_runs if unpaired else found.seeds):
        return  # nothing of either to compare, which is said where the seeds are named
    if found.arm or found.reference:
        p = "p < 0.001" if found.p_adjusted < 0.001 else f"p = {found.p_adjusted:.2g}"
        differ = "can't be told apart" if found.p_adjusted > alpha else "differ"
        counts = f"Of {found.seeds} seeds it lost {found.arm} and {reference} {found.reference}"
        if unpaired:
            theirs = f"{reference} {found.reference} of {found.reference_runs}"
            counts = f"It lost {found.arm} of {found.seeds} runs, and {theirs}"
        over = "over all arms" if unpaired else "over all arms and looks"
        yield f"{counts}: the failure rates {differ} ({p}, {over})."
    elif verdict is Verdict.BETTER:
        yield (
            f"No run of it failed in {found.seeds} {'runs' if unpaired else 'seeds'}, but a failure rate of up to "
            f"{found.highest_rate:.0%} would not have shown; the verdict is about runs that work."
        )


def could_settle(found: Failures, further: int, arms: int, alpha: float) -> bool:
    """Tell whether failures would settle an arm if one of the two lost all further seeds and the other none."""
    ours, theirs = found.only_arm, found.only_reference
    ratios = (_ratio(one + further, one + further + other) for one, other in ((ours, theirs), (theirs, ours)))
    return 2.0 * arms / max(ratios) <= alpha


def _highest_rate(lost: int, number: int) -> float:
    """Upper end of the one-sided 95% interval of a rate (Clopper & Pearson 1934, Biometrika 26, 404-413)."""
    return float(special.betaincinv(lost + 1, number - lost, 0.95)) if lost < number else 1.0


def _p_values(losses: list[bool]) -> Iterator[float]:
    """The p-value after each informative seed, given whether the arm in question lost it; 1 before the first."""
    yield 1.0
    for number, lost in enumerate(np.cumsum(losses).tolist(), start=1):
        yield min(1.0 / _ratio(lost, number), 1.0)


@lru_cache(maxsize=100_000)
def _ratio(lost: int, number: int) -> float:
    """The likelihood ratio, where an arm lost so many of a number of informative seeds."""
    uniform = special.betaln(lost + 1, number - lost + 1) + math.log(special.betaincc(lost + 1, number - lost + 1, 0.5))
    logs = [math.log(1.0 - _ALL) + math.log(2.0) + uniform]
    logs += [math.log(_ALL)] if lost == number else []
    return float(np.exp(min(np.logaddexp.reduce(logs) + number * math.log(2.0), 700.0)))  # which does not overflow
