"""Comparisons of a study's arms with its reference, from stored trials."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fairtrial.errors import StudyError
from fairtrial.history import History
from fairtrial.question import measure_key, planned_looks
from fairtrial.spec import Evidence, Study
from fairtrial.spec.evidence import both_sides
from fairtrial.spec.metrics import Unit
from fairtrial.spec.validation import Vocabulary
from fairtrial.stats import caveats
from fairtrial.stats.alerts import alerts, of_aa_arms, outlier_alerts
from fairtrial.stats.failures import failure_caveats
from fairtrial.stats.identical import Sameness, without_difference
from fairtrial.stats.jitter import Jitter, find_jitter
from fairtrial.stats.joined import by_arm
from fairtrial.stats.judge import LAST_LOOK, judge, needed, without_outlook
from fairtrial.stats.paired import LostSeeds, PairedData, fate, seed_list
from fairtrial.stats.pairing import pairing_caveats, pairing_conflict
from fairtrial.stats.replay import replayed
from fairtrial.stats.stages import standing, without
from fairtrial.stats.stopping import allowed, combined, failures_of, hopeless
from fairtrial.stats.unpaired_runs import compare_runs, spread_of_runs
from fairtrial.stats.variance import estimate
from fairtrial.stats.verdicts import Comparison, Failures, Verdict
from fairtrial.trial import TrialResult


@dataclass(frozen=True)
class StudyVerdict:
    """What a study's records show about its arms."""

    study: str  # the study's name
    hash: str
    reference: str  # the arm that the others are compared with
    metric: str  # the measure that they are compared on
    unit: Unit  # its unit, in which all numbers are, as recorded
    larger_is_better: bool
    margin: float | None  # differences within plus or minus this do not matter; None if the study set none
    alpha: float  # error rate of all arms and looks together
    looks: tuple[int, ...]  # numbers of seeds after which the study is evaluated; none with a single seed
    seeds: int  # number of seeds that were evaluated
    comparisons: tuple[Comparison, ...]  # one per arm, in the study's order, without the reference
    ended: dict[str, int]  # how many trials of each arm have ended, including the reference
    #: How many of them have no result, by arm, then see `paired.PairedData.lost`; arms that lost none are absent.
    lost: dict[str, dict[str, int]]
    refused: dict[str, str]  # why arms can't be compared at all, by name
    exploratory: tuple[str, ...] = ()  # why this is no test of what was set beforehand, each without a full stop
    stage: int = 1  # which look, or plan of looks, at these trials it is
    part: float = 1.0  # of alpha, that it adds to what earlier ones have spent
    whole: bool = False  # whether nothing of alpha is left for looks after these
    spent: tuple[str, ...] = ()  # arms for which earlier ones left nothing of alpha, so that no seeds can settle them
    one_sided: bool = False  # whether the margin counts on the worse side alone
    set_beforehand: bool = False  # whether a store knows that measure and margin were set before there were results
    jitter: Jitter | None = None  # how much of the spread is jitter within runs; None if unknown
    alerts: tuple[str, ...] = ()  # what can make the verdicts false, a sentence each; see `stats.alerts`
    tasks: tuple[str, ...] = ()  # of a file with tasks: on which they are, or over which
    paired: bool = True  # whether differences are taken within seeds; otherwise they are differences of means

    @property
    def interval_alpha(self) -> float:
        """The probability that some interval misses its true difference."""
        return both_sides(self.alpha, len(self.comparisons)) if self.one_sided else self.alpha

    @property
    def against(self) -> str:
        """Write what the arms are compared with: the reference, and on which task, or over all."""
        where = {0: "", 1: f" on {''.join(self.tasks)}"}.get(len(self.tasks), " over all tasks")
        return f"{self.reference}{where}"

    @property
    def caveats(self) -> tuple[str, ...]:
        """The caveats that all comparisons share."""
        own = [comparison.caveats for comparison in self.comparisons]
        return tuple(line for line in own[0] if all(line in other for other in own)) if own else ()


