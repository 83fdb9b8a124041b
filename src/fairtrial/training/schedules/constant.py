"""A learning rate that stays as it is."""

from fairtrial.registry import SCHEDULES
from fairtrial.spec.sections import ScheduleSettings


@SCHEDULES.register("constant")
class Constant(ScheduleSettings):
    """The learning rate stays as it is, after an optional warm-up."""

    def after_warmup(self, epoch: float, epochs: int) -> float:  # noqa: ARG002
        """See `ScheduleSettings.after_warmup`."""
        return 1.0
