"""Set the learning rate of each step, as a schedule's settings describe."""

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

from fairtrial.errors import StudyError
from fairtrial.spec import ScheduleSettings, Settings
from fairtrial.spec.messages import refusal
from fairtrial.training.schedules.own import OwnSchedule

#: Steps of a scheduler that are tried before a training: at 2 to 30 microseconds each, seconds at most.
MOST_TRIED = 100_000


class Schedule(Protocol):
    """What sets the learning rate. Its state is plain data, so that a resumed trial has the same rates."""

    def step(self) -> None:
        """Set the rate of the next step; call it after each optimizer step."""

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Take note of an epoch's metrics, and set the rate of the next step; call it once they are all measured."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; the optimizer's own has the rates."""


class FactorSchedule:
    """Multiplies the optimizer's learning rates by the factor that settings describe.

    Its state is the number of steps, and the values of the metric that the settings watch, if any.
    """

    def __init__(
        self, settings: ScheduleSettings, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int, epochs: int
    ) -> None:
        self._settings, self._optimizer = settings, optimizer
        self._steps_per_epoch, self._epochs = steps_per_epoch, epochs
        self._full = [group["lr"] for group in optimizer.param_groups]
        self._steps, self._watched = 0, list[float]()
        self._set()

    def step(self) -> None:
        """See `Schedule.step`."""
        self._steps += 1
        self._set()

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """See `Schedule.end_epoch`."""
        if self._settings.watched is not None:
            self._watched.append(metrics[self._settings.watched])
            self._set()

    def state_dict(self) -> dict[str, Any]:
        """See `Schedule.state_dict`."""
        return {"steps": self._steps, "watched": list(self._watched)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Schedule.load_state_dict`."""
        self._steps, self._watched = state["steps"], list(state["watched"])

    def _set(self) -> None:
        length = 1 / self._steps_per_epoch
        factor = self._settings.lr_factor(self._steps / self._steps_per_epoch, self._epochs, length)
        if self._settings.watched is not None:
            factor *= self._settings.after_records(self._watched)
        for group, full in zip(self._optimizer.param_groups, self._full, strict=True):
            if isinstance(group["lr"], torch.Tensor):  # on a GPU, where a recorded step reads it
                group["lr"].fill_(full * factor)
            else:
                group["lr"] = full * factor


class SteppedSchedule:
    """Steps one of torch's schedulers, or one like it, after so many optimizer steps."""

    def __init__(self, scheduler: LRScheduler, every: int) -> None:
        self._scheduler, self._every, self._steps = scheduler, every, 0

    def step(self) -> None:
        """See `Schedule.step`."""
        self._steps += 1
        if self._steps % self._every == 0:
            self._scheduler.step()

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Do nothing: no metric is read."""

    def state_dict(self) -> dict[str, Any]:
        """See `Schedule.state_dict`."""
        return {"steps": self._steps, "scheduler": self._scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Schedule.load_state_dict`."""
        self._steps = state["steps"]
        self._scheduler.load_state_dict(state["scheduler"])


def build_schedule(
    settings: ScheduleSettings, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int, epochs: int
) -> Schedule:
    """Make the schedule that settings describe; it sets the rate of the first step at once."""
    if isinstance(settings, OwnSchedule):
        return SteppedSchedule(settings.build(optimizer), steps_per_epoch if settings.per == "epoch" else 1)
    return FactorSchedule(settings, optimizer, steps_per_epoch=steps_per_epoch, epochs=epochs)


def try_schedule(settings: Settings, steps_per_epoch: int) -> None:
    """Step a scheduler of anybody's through a whole training, without a network.

    Only the scheduler knows for how many steps it is made, and would fail in the middle of the training. Of a training
    with more than `MOST_TRIED` steps, those are tried.

    Raises:
        StudyError: it fails at a step, or can't be made.
    """
    schedule, epochs = settings.schedule, settings.training.epochs
    if not isinstance(schedule, OwnSchedule):
        return
    scheduler = schedule.build(settings.optimizer.build([torch.nn.Parameter(torch.zeros(2, 2))]))
    steps = epochs if schedule.per == "epoch" else epochs * steps_per_epoch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of schedulers whose optimizer takes no step
        for step in range(1, min(steps, MOST_TRIED) + 1):
            try:
                scheduler.step()
            except Exception as error:
                length = f"{epochs} epochs" + (f" of {steps_per_epoch} steps" if schedule.per == "step" else "")
                raise StudyError(
                    f'schedule.name = "{schedule.name}": fails at step {step} of {steps} ({length}): {refusal(error)}'
                ) from error
