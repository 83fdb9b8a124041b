"""Schedules by path: the others of torch, and anybody's of their kind."""

import sys
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.registry import NotFoundError
from fairtrial.spec.arguments import FromSignature, parameters_of, settings_of
from fairtrial.spec.messages import refusal
from fairtrial.spec.sections import ScheduleSettings

if TYPE_CHECKING:
    import torch


def adapt(name: str, thing: Any) -> type[ScheduleSettings]:
    """Make settings of a scheduler's class, or of a function that gets the optimizer first and returns a scheduler.

    Raises:
        NotFoundError: it is neither, or reads a metric, which only `plateau` does.
    """
    torch = sys.modules.get("torch")  # whoever has a class derived from torch's has imported it
    bases: tuple[type, ...] = thing.__mro__ if isinstance(thing, type) else ()
    is_schedule = torch is not None and torch.optim.lr_scheduler.LRScheduler in bases
    if not callable(thing) or (bases and not is_schedule):
        raise NotFoundError(
            "must be a torch.optim.lr_scheduler.LRScheduler, a function that makes one, or a ScheduleSettings"
        )
    if torch is not None and torch.optim.lr_scheduler.ReduceLROnPlateau in bases:
        raise NotFoundError('reads a metric; write name = "plateau"')
    first = next(iter(parameters_of(thing)), "")
    if not first:
        raise NotFoundError("must take the optimizer first")
    return settings_of(OwnSchedule, name, thing, frozenset({first, "last_epoch"}))


class OwnSchedule(FromSignature, ScheduleSettings):
    """A scheduler of anybody's; its keys are its arguments, and `per` says how often it is stepped."""

    known_beforehand: ClassVar[bool] = False

    @model_validator(mode="after")
    def _no_warmup(self) -> Self:
        if self.warmup_epochs and "warmup_epochs" not in self.argument_names:
            raise PydanticCustomError(
                "own_schedule", "warmup_epochs is for fairtrial's own schedules; name a function that adds a warm-up"
            )
        return self

    def after_warmup(self, epoch: float, epochs: int) -> float:
        """Refuse: only stepping the scheduler tells."""
        raise NotImplementedError(f"{self.name} gives its rates only as it is stepped")

    def build(self, optimizer: "torch.optim.Optimizer") -> "torch.optim.lr_scheduler.LRScheduler":
        """Make the scheduler; a `StudyError` if it refuses its arguments or the optimizer, or what was made is none."""
        import torch  # noqa: PLC0415  (settings are read without it)

        try:
            made = self.thing(optimizer, **self.arguments)
        except Exception as error:
            raise StudyError(f'schedule.name = "{self.name}": {refusal(error)}') from error
        if not isinstance(made, torch.optim.lr_scheduler.LRScheduler):
            raise StudyError(
                f'schedule.name = "{self.name}": gave {type(made).__name__}, not a torch.optim.lr_scheduler.LRScheduler'
            )
        return made
