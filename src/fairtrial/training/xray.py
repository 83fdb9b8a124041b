"""The x-ray of a trial: statistics of its optimizer's state at chosen steps. It changes none of the trial's results.

It listens to the optimizer's steps through torch's hooks, reads tensors and copies what it needs, and draws no random
numbers. What it reads and computes is in `xray_reader`, and when in `xray_schedule`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import nn

from fairtrial.training.statistics import rounded
from fairtrial.training.xray_reader import Before, Reader, Statistics
from fairtrial.training.xray_schedule import Schedule, schedule_of, unknown_schedule
from fairtrial.trial import Snapshot, TrialContext

T = TypeVar("T")


@dataclass
class Xray:
    """Takes snapshots of an optimizer's state; `fairtrial.trial.TrialContext.xray` makes one.

    Attributes:
        fresh: whether the last step has added a snapshot.
        seconds: that the x-ray has taken since `spent` was called.
    """

    trial: TrialContext
    optimizer: torch.optim.Optimizer
    network: nn.Module | None
    schedule: Schedule
    fresh: bool = False
    seconds: float = 0.0
    _before: dict[int, Before] | None = None
    _failed: str = ""
    _skips: bool = False  # while a step is recorded or repeated
    _frame: FrameType | None = None  # the call of step that has not returned yet, or has raised an error
    _handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = Reader(self.optimizer, self.network)

    def attach(self) -> None:
        """Begin to listen."""
        self._handles = [
            self.optimizer.register_step_pre_hook(self._on_step),
            self.optimizer.register_step_post_hook(self._on_stepped),
        ]
        self.trial.on_epoch_end = self._on_epoch_end

    def detach(self) -> None:
        """Listen no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def add_losses(self, **losses: float) -> None:
        """Add losses to the last snapshot."""
        snapshots = self.trial.xray_progress.snapshots
        last = snapshots[-1]
        numbers = {name: rounded(value) for name, value in losses.items()}
        snapshots[-1] = _changed(last, overall={**last.overall, **numbers})

    def spent(self) -> float:
        """The seconds that the x-ray has taken since this was last called."""
        spent, self.seconds = self.seconds, 0.0
        return spent

    @property
    def due(self) -> bool:
        """Whether the next step is one to look at: the optimizer must then be called, and not a recording of it."""
        progress = self.trial.xray_progress
        return bool(self._handles) and (bool(progress.missed) or self.schedule.is_due(progress))

    def unseen(self, step: Callable[[], T]) -> T:
        """Take and count a step that is recorded, or repeated from a recording: no call of the optimizer counts."""
        self._skips = True
        try:
            result = step()
        finally:
            self._skips = False
        self.fresh = False
        self.trial.xray_progress.steps += bool(self._handles)
        return result

    def note(self, text: str) -> None:
        """Add to the last snapshot why something could not be computed."""
        snapshots = self.trial.xray_progress.snapshots
        snapshots[-1] = _changed(snapshots[-1], notes=(*snapshots[-1].notes, text))

    def _on_step(self, *_: object) -> None:
        """Read what a step will change, if it is one to look at."""
        if self._skips or _untouchable():
            return
        frame = sys._getframe(1)  # noqa: SLF001  (the call of step; torch gives hooks nothing that tells calls apart)
        if self._frame is not None and _is_within(frame, self._frame):
            return  # the step of a class that derives from another calls that one's
        begun, progress = perf_counter(), self.trial.xray_progress
        if self._frame is not None:
            progress.missed = f"optimizer.step raised an error at step {progress.steps + 1}"
        self._frame, self._before, self._failed, self.fresh = frame, None, "", False
        if progress.missed or self.schedule.is_due(progress):
            try:
                with torch.no_grad():
                    self._before = self._reader.before()
            except Exception as error:  # noqa: BLE001  (whatever happens here must not end a training)
                self._failed = _line(error)
        self.seconds += perf_counter() - begun

    def _on_stepped(self, *_: object) -> None:
        """Take the snapshot of a step."""
        if self._skips or _untouchable() or sys._getframe(1) is not self._frame:  # noqa: SLF001
            return
        begun, progress = perf_counter(), self.trial.xray_progress
        progress.steps += 1
        before, failed = self._before, self._failed
        self._frame, self._before, self._failed = None, None, ""
        if before is not None or failed:
            self._take(before, [failed] if failed else [])
            progress.missed, self.fresh = "", True
        self.seconds += perf_counter() - begun

    def _on_epoch_end(self, epoch: int) -> None:
        """Take a snapshot of the state alone where the end of an epoch was not foreseen."""
        begun, progress = perf_counter(), self.trial.xray_progress
        counted = self._reader.counted()
        expected = self.schedule.steps_per_epoch * epoch or counted
        unseen = counted > progress.steps and expected > progress.steps and (self.schedule.known or not progress.steps)
        progress.steps = expected if unseen else progress.steps
        last = progress.snapshots[-1].step if progress.snapshots else 0
        if last != progress.steps and self.schedule.ends_epoch(progress, last=epoch == self.trial.epochs):
            why = (
                "the steps were not seen, as in compiled steps or graphs"
                if unseen
                else "its last step was not known before"
            )
            self._take(None, [f"update, cosine and noise scale at the end of epoch {epoch}: {why}"], epoch)
        self.schedule.end_epoch(progress)
        self.seconds += perf_counter() - begun

    def _take(self, before: dict[int, Before] | None, notes: list[str], epoch: int | None = None) -> None:
        trial, progress = self.trial, self.trial.xray_progress
        epoch = self.schedule.epoch(progress) if epoch is None else epoch
        if progress.missed:
            notes = [f"taken late: {progress.missed}", *notes]
        try:
            with torch.no_grad():
                found = self._reader.statistics(before, progress.steps)
        except Exception as error:  # noqa: BLE001  (whatever happens here must not end a training)
            found = Statistics({}, {}, {}, (f"statistics: {_line(error)}",))
        where = trial.arm, trial.trial.seed, epoch, progress.steps
        said = tuple(dict.fromkeys([*notes, *found.notes]))
        progress.snapshots.append(Snapshot(*where, found.overall, found.kinds, found.tensors, said))


