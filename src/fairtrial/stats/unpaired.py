"""Verdicts from runs that share no seeds: each arm against the reference, by the means of their runs.

Runs are independent normal samples, of any numbers and any spreads. Each interval errs in at most alpha over the number
of arms (`stats.welch`), so all hold together with probability 1 - alpha (Bonferroni). A stepwise method such as Holm's
gives tests and no intervals, and a verdict is an interval here: it also says how large a difference may be, and whether
it is within a margin. There is one look, at numbers of runs that were fixed beforehand.
"""

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.failures import compare_rates, failure_caveats
from fairtrial.stats.judge import LARGEST, UNEQUAL, check_standard, hedges_factor
from fairtrial.stats.paired import LostSeeds
from fairtrial.stats.power import MOST_SEEDS
from fairtrial.stats.stopping import allowed, combined
from fairtrial.stats.verdicts import Comparison, Verdict
from fairtrial.stats.welch import critical, detectable, p_value, satterthwaite

#: Runs that differ by less than this share of their values are equal but for rounding.
ROUNDING = 1e-14


def judge_unpaired(
    values: Mapping[str, npt.ArrayLike],
    reference: str,
    margin: float | None = None,
    alpha: float = 0.05,
    *,
    larger_is_better: bool = True,
) -> tuple[Comparison, ...]:
    """Compare each arm with the reference, where runs are not paired by seed.

    For normal noise, the intervals of all arms contain the true differences of means with probability 1 - alpha at
    least, whatever the numbers of runs and the spreads, and then no verdict is wrong. Where runs share seeds, and with
    them some of their noise, `judge` finds smaller differences. docs/evidence.md gives method, sources and simulations.

    Args:
        values: the runs of each arm and of the reference, as many as there are; NaN for a run that was lost, because it
            diverged or failed. An arm that lost runs can be found worse at best, and if the reference lost some, better
            at best. If one of the two lost significantly more, that is a verdict.
        reference: which of them the others are compared with.
        margin: differences within plus or minus this do not matter, in the metric's unit; set it before the data are
            seen. None for no verdict of equivalent.
        alpha: error rate of all arms together.
        larger_is_better: False for losses and times. It reverses verdicts, not differences.

    Returns:
        A comparison for each arm, in the order of the mapping.

    Raises:
        ValueError: an argument has the wrong shape or is out of range.

    Example:
        >>> runs = {"adam": [0.843, 0.851, 0.848, 0.846], "sgd": [0.861, 0.868, 0.866]}
        >>> [better] = judge_unpaired(runs, reference="adam")
        >>> better.verdict, round(better.mean_difference, 3), [round(end, 3) for end in better.interval]
        (<Verdict.BETTER: 'better'>, 0.018, [0.01, 0.026])
    """
    check_standard(margin, alpha)
    if reference not in values:
        raise ValueError(f"reference = {reference!r}: must be among {', '.join(map(str, values))}")
    samples = {name: _Sample.of(name, numbers) for name, numbers in values.items()}
    base = samples.pop(reference)
    rule = _Rule(len(samples), alpha, margin, 1 if larger_is_better else -1)
    return tuple(_comparison(rule, arm, base) for arm in samples.values())


@dataclass(frozen=True)
class _Rule:
    """What all arms are judged by."""

    arms: int
    alpha: float
    margin: float | None
    sign: int  # 1 if larger is better, otherwise -1

    @property
    def level(self) -> float:
        """The error rate of each interval."""
        return self.alpha / self.arms

    def verdict(self, mean: float, half: float) -> Verdict:
        """The verdict of an interval."""
        if self.margin is not None and abs(mean) + half <= self.margin:
            return Verdict.EQUIVALENT
        return self.heading(mean) if abs(mean) > half else Verdict.UNDECIDED

    def heading(self, mean: float) -> Verdict:
        """The side on which a difference is."""
        return Verdict.BETTER if mean * self.sign > 0.0 else Verdict.WORSE


@dataclass(frozen=True)
class _Sample:
    """The runs of one arm."""

    name: str
    count: int  # of runs with a result
    lost: int
    mean: float  # NaN without a run
    variance: float  # NaN below two

    @classmethod
    def of(cls, name: str, numbers: npt.ArrayLike) -> "_Sample":
        runs = np.asarray(numbers, dtype=np.float64)
        if runs.ndim != 1:
            raise ValueError(f"values[{name!r}] have shape {runs.shape}: must be one number for each run")
        if (np.abs(runs) > LARGEST).any():
            raise ValueError(f"values[{name!r}] exceed ±{LARGEST:g}: use NaN where a run has no comparable result")
        kept = runs[~np.isnan(runs)]
        equal = kept.size > 0 and bool(np.ptp(kept) <= ROUNDING * np.abs(kept).max())
        mean = math.nan if not kept.size else float(kept[0] if equal else kept.mean())
        variance = math.nan if kept.size < 2 else 0.0 if equal else float(kept.var(ddof=1))
        return cls(name, int(kept.size), int(runs.size - kept.size), mean, variance)

    @property
    def runs(self) -> int:
        """The number of all runs."""
        return self.count + self.lost

    @property
    def df(self) -> int:
        return self.count - 1


