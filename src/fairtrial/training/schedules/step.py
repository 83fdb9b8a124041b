"""Drops at chosen epochs."""

from typing import Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import SCHEDULES
from fairtrial.spec.numbers import Count, Positive
from fairtrial.spec.sections import ScheduleSettings


@SCHEDULES.register("step")
class Step(ScheduleSettings):
    """The learning rate is multiplied by `factor` after each of the `milestones`.

    Attributes:
        milestones: finished epochs after which the rate drops; rising.
        factor: what the rate is multiplied by.
    """

    milestones: tuple[Count, ...]
    factor: Positive = 0.1

    @model_validator(mode="after")
    def _milestones_rise(self) -> Self:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise PydanticCustomError("milestones", "milestones must rise")
        return self

    def after_warmup(self, epoch: float, epochs: int) -> float:  # noqa: ARG002
        """See `ScheduleSettings.after_warmup`."""
        return self.factor ** sum(milestone <= epoch for milestone in self.milestones)
