"""A fall by the same factor in every epoch."""

import math

from fairtrial.registry import SCHEDULES
from fairtrial.spec.numbers import Fraction
from fairtrial.spec.sections import ScheduleSettings


@SCHEDULES.register("exponential")
class Exponential(ScheduleSettings):
    """The learning rate is multiplied by `gamma` in every epoch after the warm-up, a little at each step.

    Attributes:
        gamma: what is left of the rate after an epoch, from 0 to 1.
    """

    gamma: Fraction = 0.9

    def after_warmup(self, epoch: float, epochs: int) -> float:  # noqa: ARG002
        """See `ScheduleSettings.after_warmup`; 1 during the warm-up."""
        return math.pow(self.gamma, max(0.0, epoch - self.warmup_epochs))