def compare(
    study: Study, results: Sequence[TrialResult], *, metric: str | None = None, history: History | None = None
) -> StudyVerdict:
    """Compare each arm of a study with the reference, by the rules that the study set.

    Differences are taken within seeds, never by position. A trial that diverged or failed, or that missed the target of
    ``epochs_to_target`` and ``seconds_to_target``, is lost: it has no difference, and its seed counts against its arm.
    An arm that lost a seed which the reference did not can be found worse at best, and where the reference lost one,
    better at best; if both happened, it stays undecided. A comparison whose fingerprints differ within a seed is
    refused, see `fairtrial.stats.pairing`. With ``evidence.paired = false``, all runs of an arm are compared with all
    of the reference's instead, see `fairtrial.stats.unpaired`.

    Args:
        study: the study.
        results: of its trials, in any order. A seed counts once all arms that had not stopped have ended it and all
            earlier seeds; a study with a fixed number of seeds has verdicts once every arm has ended them all.
        metric: a measure to compare on instead of the study's own. It has no margin, and is exploratory: it was not set
            beforehand.
        history: what was asked of these trials before, from a store; by default nothing was.

    Raises:
        StudyError: the study has no such measure, or it is unknown which direction is better.
        ValueError: a result is not of this study, or a trial appears twice. Both are bugs of the caller.

    Example:
        >>> [(row.arm, row.verdict.value, row.more_seeds) for row in compare(study, results).comparisons]
        [('high_beta1', 'undecided', 13), ('low_beta2', 'worse', None)]
    """
    own = _Comparing(study, results, study.evidence, history)
    evidence = evidence_for(study, metric)
    # The study's own evidence decides which seeds count, because it stopped the arms.
    return (own if evidence == study.evidence else _Comparing(study, results, evidence, history, own.seeds)).verdict()


def stops(study: Study, results: Sequence[TrialResult], *, history: History | None = None) -> dict[str, str]:
    """Say which arms of a sequential study need no further seeds, and why; see `fairtrial.scheduler.StoppingRule`.

    Those are the arms with a verdict, the refused ones, and those without a surviving seed. Returns a few words for
    each, such as ``"its verdict is settled"``.
    """
    return replayed(study, results, history=history).stopped


def paired_spread(study: Study, results: Sequence[TrialResult]) -> float | None:
    """Standard deviation of differences between two runs on the study's metric, over all arms; None if unknown.

    For planning: an arm that is noisier than the others needs more seeds than this suggests.
    """
    others = [arm.name for arm in study.arms if arm.name != study.reference]
    data = PairedData.of(study, results, study.evidence.metric, study.evidence.target).sifted(study.seeds)
    if study.evidence.unpaired:
        return spread_of_runs(study, data)
    table = data.differences(study.reference, others, study.seeds)[None]
    pooled = float(estimate(table, np.isfinite(table)).pooled[0, 0]) if others else math.nan
    return pooled if pooled > 0.0 else None


def evidence_for(study: Study, metric: str | None = None) -> Evidence:
    """Give the study's own evidence settings, or those for another measure with the same error rate.

    Raises:
        StudyError: the study has no such measure, or it is unknown which direction is better.
    """
    own = study.evidence
    if metric is None or metric == own.metric:
        return own
    Vocabulary.of(study).check_measure(metric, "metric")
    asked = study.measure(metric)
    if asked.needs_target and own.target is None:
        raise StudyError(f'metric = "{metric}": the study sets no evidence.target')
    if asked.direction is None:
        raise StudyError(
            f'metric = "{metric}": its name does not say which way it is better; set metrics.NAME.direction'
        )
    target = own.target if asked.needs_target else None
    kept = {"alpha": own.alpha, "pooling": own.pooling, "paired": own.paired}
    return Evidence(metric=metric, direction=asked.direction, target=target, **kept)


def complete_seeds(study: Study, data: PairedData) -> int:
    """Count the seeds, from the first on, that every arm of a study has ended."""
    arms = [arm.name for arm in study.arms]
    open_seeds = (seed for seed in range(study.seeds) if not {(arm, seed) for arm in arms} <= data.ended)
    return next(open_seeds, study.seeds)


def looks(study: Study) -> tuple[int, ...]:
    """Numbers of seeds after which a study is evaluated: each from the minimum on, or one at the end.

    A single seed shows no spread, so no look is before the second.
    """
    return planned_looks(study.min_seeds, study.seeds)


