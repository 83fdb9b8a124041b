"""At which steps a trial's x-ray takes snapshots: at most one in 100 on average, so that it costs little."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairtrial.snapshots import XrayProgress

#: Steps for each snapshot, on average over a trial.
SPACING = 100


@dataclass
class Schedule:
    """The steps of a trial at which its x-ray takes snapshots.

    Attributes:
        steps: counted from 1, if the number of steps in an epoch is known beforehand; else those in the first epoch.
        steps_per_epoch: that number; 0 if it is not known.
    """

    steps: frozenset[int]
    steps_per_epoch: int = 0
    _ended: int = field(default=0)  # steps at the end of the last epoch

    @property
    def known(self) -> bool:
        """Whether the number of steps in an epoch was known beforehand."""
        return self.steps_per_epoch > 0

    def epoch(self, progress: XrayProgress) -> int:
        """The epoch, from 1, of the last step."""
        return (progress.steps - 1) // self.steps_per_epoch + 1 if self.known else progress.epochs + 1

    def is_due(self, progress: XrayProgress) -> bool:
        """Whether the next step is one to look at."""
        step = progress.steps + 1
        if self.known or not progress.epoch_steps:
            return step in self.steps
        self._ended = self._ended or _last_end(progress)
        return step == self._ended + progress.epoch_steps and _affordable(progress, step)

    def ends_epoch(self, progress: XrayProgress, *, last: bool) -> bool:
        """Whether the end of an epoch that has come without a snapshot needs one: always that of the last epoch."""
        return last or (progress.steps in self.steps if self.known else _affordable(progress, progress.steps))

    def end_epoch(self, progress: XrayProgress) -> None:
        """Count the steps of an epoch that has ended."""
        progress.epoch_steps = progress.epoch_steps or progress.steps
        self._ended = progress.steps


def _affordable(progress: XrayProgress, step: int) -> bool:
    return (len(progress.snapshots) + 1) * SPACING <= step


def _last_end(progress: XrayProgress) -> int:
    """The last multiple of the first epoch's length, for an attempt that began within training."""
    return progress.steps - progress.steps % progress.epoch_steps


def schedule_of(steps_per_epoch: int, epochs: int) -> Schedule:
    """Plan the snapshots of a trial: the ends of its epochs, and before the first of them 1, 2, 5, 10, 20, ... steps.

    Where that is more than one in 100 steps, first the steps within the first epoch are thinned out, then the ends of
    epochs. The last step of all is always among them.

    Example:
        >>> sorted(schedule_of(steps_per_epoch=782, epochs=2).steps)
        [1, 2, 5, 10, 20, 50, 100, 200, 500, 782, 1564]
        >>> sorted(schedule_of(steps_per_epoch=79, epochs=5).steps)
        [158, 316, 395]
        >>> sorted(schedule_of(steps_per_epoch=8, epochs=20).steps)
        [160]
    """
    most = max(1, steps_per_epoch * epochs // SPACING)
    ends = [epoch * steps_per_epoch for epoch in range(1, epochs + 1)]
    if len(ends) > most:
        chosen = frozenset(ends[-(-epochs * number // most) - 1] for number in range(1, most + 1))
        return Schedule(chosen, steps_per_epoch)
    within = [step for step in _series() if step < steps_per_epoch]
    return Schedule(frozenset([*ends, *_thinned(within, most - len(ends))]), steps_per_epoch)


def unknown_schedule() -> Schedule:
    """Plan the snapshots of a trial whose epochs have an unknown number of steps, until the first has ended."""
    return Schedule(frozenset(step for step in _series() if step >= SPACING))


def _series() -> list[int]:
    return [digit * 10**power for power in range(10) for digit in (1, 2, 5)]


def _thinned(steps: Sequence[int], most: int) -> list[int]:
    """Choose so many steps, evenly: the first, the last, and those between."""
    if most >= len(steps):
        return [*steps]
    if most <= 1:
        return [*steps[-1:]] * most
    return [steps[round(number * (len(steps) - 1) / (most - 1))] for number in range(most)]
