"""Summaries of each arm: one number per trial and measure, then mean and spread over seeds.

Only finished trials enter a mean. A diverged or failed trial has no comparable result, so it is counted and shown
beside the mean: averaging it in would be arbitrary, and leaving it out would flatter the arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from fairtrial.measures import measure
from fairtrial.registry import MEASURES
from fairtrial.spec import Arm, Study, content
from fairtrial.spec.measures import Measure
from fairtrial.trial import Outcome, TrialResult

#: A trial: arm and seed.
Key: TypeAlias = tuple[str, int]

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
        mean = float(np.mean(present)) if present else None
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
    seeds: tuple[int, ...]  # whose trial finished, ascending
    outcomes: Mapping[int, Outcome | None]  # of each recorded seed, ascending; None if it was interrupted or still runs
    finished: int
    diverged: int  # their loss became NaN or infinite
    failed: int
    interrupted: int  # they started but have not ended: interrupted, or still running
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


def summarize(study: Study, results: Sequence[TrialResult]) -> StudySummary:
    """Summarize results of a study's trials, in any order; trials that have not started are absent.

    Raises:
        ValueError: a result is not of this study, or a trial appears twice. Both are bugs of the caller.
    """
    trials = join(study, results).values()
    measures = measures_of(study, results)
    return StudySummary(
        study=study.name,
        hash=study.hash,
        seeds=study.seeds,
        min_seeds=study.min_seeds,
        reference=study.reference,
        arms=tuple(_arm(arm, [t for t in trials if t.arm == arm.name], study, measures) for arm in study.arms),
        measures=measures,
    )


def measures_of(study: Study, results: Sequence[TrialResult]) -> tuple[Measure, ...]:
    """List the measures of a study's table: the usual ones, those with a column, and the study's own.

    A measure of something that fairtrial's own loop does not record in this study is included if a trial recorded it.
    """
    evidence = study.evidence
    recorded = {name for result in results for record in result.epochs for name in record.metrics}
    recorded.update(name for arm in study.arms for name in arm.settings.recorded)
    entries = (MEASURES.get(name) for name in MEASURES.names())
    columns = [entry.name for entry in entries if isinstance(entry, Measure) and entry.column]
    usual = [measure(name) for name in dict.fromkeys([*USUAL, *columns])]
    usual = [each for each in usual if set(each.metrics) <= recorded and (evidence.target or not each.needs_target)]
    own = study.measure(evidence.metric)
    return tuple({each.name: each for each in (*usual, replace(own, column=own.head))}.values())


def join(study: Study, results: Sequence[TrialResult]) -> dict[Key, TrialResult]:
    """Key results by arm and seed, in the study's order; raises ValueError for a foreign or repeated trial."""
    order = {arm.name: index for index, arm in enumerate(study.arms)}
    trials: dict[Key, TrialResult] = {}
    for result in results:
        if result.arm not in order or not 0 <= result.seed < study.seeds:
            raise ValueError(f"{study.label} has no trial of arm {result.arm!r} at seed {result.seed}")
        if (result.arm, result.seed) in trials:
            raise ValueError(f"{study.label}: arm {result.arm!r} at seed {result.seed} appears twice")
        trials[result.arm, result.seed] = result
    return {key: trials[key] for key in sorted(trials, key=lambda key: (order[key[0]], key[1]))}


def _arm(arm: Arm, trials: Sequence[TrialResult], study: Study, measures: Sequence[Measure]) -> ArmSummary:
    finished = [trial for trial in trials if trial.outcome is Outcome.FINISHED]
    outcomes = {trial.seed: trial.outcome for trial in trials}
    ended = list(outcomes.values())
    return ArmSummary(
        arm=arm.name,
        settings=content(arm.settings),
        seeds=tuple(trial.seed for trial in finished),
        outcomes=outcomes,
        finished=len(finished),
        diverged=ended.count(Outcome.DIVERGED),
        failed=ended.count(Outcome.FAILED),
        interrupted=ended.count(None),
        metrics={
            each.name: SeedSpread.of([each.of(trial.epochs, study.evidence.target) for trial in finished])
            for each in measures
        },
    )
