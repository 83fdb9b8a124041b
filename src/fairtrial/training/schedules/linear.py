"""Schedules that fall from the end of the warm-up to the end of the training, and the linear one."""

from abc import abstractmethod

from fairtrial.registry import SCHEDULES
from fairtrial.spec.numbers import Fraction
from fairtrial.spec.sections import ScheduleSettings


class DecaySettings(ScheduleSettings):
    """Base of schedules that fall to a fraction of the learning rate.

    Attributes:
        final: the last rate as a fraction of the first.
    """

    final: Fraction = 0.0

    @abstractmethod
    def left(self, done: float) -> float:
        """Compute what is left of the way down, from 1 to 0, after a share of the time."""

    def after_warmup(self, epoch: float, epochs: int) -> float:
        """See `ScheduleSettings.after_warmup`; 1 during the warm-up."""
        if epoch < self.warmup_epochs:
            return 1.0
        time = epochs - self.warmup_epochs
        done = min(1.0, (epoch - self.warmup_epochs) / time) if time > 0 else 1.0
        return self.final + (1 - self.final) * self.left(done)


@SCHEDULES.register("linear")
class Linear(DecaySettings):
    """A straight line from the learning rate to a fraction of it."""

    def left(self, done: float) -> float:
        """See `DecaySettings.left`."""
        return 1 - done