def _changed(snapshot: Snapshot, **changes: Any) -> Snapshot:
    return Snapshot(**{**vars(snapshot), **changes})


def _untouchable() -> bool:
    """Whether this is no real step: torch traces it, or captures it into a CUDA graph, where reading is an error."""
    return torch.compiler.is_compiling() or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def _is_within(frame: FrameType | None, other: FrameType) -> bool:
    while frame is not None and frame is not other:
        frame = frame.f_back
    return frame is other


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]


def attach(
    trial: TrialContext,
    optimizer: torch.optim.Optimizer,
    network: nn.Module | None = None,
    *,
    steps_per_epoch: int | None = None,
) -> Xray:
    """Make the x-ray of a trial; see `TrialContext.xray`.

    Raises:
        TypeError: what was given is no optimizer, or no network.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"trial.xray needs a torch.optim.Optimizer, not {type(optimizer).__name__}")
    if network is not None and not isinstance(network, nn.Module):
        raise TypeError(f"trial.xray: network must be a torch.nn.Module, not {type(network).__name__}")
    if steps_per_epoch is not None and steps_per_epoch < 1:
        raise ValueError(f"trial.xray: steps_per_epoch = {steps_per_epoch}: must be at least 1")
    schedule = unknown_schedule() if steps_per_epoch is None else schedule_of(steps_per_epoch, trial.epochs)
    made = Xray(trial, optimizer, network, schedule)
    if trial.xray_wanted:
        before = getattr(trial.on_epoch_end, "__self__", None)
        if isinstance(before, Xray):
            before.detach()
        made.attach()
    return made
