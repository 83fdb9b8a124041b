"""Summaries of each arm: one number per trial and measure, then mean and spread over seeds.

Only trials that finished and learned enter a mean. A diverged or failed trial has no comparable result, and the mean of
runs that learned and runs that did not lies where no run is. Those are counted and shown beside the mean, for leaving
them out unsaid would flatter the arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fairtrial import progress
from fairtrial.measures import measure
from fairtrial.registry import MEASURES
from fairtrial.spec import BUILT_IN, Arm, Study, content
from fairtrial.spec.measures import Measure
from fairtrial.stats.alerts import alerts, outlier_alerts
from fairtrial.stats.joined import by_arm, join
from fairtrial.stats.paired import BROKEN, MISSED, OUTLYING, UNLEARNED, PairedData
from fairtrial.trial import Outcome, TrialResult

#: The measures of every study, in the order of its table; the paper's is the first.
USUAL = ("best_test_acc", "test_acc_at_best_val", "best_train_acc", "final_test_acc", "final_train_loss", "seconds")


@dataclass(frozen=True)
class SeedSpread:
    """One measure of one arm over its finished seeds."""

    values: tuple[float | None, ...]  # aligned with `ArmSummary.seeds`; None where that trial has no finite value
    mean: float | None  # of the values that exist; None if there are none
    sd: float | None  # their sample standard deviation (divisor n - 1); None below two values

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "SeedSpread":
        """Compute the mean and standard deviation.

        Example:
            >>> SeedSpread.of([0.5, None, 0.7]).mean
            0.6
        """
        present = [value for value in values if value is not None]
        mean = None if not present else present[0] if len(present) == 1 else float(np.mean(present))
        sd = float(np.std(present, ddof=1)) if len(present) > 1 else None
        return cls(tuple(values), mean, sd)

    @property
    def count(self) -> int:
        """Number of values that exist."""
        return sum(value is not None for value in self.values)


@dataclass(frozen=True)
class ArmSummary:
    """One arm over its seeds: how its trials ended, by seed and counted, and its measures."""

    arm: str
    settings: Mapping[str, Any]  # its full configuration as nested plain tables, without file paths
    seeds: tuple[int, ...]  # whose trial finished and learned, ascending
    outcomes: Mapping[int, Outcome | None]  # of each recorded seed, ascending; None if it was interrupted or still runs
    finished: int  # and learned
    diverged: int  # their loss became NaN or infinite
    failed: int
    interrupted: int  # they started but have not ended: interrupted, or still running
    not_learned: int  # ended below the study's floor; see `stats.paired`
    fell_behind: int  # ended far behind the arm's other runs, in a study without a floor
    not_finite: int  # of the finished: the study's measure is NaN, infinite or beyond 1e99
    missed: int  # of the finished: they missed the target of the study's measure
    metrics: Mapping[str, SeedSpread]  # see `measures_of`; accuracies as fractions, loss in nats, times in seconds


@dataclass(frozen=True)
class StudySummary:
    """A study's arms, each over its seeds."""

    study: str  # the study's name
    hash: str
    seeds: int  # the most that an arm gets
    min_seeds: int  # that each arm gets in any case; fewer than ``seeds`` in a sequential study
    reference: str  # the arm that the others are compared with
    arms: tuple[ArmSummary, ...]  # in the study's order, including arms without any trial
    measures: tuple[Measure, ...]  # in the order of the table
    alerts: tuple[str, ...] = ()  # what can make a comparison of its arms false, a sentence each; see `stats.alerts`
    helped: int = 0  # trials that idle cores have helped: their times are shorter


def summarize(study: Study, results: Sequence[TrialResult]) -> StudySummary:
    """Summarize results of a study's trials, in any order; trials that have not started are absent.

    Raises:
        ValueError: a result is not of this study, or a trial appears twice. Both are bugs of the caller.
    """
    trials = by_arm(join(study, results).values())
    measures = measures_of(study, results)
    data = PairedData.of(study, results, study.evidence.metric, study.evidence.target).sifted(study.seeds)
    return StudySummary(
        study=study.name,
        hash=study.hash,
        seeds=study.seeds,
        min_seeds=study.min_seeds,
        reference=study.reference,
        arms=tuple(
            _arm(arm, trials.get(arm.name, []), study, measures, data) for arm in progress.steps(study.arms, "arms")
        ),
        measures=measures,
        alerts=(*alerts(study, results), *outlier_alerts(data, study.measure(study.evidence.metric).unit)),
        helped=sum(any("helped_seconds" in record.metrics for record in result.epochs) for result in results),
    )


def measures_of(study: Study, results: Sequence[TrialResult]) -> tuple[Measure, ...]:
    """List the measures of a study's table: the usual ones, those with a column, and the study's own.

    Included are those of metrics that fairtrial's own loop records in this study, or that a trial has recorded.
    """
    evidence = study.evidence
    recorded = {name for result in results for record in result.epochs for name in record.metrics}
    own_loop = [arm.settings for arm in study.arms if arm.settings.training.loop == BUILT_IN]
    recorded.update(name for settings in own_loop for name in settings.recorded)
    entries = (MEASURES.get(name) for name in MEASURES.names())
    columns = [entry.name for entry in entries if isinstance(entry, Measure) and entry.column]
    usual = [measure(name) for name in dict.fromkeys([*USUAL, *columns])]
    usual = [each for each in usual if set(each.metrics) <= recorded and (evidence.target or not each.needs_target)]
    own = study.measure(evidence.metric)
    return tuple({each.name: each for each in (*usual, replace(own, column=own.head))}.values())


def _arm(
    arm: Arm, trials: Sequence[TrialResult], study: Study, measures: Sequence[Measure], data: PairedData
) -> ArmSummary:
    ended_well = [trial for trial in trials if trial.outcome is Outcome.FINISHED]
    finished = [trial for trial in ended_well if (trial.arm, trial.seed) not in data.not_learned]
    outcomes = {trial.seed: trial.outcome for trial in trials}
    ended = list(outcomes.values())
    lost = [data.lost[arm.name, seed] for seed in data.lost_by_arm.get(arm.name, ())]
    return ArmSummary(
        arm=arm.name,
        settings=content(arm.settings),
        seeds=tuple(trial.seed for trial in finished),
        outcomes=outcomes,
        finished=len(finished),
        diverged=ended.count(Outcome.DIVERGED),
        failed=ended.count(Outcome.FAILED),
        interrupted=ended.count(None),
        not_learned=lost.count(UNLEARNED),
        fell_behind=lost.count(OUTLYING),
        not_finite=lost.count(BROKEN),
        missed=lost.count(MISSED),
        metrics={
            each.name: SeedSpread.of([each.of(trial.epochs, study.evidence.target) for trial in finished])
            for each in measures
        },
    )
