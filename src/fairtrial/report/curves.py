"""The data behind curves over epochs: for each arm the mean, the range and the values of its seeds."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fairtrial.errors import ReportError
from fairtrial.spec import Study
from fairtrial.spec.imported import IMPORTED_FROM
from fairtrial.spec.measures import find_measure
from fairtrial.spec.metrics import Unit
from fairtrial.stats.joined import join
from fairtrial.stats.paired import PairedData, fate
from fairtrial.trial import Outcome, TrialResult

#: A value of a trial at an epoch, from the metrics of that epoch; None where there is none.
Value = Callable[[Mapping[str, float]], float | None]


@dataclass(frozen=True)
class Point:
    """One arm at one epoch: mean, lowest and highest value over its finished trials."""

    epoch: int  # from 1
    mean: float
    low: float
    high: float
    values: Mapping[int, float]  # by seed


@dataclass(frozen=True)
class ArmCurve:
    """One arm's learning curve."""

    arm: str
    #: One for each epoch at which all of its finished trials have a value that have any, ascending: where some have
    #: ended, a mean would be that of the survivors.
    points: tuple[Point, ...]
    #: Finite values, by seed and epoch, of trials that are in no mean: they diverged, did not learn or fell behind.
    lost: Mapping[int, Mapping[int, float]]
    fates: Mapping[str, int]  # how many of the lost ones did what, in words
    omitted: int  # failed, interrupted or running trials, which are not shown
    #: Values of finished trials, by seed and epoch, from the last point on where not all have one.
    tails: Mapping[int, Mapping[int, float]] = field(default_factory=dict)
    seeds: int = 0  # finished trials that have values


@dataclass(frozen=True)
class CurveData:
    """A metric over the epochs of a study, in its recorded unit: a curve for each arm, also for those without data."""

    metric: str
    curves: tuple[ArmCurve, ...]
    unit: Unit | None = None  # where it is not that of the metric
    label: str = ""  # of the vertical axis, where the values are not simply those of the metric

    def unit_in(self, study: Study) -> Unit:
        """The unit of the values."""
        return self.unit or study.metric(self.metric).unit

    @property
    def epochs(self) -> int:
        """The last epoch that has a value; 0 if none has."""
        found = {point.epoch for curve in self.curves for point in curve.points}
        for curve in self.curves:
            found.update(*curve.lost.values(), *curve.tails.values())
        return max(found, default=0)

    @property
    def most_seeds(self) -> int:
        """The largest number of finished trials that an arm has."""
        return max((curve.seeds for curve in self.curves), default=0)


def curve_data(
    study: Study, results: Sequence[TrialResult], metric: str, *, arms: Sequence[str] = (), value: Value | None = None
) -> CurveData:
    """Collect a metric's curves.

    Args:
        study: the study.
        results: of its trials.
        metric: the metric, or what to call the values.
        arms: those whose curves are wanted; by default all.
        value: computes the values from an epoch's metrics, where they are not simply those of the metric.

    Raises:
        ReportError: there is nothing to draw.
        ValueError: a result is not of this study, or one trial is there twice.
    """
    trials = list(join(study, results).values())
    if reason := without_epochs(study, trials):
        raise ReportError(reason)
    evidence = study.evidence
    paired = PairedData.of(study, results, evidence.metric, evidence.target).sifted(study.seeds)
    get: Value = value or (lambda metrics: metrics.get(metric))
    by_arm: dict[str, list[TrialResult]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm, []).append(trial)
    wanted = [arm.name for arm in study.arms if not arms or arm.name in arms]
    data = CurveData(metric, tuple(_curve(arm, by_arm.get(arm, []), get, paired) for arm in wanted))
    if not data.epochs:
        raise ReportError(f"no finished or diverged trial has recorded `{metric}`")
    return data


def metric_of(study: Study, results: Sequence[TrialResult], measure: str | None = None) -> str:
    """The metric of the epochs behind a measure, by default the study's; a metric's own name stays as it is.

    Where that is unknown, because a user has programmed the measure, it is the first of test accuracy, test loss and
    whatever else was recorded.
    """
    recorded = {name for result in results for record in result.epochs for name in record.metrics}
    if measure in recorded:
        return str(measure)
    found = find_measure(measure or study.evidence.metric)
    target = study.evidence.target
    known = (*(found.metrics if found else ()), *((target.metric,) if found and found.needs_target and target else ()))
    usual = ("test_acc", "val_acc", "test_loss", "val_loss", "train_loss")
    return next((name for name in (*known, *usual, *sorted(recorded)) if name in recorded), "test_acc")


def train_and_test(results: Sequence[TrialResult]) -> tuple[str, str]:
    """Find a metric that was recorded of both training and test data, or of validation data in place of these.

    Raises:
        ReportError: there is none.
    """
    recorded = {name for result in results for record in result.epochs for name in record.metrics}
    kinds = ("acc", "loss", *sorted(name.removeprefix("train_") for name in recorded if name.startswith("train_")))
    for kind in kinds:
        for other in ("test", "val"):
            if kind != "seconds" and {f"train_{kind}", f"{other}_{kind}"} <= recorded:
                return f"train_{kind}", f"{other}_{kind}"
    raise ReportError("no metric was recorded of both training and test data, such as `train_acc` and `test_acc`")


def without_epochs(study: Study, trials: Sequence[TrialResult]) -> str:
    """Say why runs that were made elsewhere have no curves: they came as one number each, or without most epochs."""
    if not any(trial.machine.system.startswith(IMPORTED_FROM) for trial in trials):
        return ""
    if all(len(trial.epochs) <= 1 for trial in trials):
        return "the runs were imported as one value each, without epochs"
    if study.imported is not None and any("were kept" in note and "epochs" in note for note in study.imported.notes):
        return "the runs were imported without most of their epochs"
    return ""


def _curve(arm: str, own: Sequence[TrialResult], get: Value, paired: PairedData) -> ArmCurve:
    ended = {trial.seed: _values(trial, get) for trial in own if trial.outcome is Outcome.FINISHED}
    finished = {seed: values for seed, values in ended.items() if (arm, seed) not in paired.not_learned}
    lost = {trial.seed: _values(trial, get) for trial in own if trial.outcome is Outcome.DIVERGED}
    lost |= {seed: values for seed, values in ended.items() if seed not in finished}
    omitted = len(own) - len(finished) - len(lost)
    shown = {seed: values for seed, values in finished.items() if values}
    points = []
    for epoch in sorted(set.intersection(*map(set, shown.values())) if shown else ()):
        values = {seed: each[epoch] for seed, each in shown.items()}
        mean = math.fsum(values.values()) / len(values)
        points.append(Point(epoch, mean, min(values.values()), max(values.values()), values))
    last = points[-1].epoch if points else 0
    tails = {seed: {epoch: each[epoch] for epoch in each if epoch >= last} for seed, each in shown.items()}
    tails = {seed: values for seed, values in tails.items() if max(values) > last}
    fates = Counter(fate(paired.lost[arm, seed]) for seed in lost)
    return ArmCurve(arm, tuple(points), lost, fates, omitted, tails, len(shown))


def _values(trial: TrialResult, get: Value) -> dict[int, float]:
    """A trial's finite values by epoch, ascending."""
    values = {record.epoch: get(record.metrics) for record in trial.epochs}
    found = {epoch: values[epoch] for epoch in sorted(values)}
    return {epoch: float(value) for epoch, value in found.items() if value is not None and math.isfinite(value)}
