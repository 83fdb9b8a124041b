"""From stored trials to verdicts: each arm of a study against its reference, paired by seed."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fairtrial.errors import PairingError, StudyError
from fairtrial.measures import measure
from fairtrial.spec import Evidence, Study
from fairtrial.spec.validation import Vocabulary
from fairtrial.stats import caveats
from fairtrial.stats.judge import final, judge
from fairtrial.stats.paired import MISSED, LostSeeds, PairedData
from fairtrial.stats.pairing import check_pairing, pairing_caveats
from fairtrial.stats.variance import estimate
from fairtrial.stats.verdicts import Comparison, Verdict
from fairtrial.trial import TrialResult


@dataclass(frozen=True)
class StudyVerdict:
    """What a study's records allow to say of its arms.

    Attributes:
        study: the study's name.
        hash: the study's content hash.
        reference: the arm that the others are compared with.
        metric: the measure that they are compared on; all numbers are in its unit, accuracies as fractions.
        larger_is_better: whether an arm with a higher measure is the better one.
        margin: differences within plus or minus this do not matter; None if the study set none.
        alpha: error rate of all arms and looks together.
        looks: numbers of seeds after which the study is looked at; none with a single seed.
        seeds: number of seeds that were looked at.
        comparisons: one an arm, in the study's order, without the reference.
        ended: how many trials of each arm have ended, the reference's too.
        lost: how many of them have no result, by arm, then ``"diverged"``, ``"failed"`` or ``"missed"`` (the target);
            arms that lost none are not there.
        refused: why arms can't be compared at all, by name.
    """

    study: str
    hash: str
    reference: str
    metric: str
    larger_is_better: bool
    margin: float | None
    alpha: float
    looks: tuple[int, ...]
    seeds: int
    comparisons: tuple[Comparison, ...]
    ended: dict[str, int]
    lost: dict[str, dict[str, int]]
    refused: dict[str, str]

    @property
    def caveats(self) -> tuple[str, ...]:
        """The caveats that stand beside every comparison; each has them among its own as well."""
        own = [comparison.caveats for comparison in self.comparisons]
        return tuple(line for line in own[0] if all(line in other for other in own)) if own else ()


def compare(study: Study, results: Sequence[TrialResult], *, metric: str | None = None) -> StudyVerdict:
    """Compare each arm of a study with the reference, by the standard that the study set.

    Differences are taken within seeds, never by position. A trial that diverged or failed, or that missed the target of
    ``epochs_to_target`` and ``seconds_to_target``, is lost: it has no difference and gets none, and its seed speaks
    against its arm. An arm that lost a seed which the reference did not can be found worse at best, and where the
    reference lost one, better at best; if both happened, nothing is decided. A comparison whose fingerprints differ
    within a seed is refused, see `fairtrial.stats.pairing`.

    Args:
        study: the study.
        results: what the store knows of its trials, in any order. Of a sequential study a seed counts once all arms
            that were still going have ended it and all seeds before.
        metric: a measure to compare on in place of the study's own. It was not set beforehand, which is said, and it
            has no margin.

    Raises:
        StudyError: the study has no such measure, or it is not known which way it is better.
        ValueError: a result is not of this study, or one trial is there twice. Both are bugs of the caller.

    Example:
        >>> [(row.arm, row.verdict.value, row.more_seeds) for row in compare(study, results).comparisons]
        [('high_beta1', 'undecided', 5), ('low_beta2', 'worse', None)]
    """
    own = _Comparing(study, results, study.evidence)
    asked = question(study, metric)
    # Which seeds count is decided by what the study set, for that is what its arms were stopped by.
    return (own if asked == study.evidence else _Comparing(study, results, asked, own.seeds)).verdict()


def settled(study: Study, results: Sequence[TrialResult]) -> frozenset[str]:
    """Tell the conductor which arms of a sequential study need no further seeds: those that `stops` names."""
    return frozenset(stops(study, results))


def stops(study: Study, results: Sequence[TrialResult]) -> dict[str, str]:
    """Say which arms of a sequential study need no further seeds, and why.

    That is an arm with a verdict, an arm whose comparison is refused, and one of which no seed has survived.

    Args:
        study: the study.
        results: those of whole seeds, see `fairtrial.scheduler.Course`.

    Returns:
        A few words for each such arm, such as ``"its verdict is settled"``.
    """
    return _Comparing(study, results, study.evidence).stops()


def paired_spread(study: Study, results: Sequence[TrialResult]) -> float | None:
    """Standard deviation of paired differences on the study's metric, over all arms; None if none can be told.

    For planning: an arm that is noisier than the others needs more seeds than this says.
    """
    others = [arm.name for arm in study.arms if arm.name != study.reference]
    cells = PairedData.of(study, results, study.evidence.metric, study.evidence.target)
    table = cells.differences(study.reference, others, study.seeds)[None]
    pooled = float(estimate(table, np.isfinite(table)).pooled[0, 0]) if others else math.nan
    return pooled if pooled > 0.0 else None


def question(study: Study, metric: str | None = None) -> Evidence:
    """Say by what standard arms are compared: the study's own, or another measure by the same error rate.

    Raises:
        StudyError: the study has no such measure, or it is not known which way it is better.
    """
    own = study.evidence
    if metric is None or metric == own.metric:
        return own
    Vocabulary([arm.settings for arm in study.arms]).check_measure(metric, "metric")
    asked = measure(metric)
    if asked.needs_target and own.target is None:
        raise StudyError(f'metric = "{metric}": the study sets no evidence.target')
    if asked.direction is None:
        raise StudyError(f'metric = "{metric}": its name does not say which way it is better; set it in [evidence]')
    return Evidence(metric=metric, alpha=own.alpha, target=own.target if asked.needs_target else None)


def looks(study: Study) -> tuple[int, ...]:
    """Numbers of seeds after which a study is looked at: after each from the least on, or once at the end.

    A single seed shows no spread, so no look is before the second.
    """
    first = study.min_seeds if study.sequential else study.seeds
    return tuple(range(max(first, 2), study.seeds + 1))


class _Comparing:
    """The steps of one comparison, which share what they find."""

    def __init__(
        self, study: Study, results: Sequence[TrialResult], evidence: Evidence, seeds: int | None = None
    ) -> None:
        self._study = study
        self._results = results
        self._evidence = evidence
        self._cells = PairedData.of(study, results, evidence.metric, evidence.target)
        self._others = [arm.name for arm in study.arms if arm.name != study.reference]
        self._refused = dict(self._refusals())
        self.seeds = self._seeds_that_count() if seeds is None else seeds
        self._judged = self._judge(self.seeds)

    def verdict(self) -> StudyVerdict:
        shared = (*self._exploring(), *caveats.of_metric(self._evidence.metric), *self._missing_spread())
        shared += (*self._unfinished(), *caveats.of_conditions(self._study, self._results))
        shared += (*caveats.of_records(self._study, self._cells), *caveats.held_fixed(self._study))
        return StudyVerdict(
            study=self._study.name,
            hash=self._study.hash,
            reference=self._study.reference,
            metric=self._evidence.metric,
            larger_is_better=self._evidence.larger_is_better,
            margin=self._evidence.margin,
            alpha=self._evidence.alpha,
            looks=looks(self._study),
            seeds=self.seeds,
            comparisons=tuple(self._dressed(row, shared) for row in self._judged),
            ended={arm.name: sum(name == arm.name for name, _ in self._cells.ended) for arm in self._study.arms},
            lost=self._losses(),
            refused=self._refused,
        )

    def stops(self) -> dict[str, str]:
        return self._stops(self._judged, self.seeds)

    def _stops(self, judged: Sequence[Comparison], seeds: int) -> dict[str, str]:
        found: dict[str, str] = {}
        for row in judged:
            if row.arm in self._refused:
                found[row.arm] = f"its trials are not paired with those of {self._study.reference}"
            elif row.verdict.settled:
                standing = self._cells.standing(row.arm, self._study.reference)
                open_for_good = _allowed(row.verdict, standing) is not row.verdict
                found[row.arm] = "lost seeds leave it undecided" if open_for_good else "its verdict is settled"
            elif self._hopeless(row, seeds):
                found[row.arm] = f"no seed has a result of it and {self._study.reference}"
        return found

    def _hopeless(self, row: Comparison, seeds: int) -> bool:
        """Tell whether an arm has come to the first look without a pair; a sequential study then gives it up."""
        return seeds >= max(self._study.min_seeds, 2) and not row.seeds

    def _refusals(self) -> Iterator[tuple[str, str]]:
        """Check the pairing of each arm with the reference by itself: one spoilt arm does not spoil the others."""
        for arm in self._others:
            pair = {arm, self._study.reference}
            try:
                check_pairing(self._study, [result for result in self._results if result.arm in pair])
            except PairingError as error:
                yield arm, str(error)

    def _seeds_that_count(self) -> int:
        """Count the seeds to look at: up to the last that has a trial, and in a sequential study the whole ones.

        A sequential study is looked at after each seed, and a look at half a seed would be one that nobody planned.
        Another study in the same store may have trained some arms further; nor may that move the look.
        """
        ended = self._cells.ended
        if not self._study.sequential:
            return max((seed for _, seed in ended), default=-1) + 1
        stopped: set[str] = set()
        for seed in range(self._study.seeds):
            if seed >= self._study.min_seeds:
                stopped.update(self._stops(self._judge(seed), seed))
                if stopped.issuperset(self._others):
                    return seed
            if not all((arm.name, seed) in ended for arm in self._study.arms if arm.name not in stopped):
                return seed
        return self._study.seeds

    def _differences(self, seeds: int) -> npt.NDArray[np.float64]:
        table = self._cells.differences(self._study.reference, self._others, seeds)
        table[:, [arm in self._refused for arm in self._others]] = np.nan
        return table

    def _judge(self, seeds: int) -> tuple[Comparison, ...]:
        evidence = self._evidence
        if not self._others:
            return ()
        return judge(
            self._differences(seeds),
            evidence.margin,
            evidence.alpha,
            looks(self._study) or (2,),
            arms=self._others,
            larger_is_better=evidence.larger_is_better,
        )

    def _dressed(self, row: Comparison, shared: tuple[str, ...]) -> Comparison:
        """Add to a judged comparison what arrays don't tell, and take back what lost seeds speak against."""
        if row.arm in self._refused:
            return replace(_nothing(row.arm), caveats=(f"Refused: {self._refused[row.arm]}.", *shared))
        standing = self._cells.standing(row.arm, self._study.reference)
        own = (*self._lost(row, standing), *self._of_judge(row), *pairing_caveats(self._study, row.arm, self._results))
        verdict = _allowed(row.verdict, standing)
        more = row.more_seeds if verdict is row.verdict and not self._against(row, standing) else None
        return replace(row, verdict=verdict, more_seeds=more, caveats=(*own, *shared))

    def _against(self, row: Comparison, standing: LostSeeds) -> bool:
        """Tell whether lost seeds speak against all that further seeds could show."""
        higher = (row.mean_difference or 0.0) > 0.0
        heading = Verdict.BETTER if higher == self._evidence.larger_is_better else Verdict.WORSE
        return _allowed(heading, standing) is Verdict.UNDECIDED

    def _of_judge(self, row: Comparison) -> tuple[str, ...]:
        """What `judge` says, but for what it can't know: how many seeds were planned, given and are under way."""
        if not looks(self._study):  # no look to wait for, and it is said for all arms together
            return ()
        if self._hopeless(row, self.seeds):
            given = " It was given no further seeds." if self._study.sequential else ""
            return (f"Without a pair there is no interval and no verdict.{given}",)
        return tuple(line for line in row.caveats if not (self._open and line == final(self.seeds)))

    @property
    def _open(self) -> bool:
        """Whether trials of the seeds that are looked at have yet to end, in a study that all arms go through with."""
        expected = {(arm.name, seed) for arm in self._study.arms for seed in range(self.seeds)}
        return not self._study.sequential and not expected <= self._cells.ended

    def _losses(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (arm, _), how in sorted(self._cells.lost.items()):
            counts = found.setdefault(arm, {})
            counts[how] = counts.get(how, 0) + 1
        return found

    def _lost(self, row: Comparison, standing: LostSeeds) -> Iterator[str]:
        """Say what became of the trials without a number, of the arm and of the reference."""
        reference = self._study.reference
        for how, seeds in self._by_fate(row.arm, standing.arm):
            yield f"It {how} at {seed_list(seeds)} and {reference} did not, which speaks against it."
        if standing.arm and row.seeds:
            yield "Its numbers, the chance at a new seed among them, are of the seeds at which both have a result."
        for how, seeds in self._by_fate(reference, standing.other):
            yield f"{reference} {how} at {seed_list(seeds)} and this arm did not, which speaks for it."
        if _allowed(row.verdict, standing) is not row.verdict:
            yield f"The seeds that both finished, by themselves, say {row.verdict.value}; the lost ones leave it open."
        both = [seed for arm, seed in self._cells.lost if arm == row.arm and (reference, seed) in self._cells.lost]
        if both:
            yield f"Neither it nor {reference} has a result at {seed_list(sorted(both))}."

    def _by_fate(self, arm: str, seeds: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        fates = {seed: self._cells.lost[arm, seed] for seed in seeds}
        for fate in sorted(set(fates.values())):
            how = "missed the target" if fate == MISSED else fate
            yield how, [seed for seed in seeds if fates[seed] == fate]

    def _exploring(self) -> Iterator[str]:
        own = self._study.evidence
        if self._evidence.metric != own.metric:
            yield f"The study set {own.metric} beforehand, not {self._evidence.metric}: explore, don't conclude."

    def _unfinished(self) -> Iterator[str]:
        if self._open and self.seeds in looks(self._study):
            yield "Trials of these seeds are still to come, so nothing here is final."

    def _missing_spread(self) -> Iterator[str]:
        if not looks(self._study):
            yield "One run an arm: without a second seed nothing tells a difference from noise."


def _allowed(verdict: Verdict, standing: LostSeeds) -> Verdict:
    """The verdict, or undecided where lost seeds speak against it."""
    against = {
        Verdict.BETTER: bool(standing.arm),
        Verdict.WORSE: bool(standing.other),
        Verdict.EQUIVALENT: bool(standing.arm or standing.other),
        Verdict.UNDECIDED: False,
    }
    return Verdict.UNDECIDED if against[verdict] else verdict


def _nothing(arm: str) -> Comparison:
    return Comparison(arm, 0, None, None, None, None, None, None, None, Verdict.UNDECIDED, None)


def seed_list(seeds: Sequence[int]) -> str:
    """Write seeds: ``seed 2``, ``seeds 0, 1 and 4``."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seeds {', '.join(map(str, seeds[:-1]))} and {seeds[-1]}"