@dataclass(frozen=True)
class _Difference:
    """The difference of two means, with at least two runs each and some spread."""

    rule: _Rule
    arm: _Sample
    base: _Sample

    @property
    def mean(self) -> float:
        return self.arm.mean - self.base.mean

    def spread(self, further: int = 0) -> tuple[float, float]:
        """The standard error, with so many further runs of each, and the arm's share of its square."""
        parts = [one.variance / (one.count + further) for one in (self.arm, self.base)]
        return math.sqrt(sum(parts)), parts[0] / sum(parts)

    @property
    def error(self) -> float:
        """The standard error."""
        return self.spread()[0]

    @property
    def share(self) -> float:
        """The arm's share of the squared standard error."""
        return self.spread()[1]

    @cached_property
    def half(self) -> float:
        """Half the width of the interval."""
        return self.half_width()

    def half_width(self, further: int = 0) -> float:
        """Half the width of the interval, with so many further runs of each and the same spreads."""
        error, share = self.spread(further)
        return error * float(critical(self.arm.df + further, self.base.df + further, share, self.rule.level))

    @property
    def p_adjusted(self) -> float:
        found = p_value(self.arm.df, self.base.df, self.share, abs(self.mean) / self.error, self.rule.level)
        return min(found * self.rule.arms, 1.0)

    @property
    def sd(self) -> float:
        """The root mean square of both standard deviations."""
        return math.sqrt((self.arm.variance + self.base.variance) / 2.0)

    @property
    def effect_size(self) -> float | None:
        """The difference in units of `sd`, without the bias of few runs.

        Degrees of freedom of the mean of two variances: Delacre, Lakens, Ley, Liu & Leys (2021).
        """
        share = self.arm.variance / (self.arm.variance + self.base.variance)
        df = float(satterthwaite(self.arm.df, self.base.df, share))
        return None if df < 2.0 else self.rule.sign * hedges_factor(df) * self.mean / self.sd

    @property
    def probability_better(self) -> float:
        """Chance that a new run of the arm beats one of the reference, by an approximate predictive t distribution.

        Each new run has its sample's variance times 1 + 1 / n; the degrees of freedom of the sum are Satterthwaite's.
        """
        parts = [one.variance * (1.0 + 1.0 / one.count) for one in (self.arm, self.base)]
        df = float(satterthwaite(self.arm.df, self.base.df, parts[0] / sum(parts)))
        return float(special.stdtr(df, self.rule.sign * self.mean / math.sqrt(sum(parts))))

    @cached_property
    def smallest_detectable(self) -> float:
        """The smallest true difference found with 80% power, if the true spreads are those of the samples."""
        return self.error * detectable(self.arm.df, self.base.df, self.share, self.rule.level)

    @cached_property
    def more_runs(self) -> int | None:
        """How many further runs of each settle it with about an even chance; None for more than `MOST_SEEDS`."""
        found = bisect_left(_FURTHER, 0.5, key=self._chance)
        return _FURTHER[found] if found < len(_FURTHER) else None

    def _chance(self, further: int) -> float:
        """Chance of a verdict with so many further runs of each.

        The true difference has the distribution that the runs leave (normal, from a flat prior), so the later
        difference of means is normal around the present one; its variance is what the squared standard error falls by.
        """
        half = self.half_width(further)
        moves = math.sqrt(self.error**2 - self.spread(further)[0] ** 2)
        within = -1.0 if self.rule.margin is None else self.rule.margin - half
        if within >= half:
            return 1.0
        chance = special.ndtr((self.mean - half) / moves) + special.ndtr((-self.mean - half) / moves)
        if within > 0.0:
            chance += special.ndtr((within - self.mean) / moves) - special.ndtr((-within - self.mean) / moves)
        return float(chance)