class _Comparing:
    """One comparison of all arms on one measure."""

    def __init__(
        self,
        study: Study,
        results: Sequence[TrialResult],
        evidence: Evidence,
        history: History | None,
        seeds: int | None = None,
    ) -> None:
        self._study = study
        self._results = results
        self._evidence = evidence
        # Runs made elsewhere are what they are: no more of them will come.
        self._whole = evidence.unpaired and study.imported is not None
        self._history = history
        self._alpha = study.interval_alpha if evidence.one_sided else study.question_alpha
        self._measure = measure_key(evidence.metric, evidence.target)
        self._standing = standing(study, history, evidence.metric, evidence.target)
        self._all = PairedData.of(study, results, evidence.metric, evidence.target)
        self._others = [arm.name for arm in study.arms if arm.name != study.reference]
        self._by_arm = by_arm(results)
        conflicts = {arm: pairing_conflict(study, study.reference, arm, self._both(arm)) for arm in self._others}
        self._refused = {arm: reason for arm, reason in conflicts.items() if reason}
        self._sameness = Sameness(results, self._all.values)
        self.seeds = self._complete_seeds() if seeds is None else seeds
        self._data = self._all.sifted(self.seeds)
        self._judged = self._judge(self.seeds)

    def verdict(self) -> StudyVerdict:
        shared = tuple(self._shared_caveats())
        rows = tuple(self._with_losses(row, shared) for row in self._judged)
        exploratory = tuple(self._exploratory())
        ended = Counter(arm for arm, _ in self._data.ended)
        unit = self._study.measure(self._evidence.metric).unit
        return StudyVerdict(
            study=self._study.name,
            hash=self._study.hash,
            reference=self._study.reference,
            metric=self._evidence.metric,
            unit=unit,
            larger_is_better=self._evidence.larger_is_better,
            margin=self._evidence.bound,
            one_sided=self._evidence.one_sided,
            alpha=self._study.question_alpha,
            looks=self._standing.looks,
            seeds=self.seeds,
            comparisons=rows,
            ended={arm.name: ended[arm.name] for arm in self._study.arms},
            lost=self._data.losses,
            refused=self._refused,
            exploratory=exploratory,
            set_beforehand=self._history is not None and not exploratory,
            stage=self._standing.number,
            part=self._standing.part,
            whole=self._standing.share == 1.0,
            spent=tuple(self._standing.spent),
            jitter=self._jitter,
            paired=not self._evidence.unpaired,
            alerts=(
                *(() if self._history is None else self._history.alerts(self._study.reference, self._measure)),
                *alerts(self._study, self._results),
                *outlier_alerts(self._data, unit),
                *of_aa_arms(self._study, rows),
            ),
        )

    def _exploratory(self) -> Iterator[str]:
        """Say what was set or asked after results existed."""
        own = self._study.evidence.metric
        if self._study.imported is not None:
            yield "these runs were made elsewhere, and what was set beforehand is unknown"
        if self._evidence.metric != own:
            yield f"the study set {own} beforehand, not {self._evidence.metric}"
        elif self._history is not None:
            yield from self._history.set_afterwards(self._study)
        if self._history is not None:
            yield from self._history.repeated(self._measure)
        yield from self._standing.reasons

    def _both(self, arm: str) -> list[TrialResult]:
        """The results of an arm and of the reference."""
        return [*self._by_arm.get(self._study.reference, []), *self._by_arm.get(arm, [])]

    def _identical(self, seeds: int) -> dict[str, int]:
        """The arms that are the reference to the bit at all of these seeds, with their number of shared seeds."""
        if self._evidence.unpaired:
            return {}
        found = {arm: self._sameness.seeds(self._study.reference, arm, seeds) for arm in self._others}
        return {arm: shared for arm, shared in found.items() if shared and arm not in self._refused}

    def _complete_seeds(self) -> int:
        """Count the seeds to evaluate: those that all arms have ended, where they had not stopped.

        Nobody planned a look at half a seed, and a fixed study planned one look, at all of its seeds. Another study in
        the same store may have trained some arms further; that must not move the look either.
        """
        if self._whole:
            return self._all.seeds
        if not self._study.sequential:
            return complete_seeds(self._study, self._all)
        return replayed(self._study, self._results, history=self._history).seeds

    def _judge(self, seeds: int) -> tuple[Comparison, ...]:
        if not self._others:
            return ()
        data = self._all.sifted(seeds)
        reference, same = self._study.reference, self._identical(seeds)
        rows = {arm: Comparison.nothing(arm) for arm in self._others}
        bound, side = self._evidence.bound, self._evidence.one_sided
        if self._evidence.unpaired:
            arms = [arm for arm in self._others if arm not in self._refused]
            complete = self._whole or seeds == self._study.seeds
            found = compare_runs(self._study, self._evidence, data, arms, complete=complete)
            return tuple((rows | {row.arm: row for row in found}).values())
        rows |= {arm: without_difference(rows[arm], reference, n, bound, one_sided=side) for arm, n in same.items()}
        left_out = {*self._refused, *same}  # they tell nothing of others' spread, and can't be wrongly better or worse
        arms = [arm for arm in self._others if arm not in left_out]
        numbers = {number for number, arm in enumerate(self._others, start=1) if arm in left_out}
        judged = (
            judge(
                data.differences(reference, arms, seeds),
                bound,
                self._alpha,
                self._standing.looks or (3,),  # a study with one seed never comes to a look
                arms=arms,
                larger_is_better=self._evidence.larger_is_better,
                pooling=self._evidence.pooling or "guarded",
                earlier=without(self._standing.earlier, len(self._others), numbers),
                share=self._standing.share,
                # Runs far ahead stay in their arm's spread, but must not widen the intervals of others; nor must A/A
                # arms, which do not share the noise of the reference.
                apart={*self._study.twins, *(arm for arm, _ in data.outliers.ahead)} & {*arms},
                one_sided=side,
            )
            if arms
            else ()
        )
        return tuple((rows | {row.arm: row for row in judged}).values())

    def _with_losses(self, row: Comparison, shared: tuple[str, ...]) -> Comparison:
        """Add caveats to a judged comparison, and withdraw a verdict that lost seeds count against."""
        arm = row.arm
        if arm in self._refused:
            refusal = f"Refused: {self._refused[arm]}."
            return replace(row, caveats=(refusal, *shared))
        paired = pairing_caveats(self._study, arm, self._both(arm), other=self._study.reference)
        if self._evidence.unpaired:
            own = without_outlook(row.caveats) if arm in self._study.twins else row.caveats
            return replace(row, caveats=(*own, *paired, *shared))
        lost = self._data.lost_seeds(arm, self._study.reference)
        failures = failures_of(self._study, row, self._data, self.seeds)
        verdict, by_failures = combined(row.verdict, lost, failures.verdict(self._study.question_alpha))
        higher = (row.mean_difference or 0.0) > 0.0
        heading = Verdict.BETTER if higher == self._evidence.larger_is_better else Verdict.WORSE
        # Further seeds can't settle an arm where lost seeds already rule out the verdict that it is heading for; and an
        # A/A arm has nothing to settle.
        open_ended = verdict is row.verdict and allowed(heading, lost) is heading and arm not in self._study.twins
        more = row.more_seeds if open_ended else None
        judged = self._judge_caveats(row, failures, settles=more is not None)
        own = (*self._loss_caveats(row, lost, failures, verdict), *judged, *paired, *shared)
        found = replace(row, verdict=verdict, more_seeds=more, caveats=own)
        return replace(found, failures=failures, by_failures=by_failures)

    def _judge_caveats(self, row: Comparison, failures: Failures, *, settles: bool) -> tuple[str, ...]:
        """Correct the caveats of `judge`, which can't know of seeds that were given or lost.

        Further seeds may not settle an arm although `judge` says so, because it lost some.
        """
        if not looks(self._study):  # no look to wait for; a shared caveat says so
            return ()
        if hopeless(self._study, row, failures, self.seeds):
            given = " It got no further seeds." if self._study.sequential else ""
            return (f"Without a pair there is no interval and no verdict.{given}",)
        if row.arm in self._study.twins:
            return without_outlook(row.caveats)
        total = self.seeds + (row.more_seeds or 0)
        wrong = [] if settles else [needed(total, more_to_come=more) for more in (True, False)]
        wrong += [LAST_LOOK.format(self.seeds)] if self._study.imported is not None else []  # nobody planned it here
        return tuple(line for line in row.caveats if line not in wrong)

    def _loss_caveats(self, row: Comparison, lost: LostSeeds, failures: Failures, verdict: Verdict) -> Iterator[str]:
        """Say what happened to trials without a number, of the arm and of the reference."""
        reference = self._study.reference
        for how, seeds in self._by_fate(row.arm, lost.arm):
            yield f"It {how} at {seed_list(seeds)} and {reference} did not, which counts against it."
        if lost.arm and row.seeds:
            yield "Its numbers, including the chance at a new seed, use only the seeds at which both have a result."
        for how, seeds in self._by_fate(reference, lost.other):
            yield f"{reference} {how} at {seed_list(seeds)} and this arm did not, which counts for it."
        if row.verdict.settled and not verdict.settled:
            yield f"The seeds that both finished say {row.verdict.value}, but the lost seeds leave it undecided."
        by_arm = self._data.lost_by_arm
        if both := sorted(by_arm.get(row.arm, frozenset()) & by_arm.get(reference, frozenset())):
            yield f"Neither it nor {reference} has a result at {seed_list(both)}."
        yield from failure_caveats(failures, reference, allowed(row.verdict, lost), self._study.question_alpha)

    def _by_fate(self, arm: str, seeds: Sequence[int]) -> Iterator[tuple[str, list[int]]]:
        fates = {seed: self._data.lost[arm, seed] for seed in seeds}
        for how in sorted(set(fates.values())):
            yield fate(how), [seed for seed in seeds if fates[seed] == how]

    @cached_property
    def _jitter(self) -> Jitter | None:
        if self._evidence.unpaired:  # jitter is that of paired differences
            return None
        without = {*self._refused, *self._identical(self.seeds)}
        arms = [arm for arm in self._others if arm not in without]
        return find_jitter(self._study, self._results, self._data, self._study.measure(self._evidence.metric), arms)

    def _shared_caveats(self) -> Iterator[str]:
        study, metric = self._study, self._evidence.metric
        yield from caveats.of_metric(metric)
        if not looks(study):
            yield "One run per arm: a single seed can't tell a difference from noise."
        yield from caveats.of_records(study, self._data)
        yield from caveats.held_fixed(study, self._results)
        if self._jitter is not None:
            yield from self._jitter.sentences
