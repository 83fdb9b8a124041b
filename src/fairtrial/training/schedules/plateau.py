"""Drops when a metric stops improving."""

import math
from collections.abc import Sequence

from fairtrial.registry import SCHEDULES, did_you_mean
from fairtrial.spec.metrics import Metric
from fairtrial.spec.numbers import CountOrZero, Decay, Fraction, NonNegative
from fairtrial.spec.sections import ScheduleSettings


@SCHEDULES.register("plateau")
class Plateau(ScheduleSettings):
    """The learning rate is multiplied by `factor` when a metric stops improving (torch's ReduceLROnPlateau).

    The metric is one of the training or the validation images: a rate that follows the test images would be tuned on
    them. torch's own patience of 10 epochs could change nothing in a training of ten.

    Attributes:
        metric: what is to improve from epoch to epoch, such as ``"val_loss"``.
        factor: what the rate is multiplied by.
        patience: number of consecutive epochs without an improvement that change nothing; one more lowers the rate.
        threshold: what counts as an improvement, as a fraction of the best value so far.
        cooldown: number of epochs after a drop that do not count as without an improvement.
        final: the lowest rate as a fraction of the first.

    Example:
        >>> Plateau(patience=1, factor=0.5).after_records([1.0, 0.9, 0.9, 0.9])
        0.5
    """

    metric: str = "train_loss"
    factor: Decay = 0.1
    patience: CountOrZero = 2
    threshold: NonNegative = 1e-4
    cooldown: CountOrZero = 0
    final: Fraction = 0.0

    def after_warmup(self, epoch: float, epochs: int) -> float:  # noqa: ARG002
        """See `ScheduleSettings.after_warmup`."""
        return 1.0

    @property
    def watched(self) -> str:
        """See `ScheduleSettings.watched`."""
        return self.metric

    def after_records(self, values: Sequence[float]) -> float:
        """See `ScheduleSettings.after_records`; the epochs are gone through again, so there is no state to lose."""
        sign = -1 if Metric.named(self.metric).direction == "higher" else 1
        factor, best, bad, cooling = 1.0, math.inf, 0, 0
        for value in (sign * each for each in values):
            better = value < best - self.threshold * abs(best) if math.isfinite(best) else value < best
            best, bad = (value, 0) if better else (best, bad + 1)
            if cooling:
                cooling, bad = cooling - 1, 0
            if bad > self.patience:
                factor, cooling, bad = max(factor * self.factor, self.final), self.cooldown, 0
        return factor

    def problem(self, epochs: int, recorded: Sequence[str]) -> str:
        """See `ScheduleSettings.problem`."""
        known = [name for name in recorded if name.startswith(("train_", "val_")) and not name.endswith("_seconds")]
        if self.metric not in known:
            why = did_you_mean(self.metric, known)
            if self.metric.startswith("val_"):
                why = "needs data.validation"
            elif "test" in self.metric:
                why = f"the rate must not follow the test images; {why}"
            return f'schedule.metric = "{self.metric}": {why}'
        if self.patience > epochs - 3:  # the first epoch is the best so far, and a drop after the last comes too late
            allowed = f"at most {epochs - 3}" if epochs > 2 else "a plateau needs at least 3"
            return f"schedule.patience = {self.patience}: the rate could never drop within {epochs} epochs; {allowed}"
        return ""
