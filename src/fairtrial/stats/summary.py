"""What was recorded of each arm: one number a trial and metric, then mean and spread over seeds.

Only finished trials enter a mean. A diverged or failed trial has no comparable result, so it is counted and shown
beside the mean: averaged in, it would be arbitrary; left out, it would flatter the arm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairtrial.measures import Measure, measure
from fairtrial.spec import Arm, Study, content
from fairtrial.trial import Outcome, TrialResult

#: What every study measures of a trial. `best_test_acc` is the paper's: the best epoch is chosen on the test set.
MEASURES = ("best_test_acc", "best_train_acc", "final_test_acc", "final_train_loss", "seconds")

#: A metric of studies with a validation split: test accuracy at the epoch that was best on the validation images.
AT_BEST_VALIDATION = "test_acc_at_best_val"


@dataclass(frozen=True)
class SeedSpread:
    """One metric of one arm over its finished seeds.

    Attributes:
        values: a value a finished seed, aligned with `ArmSummary.seeds`; None where that trial did not report the
            metric, or reported no finite number.
        mean: mean of the values that are there; None if there is none.
        sd: their sample standard deviation (divisor n - 1); None below two values.
    """

    values: tuple[float | None, ...]
    mean: float | None
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "SeedSpread":
        """Compute mean and standard deviation of the values that are there.

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
        """Number of values that are there."""
        return sum(value is not None for value in self.values)


@dataclass(frozen=True)
class ArmSummary:
    """One arm over its seeds.

    Attributes:
        arm: the arm's name.
        settings: its full configuration as nested plain tables; all but the places where files happen to lie.
        seeds: seeds whose trial finished, ascending.
        outcomes: how the trial of each recorded seed ended, ascending; None while it runs or if it was interrupted.
        finished: number of trials that finished.
        diverged: number of trials whose loss turned NaN or infinite.
        failed: number of trials that ended with an error.
        interrupted: number of trials that have begun but not ended: they were interrupted, or run now.
        metrics: by name, see `MEASURES`; accuracies as fractions, loss in nats, seconds.
    """

    arm: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    outcomes: Mapping[int, Outcome | None]
    finished: int
    diverged: int
    failed: int
    interrupted: int
    metrics: Mapping[str, SeedSpread]


@dataclass(frozen=True)
class StudySummary:
    """A study's arms, each over its seeds.

    Attributes:
        study: the study's name.
        hash: the study's content hash.
        seeds: number of seeds planned for each arm, at most.
        min_seeds: number that each arm gets in any case; fewer than ``seeds`` in a sequential study.
        reference: name of the arm that the others are compared with.
        arms: in the study's order; an arm without any trial is there as well.
    """

    study: str
    hash: str
    seeds: int
    min_seeds: int
    reference: str
    arms: tuple[ArmSummary, ...]


def summarize(study: Study, results: Sequence[TrialResult]) -> StudySummary:
    """Summarise what was recorded, joined by arm and seed, whatever the order of the results.

    Args:
        study: the study that the results belong to.
        results: what the store knows of its trials; trials that have not begun are simply not there.

    Raises:
        ValueError: a result is not of this study, or one trial is there twice. Both are bugs of the caller.
    """
    trials = join(study, results)
    names = [*MEASURES, *([AT_BEST_VALIDATION] if _has_validation(study, results) else [])]
    measures = {name: measure(name) for name in names}
    return StudySummary(
        study=study.name,
        hash=study.hash,
        seeds=study.seeds,
        min_seeds=study.min_seeds,
        reference=study.reference,
        arms=tuple(_arm(arm, trials, measures) for arm in study.arms),
    )


def join(study: Study, results: Sequence[TrialResult]) -> dict[tuple[str, int], TrialResult]:
    """Key results by (arm, seed), in the study's order of arms and then by seed.

    Raises:
        ValueError: a result's arm or seed is not in the study, or a trial is there twice.
    """
    order = {arm.name: index for index, arm in enumerate(study.arms)}
    trials: dict[tuple[str, int], TrialResult] = {}
    for result in results:
        if result.arm not in order or not 0 <= result.seed < study.seeds:
            raise ValueError(f"{study.label} has no trial of arm {result.arm!r} at seed {result.seed}")
        if (result.arm, result.seed) in trials:
            raise ValueError(f"{study.label}: arm {result.arm!r} at seed {result.seed} is there twice")
        trials[result.arm, result.seed] = result
    return {key: trials[key] for key in sorted(trials, key=lambda key: (order[key[0]], key[1]))}


def _arm(arm: Arm, trials: Mapping[tuple[str, int], TrialResult], measures: Mapping[str, Measure]) -> ArmSummary:
    own = [trial for (name, _), trial in trials.items() if name == arm.name]
    finished = [trial for trial in own if trial.outcome is Outcome.FINISHED]
    outcomes = {trial.seed: trial.outcome for trial in own}
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
            name: SeedSpread.of([measured(trial.epochs) for trial in finished]) for name, measured in measures.items()
        },
    )


def _has_validation(study: Study, results: Sequence[TrialResult]) -> bool:
    """Tell whether images were held out, by fairtrial or by a training loop of the user's own."""
    held_out = any(arm.settings.data.validation for arm in study.arms)
    return held_out or any("val_acc" in record.metrics for result in results for record in result.epochs)
