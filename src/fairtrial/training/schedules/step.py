"""Drops: at chosen epochs, or every so many."""

from typing import ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import SCHEDULES
from fairtrial.spec.numbers import Count, Positive
from fairtrial.spec.sections import ScheduleSettings


@SCHEDULES.register("multistep")
class MultiStep(ScheduleSettings):
    """The learning rate is multiplied by `factor` after each of the `milestones` (torch's MultiStepLR).

    Attributes:
        milestones: finished epochs after which the rate drops; rising.
        factor: what the rate is multiplied by; torch calls it gamma.
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


@SCHEDULES.register("step")
class Step(MultiStep):
    """The learning rate is multiplied by `factor` every `step_size` epochs (torch's StepLR), or at `milestones`.

    Attributes:
        milestones: as in `MultiStep`; or none, and a step_size.
        factor: what the rate is multiplied by; torch calls it gamma.
        step_size: number of epochs from one drop to the next.
    """

    later_keys: ClassVar[frozenset[str]] = MultiStep.later_keys | {"step_size"}

    milestones: tuple[Count, ...] = ()
    step_size: Count | None = None

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if bool(self.milestones) == (self.step_size is not None):
            raise PydanticCustomError("step", "step needs step_size or milestones, and not both")
        return self

    def after_warmup(self, epoch: float, epochs: int) -> float:
        """See `ScheduleSettings.after_warmup`."""
        return self.factor ** (epoch // self.step_size) if self.step_size else super().after_warmup(epoch, epochs)