def _numbers_of_runs() -> tuple[int, ...]:
    """Further runs to try: each number at first, then in steps of an eighth."""
    found = [1]
    while found[-1] < MOST_SEEDS:
        found.append(min(found[-1] + max(1, found[-1] // 8), MOST_SEEDS))
    return tuple(found)


_FURTHER = _numbers_of_runs()


def _comparison(rule: _Rule, arm: _Sample, base: _Sample) -> Comparison:
    mean = arm.mean - base.mean if arm.count and base.count else None
    row = replace(Comparison.nothing(arm.name), seeds=arm.count, mean_difference=mean)
    found = None
    if min(arm.count, base.count) > 1:
        found = _Difference(rule, arm, base)
        row = replace(row, sd=found.sd)
    if found is not None and found.sd > 0.0:
        row = replace(
            row,
            interval=(found.mean - found.half, found.mean + found.half),
            p_adjusted=found.p_adjusted,
            effect_size=found.effect_size,
            probability_better=found.probability_better,
            smallest_detectable=found.smallest_detectable,
            verdict=rule.verdict(found.mean, found.half),
        )
    lost = LostSeeds(tuple(range(arm.lost)), tuple(range(base.lost)))
    failures = compare_rates(arm.lost, arm.runs, base.lost, base.runs, rule.arms)
    verdict, by_failures = combined(row.verdict, lost, failures.verdict(rule.alpha))
    more = None
    if row.interval is not None and found is not None and row.verdict is verdict is Verdict.UNDECIDED:
        heading = rule.heading(found.mean)
        more = found.more_runs if allowed(heading, lost) is heading else None
    caveats = (
        *_loss_caveats(row.verdict, verdict, arm, base),
        *failure_caveats(failures, base.name, allowed(row.verdict, lost), rule.alpha),
        *_sample_caveats(arm, base),
        *(_caveats(found, row.verdict) if found is not None and row.interval else ()),
        *(_outlook(found, more, lost) if found is not None and row.interval and not verdict.settled else ()),
    )
    return replace(row, verdict=verdict, more_seeds=more, caveats=caveats, failures=failures, by_failures=by_failures)


def _loss_caveats(found: Verdict, left: Verdict, arm: _Sample, base: _Sample) -> Iterator[str]:
    """Say what the lost runs of both do to the verdict that the others gave."""
    if arm.lost:
        yield "Runs without a result count against it."
    if base.lost:
        yield f"Runs of {base.name} without a result count for it."
    if found.settled and not left.settled:
        yield f"The runs with a result say {found.value}, but the lost runs leave it undecided."


def _sample_caveats(arm: _Sample, base: _Sample) -> Iterator[str]:
    """Say which of the two has too few runs, or runs that are all equal."""
    for who, one in (("It", arm), (base.name, base)):
        if one.count < 2:
            runs = "one run" if one.count else "no run"
            yield f"{who} has {runs} with a result, which shows no spread, so there is no interval."
        elif one.variance == 0.0:
            other = base if one is arm else arm
            alone = "without spread there is no interval and no verdict."
            if other.count > 1 and other.variance > 0.0:
                alone = (
                    f"the interval uses the spread of {f'{base.name} alone' if one is arm else 'its own runs alone'}."
                )
            yield f"All {one.count} runs {'' if one is arm else f'of {who} '}have the same value: {alone}"


def _caveats(found: _Difference, verdict: Verdict) -> Iterator[str]:
    arm, base = found.arm, found.base
    sides = (
        (arm, base, "Its runs", f"those of {base.name}"),
        (base, arm, f"The runs of {base.name}", "its own"),
    )
    for one, other, who, whose in sides:
        if other.variance > 0.0 and 2.0 * special.fdtrc(one.df, other.df, one.variance / other.variance) < UNEQUAL:
            yield f"{who} spread {math.sqrt(one.variance / other.variance):.2g} times as much as {whose}."
    fewer, more, share = (arm, base, found.share) if arm.count < base.count else (base, arm, 1.0 - found.share)
    if more.count >= 2 * fewer.count and share > 0.5:
        whose, more_of = ("Its", base.name) if fewer is arm else (f"{base.name}'s", "it")
        yield (
            f"{whose} {fewer.count} runs, against {more.count}, make up {share:.0%} of the squared standard error: "
            f"more runs of {more_of} would narrow the interval little."
        )
    if fewer.count == 2:
        times = found.smallest_detectable / found.sd
        yield f"Two runs find only differences of {times:.0f} times the standard deviation or more (80% power)."
    if verdict is Verdict.EQUIVALENT and abs(found.mean) > found.half:
        yield "The difference is real, since the interval excludes zero, but it is within the margin."


def _outlook(found: _Difference, more: int | None, lost: LostSeeds) -> Iterator[str]:
    """Say how many runs a new study needs: more runs of this one would be another look."""
    if more is not None:
        ours, theirs = found.arm.count + more, found.base.count + more
        yield (
            f"A new study of about {ours} runs of it and {theirs} of {found.base.name} would have about an even chance "
            "of a verdict."
        )
    elif not lost.arm and not lost.other:
        yield f"If it goes on as it began, {MOST_SEEDS} further runs of each would hardly settle it."
