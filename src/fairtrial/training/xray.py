"""The x-ray of a trial: statistics of its optimizer's state at chosen steps. It changes none of the trial's results.

It listens to the optimizer's steps through torch's hooks, reads tensors and copies what it needs, and draws no random
numbers. What it computes is in `statistics`, and when in `schedule_of`.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from types import FrameType
from typing import Any, TypeVar

import torch
from torch import nn

from fairtrial.training.layer_kinds import Held, held
from fairtrial.training.statistics import (
    Array,
    Sums,
    add_moments,
    beta,
    decoupled,
    dot,
    epsilon,
    flat,
    noise_left,
    rounded,
    steps_of,
)
from fairtrial.training.xray_schedule import Schedule, schedule_of, unknown_schedule
from fairtrial.trial import Snapshot, TrialContext

T = TypeVar("T")

#: Of a model with more weights than this, only some of each large tensor are read, evenly spaced in its memory.
MOST_COORDINATES = 1 << 22

#: Tensors with no more weights than this are always read as a whole.
SMALL_TENSOR = 1 << 12

#: Tensors with statistics of their own in a snapshot: the largest.
MOST_TENSORS = 500


@dataclass
class _Before:
    """What is read of a parameter before a step."""

    weights: Array
    sums: Sums
    lr: float


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
    _before: dict[int, _Before] | None = None
    _failed: str = ""
    _skips: bool = False  # while a step is recorded or repeated
    _frame: FrameType | None = None  # the call of step that has not returned yet, or has raised an error
    _handles: list[Any] = field(default_factory=list)

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
                    self._before = self._read()
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
        counted = self._counted()
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

    def _counted(self) -> int:
        """The steps that the optimizer itself has counted, if it does."""
        with suppress(Exception):
            everything = held(self.optimizer, self.network)
            return max((int(steps_of(one.state, one.group, 0)) for one in everything), default=0)
        return 0

    def _read(self) -> dict[int, _Before]:
        """Copy the weights that have a gradient, and compare each gradient with the average before it."""
        found = held(self.optimizer, self.network)
        every = _every(found)
        scale = getattr(self.optimizer, "grad_scale", None)  # of a GradScaler, for fused steps alone
        before: dict[int, _Before] = {}
        for one in found:
            if one.parameter.grad is None:
                continue
            stride = every if one.parameter.numel() > SMALL_TENSOR else 1
            weights, sums = flat(one.parameter, one.parameter, stride, copy=True), Sums()
            gradient = flat(one.parameter.grad, one.parameter, stride)
            if scale is not None:
                gradient = gradient / float(scale)
            _add_gradient(sums, one, weights, gradient, stride, decoupled=decoupled(self.optimizer, one.group))
            before[id(one.parameter)] = _Before(weights, sums, float(one.group.get("lr", float("nan"))))
        return before

    def _take(self, before: dict[int, _Before] | None, notes: list[str], epoch: int | None = None) -> None:
        trial, progress = self.trial, self.trial.xray_progress
        epoch = self.schedule.epoch(progress) if epoch is None else epoch
        if progress.missed:
            notes = [f"taken late: {progress.missed}", *notes]
        overall: dict[str, float] = {}
        kinds: Mapping[str, Mapping[str, float]] = {}
        tensors: Mapping[str, Mapping[str, float]] = {}
        try:
            with torch.no_grad():
                overall, kinds, tensors, found = self._statistics(before)
            notes = [*notes, *found]
        except Exception as error:  # noqa: BLE001  (whatever happens here must not end a training)
            notes = [*notes, f"statistics: {_line(error)}"]
        where = trial.arm, trial.trial.seed, epoch, progress.steps
        progress.snapshots.append(Snapshot(*where, overall, kinds, tensors, tuple(dict.fromkeys(notes))))

    def _statistics(self, before: dict[int, _Before] | None) -> tuple[Any, Any, Any, list[str]]:
        """Compute the statistics overall, of kinds of layers and of tensors, and say what could not be."""
        notes: dict[str, None] = {}
        whole, kinds = Sums(), defaultdict[str, Sums](Sums)
        tensors: dict[str, Sums] = {}
        everything = held(self.optimizer, self.network)
        every, has_squares = _every(everything), any("exp_avg_sq" in one.state for one in everything)
        for one in everything:
            stride = every if one.parameter.numel() > SMALL_TENSOR else 1
            sums = before[id(one.parameter)].sums if before and id(one.parameter) in before else Sums()
            sums.coordinates = one.parameter.numel()
            if before and id(one.parameter) in before:
                _add_change(sums, one, before[id(one.parameter)], stride)
            decays = before and one.group.get("weight_decay") and "exp_avg" in one.state
            if decays and decoupled(self.optimizer, one.group) is None:
                notes["cosine and noise scale: not known whether weight decay is part of the average"] = None
            for note in self._add_state(sums, one, stride, has_squares=has_squares):
                notes[note] = None
            whole.add(sums)
            kinds[one.kind].add(sums)
            tensors[one.name] = sums
        if every > 1:
            notes[f"of large tensors one weight in {every} was read"] = None
        shown = sorted(tensors, key=lambda name: -tensors[name].coordinates)[:MOST_TENSORS]
        if len(shown) < len(tensors):
            notes[f"single tensors: only the {MOST_TENSORS} largest are shown"] = None
        overall = whole.statistics() | self._settings(everything)
        if before is not None:
            notes |= dict.fromkeys(_lacking(whole, overall, type(self.optimizer).__name__))
        return (
            overall,
            {kind: sums.statistics() for kind, sums in kinds.items()},
            {name: sums.statistics() for name, sums in tensors.items() if name in set(shown)},
            [*notes],
        )

    def _add_state(self, sums: Sums, one: Held, every: int, *, has_squares: bool) -> list[str]:
        """Add what the optimizer keeps of a parameter; returns what could not be computed."""
        name, state = type(self.optimizer).__name__, one.state
        if not state and has_squares:  # it has never had a gradient, and others have
            sums.averaged += one.parameter.numel()
            return []
        v = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
        if not isinstance(v, torch.Tensor):
            return [f"sqrt(vhat), epsilon and signal: {name} keeps no exp_avg_sq"]
        steps = steps_of(state, one.group, self.trial.xray_progress.steps)
        beta1, beta2 = beta(one.group, 0), beta(one.group, 1)
        if beta2 is None:
            return [f"sqrt(vhat), epsilon and signal: {name} has no betas in its groups"]
        m = state.get("exp_avg")
        notes = [] if m is not None else [f"signal: {name} keeps no exp_avg"]
        eps = epsilon(self.optimizer, one.group, steps)
        notes += [] if eps is not None else [f"epsilon: {name} has none in its groups"]
        try:
            squares = flat(v, one.parameter, every)
            mean = None if m is None else flat(m, one.parameter, every)
        except (TypeError, ValueError) as error:
            return [f"sqrt(vhat), epsilon and signal of {one.name}: {error}"]
        sums.averaged += len(squares)
        corrections = 1 - (beta1 or 0.0) ** steps, 1 - beta2**steps
        if min(corrections) <= 0:
            return [*notes, f"sqrt(vhat) of {one.name}: the optimizer has counted no step"]
        add_moments(sums, squares, mean, corrections=corrections, eps=eps)
        return notes

    def _settings(self, everything: list[Held]) -> dict[str, float]:
        """The settings that all parameters share."""
        found: dict[str, set[float]] = defaultdict(set)
        for one in everything:
            steps = steps_of(one.state, one.group, self.trial.xray_progress.steps)
            lr = one.group.get("lr")
            values = {"beta1": beta(one.group, 0), "beta2": beta(one.group, 1)}
            values["lr"] = float(lr) if isinstance(lr, int | float | torch.Tensor) else None
            values["eps"] = epsilon(self.optimizer, one.group, steps) if steps else None
            for name, value in values.items():
                if value is not None:
                    found[name].add(rounded(value))
        return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _every(everything: list[Held]) -> int:
    """Every how many-th weight of a large tensor is read."""
    return max(1, -(-sum(one.parameter.numel() for one in everything) // MOST_COORDINATES))


def _add_gradient(
    sums: Sums, one: Held, weights: Array, gradient: Array, every: int, *, decoupled: bool | None
) -> None:
    """Add what the gradient of a step tells beside the average of those before it."""
    group = one.group
    decay = group.get("weight_decay", 0.0)
    if decay and decoupled is False:  # an L2 penalty is part of the averaged gradient
        gradient = gradient + float(decay) * weights
    if group.get("maximize"):
        gradient = -gradient
    sums.gradient = dot(gradient, gradient)
    m, beta1, steps = one.state.get("exp_avg"), beta(group, 0), steps_of(one.state, group, 0)
    if not isinstance(m, torch.Tensor) or m.shape != one.parameter.shape:
        sums.gradient = 0.0
        return
    mean = flat(m, one.parameter, every)
    sums.product, sums.mean = dot(mean, gradient), dot(mean, mean)
    if beta1 and steps > 1:
        left, size = noise_left(beta1, steps), sums.mean / (1 - beta1**steps) ** 2
        sums.noise = (sums.gradient - size) / (1 - left)
        sums.true_gradient = (size - left * sums.gradient) / (1 - left)


def _add_change(sums: Sums, one: Held, before: _Before, every: int) -> None:
    """Add what a step has changed."""
    change = flat(one.parameter, one.parameter, every) - before.weights
    sums.updated = len(change)
    sums.change = dot(change, change)
    sums.weight = dot(before.weights, before.weights)
    sums.scaled = sums.change / before.lr**2 if before.lr else float("nan")


def _lacking(whole: Sums, overall: Mapping[str, float], optimizer: str) -> list[str]:
    """Say why statistics of a step are missing."""
    if not whole.updated:
        return ["update, cosine and noise scale: no weight had a gradient in this step"]
    notes = []
    if "update_rms_over_lr" not in overall:
        notes.append("update over the learning rate: the learning rate is 0 or unknown")
    if not whole.gradient:
        notes.append(f"cosine and noise scale: {optimizer} has no average of gradients from before this step")
    elif "noise_scale" not in overall:
        notes.append("noise scale: one step does not tell gradient and noise apart here")
    return notes


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
