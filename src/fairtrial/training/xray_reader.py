"""What the x-ray reads of an optimizer before a step that it looks at, and computes after it."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

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

#: Of a model with more weights than this, only some of each large tensor are read, evenly spaced in its memory.
MOST_COORDINATES = 1 << 22

#: Tensors with no more weights than this are always read as a whole.
SMALL_TENSOR = 1 << 12

#: Tensors with statistics of their own in a snapshot: the largest.
MOST_TENSORS = 500


@dataclass
class Before:
    """What is read of a parameter before a step."""

    weights: Array
    sums: Sums
    lr: float


class Statistics(NamedTuple):
    """What was computed: overall, of kinds of layers, of single tensors; and why the rest was not."""

    overall: Mapping[str, float]
    kinds: Mapping[str, Mapping[str, float]]
    tensors: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """Reads the tensors of an optimizer and of the network that it trains, and changes none."""

    optimizer: torch.optim.Optimizer
    network: nn.Module | None

    def counted(self) -> int:
        """The steps that the optimizer itself has counted, if it does."""
        with suppress(Exception):
            everything = held(self.optimizer, self.network)
            return max((int(steps_of(one.state, one.group, 0)) for one in everything), default=0)
        return 0

    def before(self) -> dict[int, Before]:
        """Copy the weights that have a gradient, and compare each gradient with the average before it."""
        found = held(self.optimizer, self.network)
        every = _every(found)
        scale = getattr(self.optimizer, "grad_scale", None)  # of a GradScaler, for fused steps alone
        before: dict[int, Before] = {}
        for one in found:
            if one.parameter.grad is None:
                continue
            stride = every if one.parameter.numel() > SMALL_TENSOR else 1
            weights, sums = flat(one.parameter, one.parameter, stride, copy=True), Sums()
            gradient = flat(one.parameter.grad, one.parameter, stride)
            if scale is not None:
                gradient = gradient / float(scale)
            _add_gradient(sums, one, weights, gradient, stride, decoupled=decoupled(self.optimizer, one.group))
            before[id(one.parameter)] = Before(weights, sums, float(one.group.get("lr", float("nan"))))
        return before

    def statistics(self, before: dict[int, Before] | None, steps: int) -> Statistics:
        """Compute the statistics after so many steps, given what was read before the last one, if it was looked at."""
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
            for note in self._add_state(sums, one, stride, steps, has_squares=has_squares):
                notes[note] = None
            whole.add(sums)
            kinds[one.kind].add(sums)
            tensors[one.name] = sums
        if every > 1:
            notes[f"of large tensors one weight in {every} was read"] = None
        shown = sorted(tensors, key=lambda name: -tensors[name].coordinates)[:MOST_TENSORS]
        if len(shown) < len(tensors):
            notes[f"single tensors: only the {MOST_TENSORS} largest are shown"] = None
        overall = whole.statistics() | self._settings(everything, steps)
        if before is not None:
            notes |= dict.fromkeys(_lacking(whole, overall, type(self.optimizer).__name__))
        return Statistics(
            overall,
            {kind: sums.statistics() for kind, sums in kinds.items()},
            {name: sums.statistics() for name, sums in tensors.items() if name in set(shown)},
            tuple(notes),
        )

    def _add_state(self, sums: Sums, one: Held, every: int, counted: int, *, has_squares: bool) -> list[str]:
        """Add what the optimizer keeps of a parameter; returns what could not be computed."""
        name, state = type(self.optimizer).__name__, one.state
        if not state and has_squares:  # it has never had a gradient, and others have
            sums.averaged += one.parameter.numel()
            return []
        v = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
        if not isinstance(v, torch.Tensor):
            return [f"sqrt(vhat), epsilon and signal: {name} keeps no exp_avg_sq"]
        steps = steps_of(state, one.group, counted)
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

    def _settings(self, everything: list[Held], counted: int) -> dict[str, float]:
        """The settings that all parameters share."""
        found: dict[str, set[float]] = defaultdict(set)
        for one in everything:
            steps = steps_of(one.state, one.group, counted)
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


def _add_change(sums: Sums, one: Held, before: Before, every: int) -> None:
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
