"""One cycle: up to the learning rate, then far down."""

import math
from typing import Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from fairtrial.registry import SCHEDULES
from fairtrial.spec.numbers import BelowOne, Positive
from fairtrial.spec.sections import ScheduleSettings


@SCHEDULES.register("onecycle")
class OneCycle(ScheduleSettings):
    """Up from a fraction of the learning rate to all of it, then down to almost nothing (Smith & Topin 2018).

    It is torch's OneCycleLR step by step, but for the momentum: that would cycle Adam's beta1, and it stays what the
    study says. The optimizer's `lr` is the peak, torch's max_lr.

    Attributes:
        pct_start: share of the training in which the rate rises, from 0.
        div_factor: the peak divided by the first rate.
        final_div_factor: the first rate divided by the last.
        anneal_strategy: up and down along half a cosine, or along a line.
    """

    pct_start: BelowOne = 0.3
    div_factor: Positive = 25.0
    final_div_factor: Positive = 1e4
    anneal_strategy: Literal["cos", "linear"] = "cos"

    @model_validator(mode="after")
    def _no_other_warmup(self) -> Self:
        if self.warmup_epochs:
            raise PydanticCustomError("onecycle", "onecycle has a warm-up of its own: set pct_start, not warmup_epochs")
        return self

    def after_warmup(self, epoch: float, epochs: int) -> float:
        """See `ScheduleSettings.after_warmup`."""
        return self.lr_factor(epoch, epochs)

    def lr_factor(self, epoch: float, epochs: int, step: float = 0.0) -> float:
        """See `ScheduleSettings.lr_factor`; the last step has the last rate."""
        epoch, step = self.changes_at(epoch, step)
        first = 1 / self.div_factor
        peak, end = self.pct_start * epochs - step, epochs - step
        if epoch < peak:
            return self._between(first, 1.0, epoch / peak)
        return self._between(1.0, first / self.final_div_factor, min(1.0, (epoch - peak) / (end - peak)))

    def _between(self, start: float, end: float, share: float) -> float:
        left = (1 + math.cos(math.pi * share)) / 2 if self.anneal_strategy == "cos" else 1 - share
        return start * left + end * (1 - left)  # exact at both ends
