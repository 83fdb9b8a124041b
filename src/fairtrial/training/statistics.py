r"""Statistics of an optimizer's state and of its steps, as sums over coordinates: those of parts add up.

All are of one step t, with g the gradient of that step, m and v the optimizer's running means of the gradient and of
its square after the step (``exp_avg`` and ``exp_avg_sq``), and, as in algorithm 1 of Kingma & Ba (2014),

.. math:: \hat m = m / (1 - \beta_1^t), \qquad \hat v = v / (1 - \beta_2^t)

with the optimizer's own count t of its steps. With AMSGrad, v is the greatest so far. A coordinate is one weight.

coordinates
    How many.
log10_sqrt_vhat_p5, _p25, _p50, _p75, _p95
    Percentiles of log10 of sqrt(vhat), over coordinates that have had a gradient; within 0.004.
eps_over_1pct, eps_over_10pct, eps_over_100pct
    Share of these coordinates in which epsilon exceeds 1%, 10% and 100% of sqrt(vhat). A step is shorter by the factor
    1 / (1 + eps / sqrt(vhat)) for it: by more than 1%, 9% and 50%.
no_gradient
    Share of coordinates that never had a gradient: v is exactly 0.
update_rms_over_lr
    Root mean square of the step's change of weights over the learning rate, over weights that had a gradient in it. Of
    Adam it is 1 in the first step, and the smaller the more gradients disagree. Decoupled weight decay is part of it.
signal
    Mean of |mhat| / sqrt(vhat), over coordinates that have had a gradient: 1 if the gradients of each coordinate are
    all the same, near 0 if they cancel.
cosine
    Cosine of the angle between the averaged gradient before the step, m, and the fresh one, g.
update_over_weight
    Norm of the step's change of weights over the norm of the weights before it.
noise_scale
    Simple gradient noise scale (McCandlish et al. 2018, eq. 2.9 and appendix A.1), in batches; see `noise_left`.
train_loss, test_loss
    In fairtrial's own loop: the mean training loss of the epoch so far, and the loss on up to 128 test images.
lr, eps, beta1, beta2
    The optimizer's settings at this step, if all weights share them.

Epsilon counts as in sqrt(vhat) + eps. Where an optimizer adds it to the root of v itself, as Keras's Adam, RAdam and
SparseAdam do (the "epsilon hat" of Kingma & Ba, section 2), what counts is eps / sqrt(1 - beta2^t), which is the same.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

#: Numbers of weights: float64 of a float64 tensor, else float32, as the optimizer's own arithmetic.
Array = npt.NDArray[np.floating[Any]]

#: Percentiles of log10 sqrt(vhat).
PERCENTILES = (5, 25, 50, 75, 95)

#: Parts of sqrt(vhat) that epsilon may exceed, by the name of the share of coordinates in which it does.
EPSILON_PARTS = {"eps_over_1pct": 0.01, "eps_over_10pct": 0.1, "eps_over_100pct": 1.0}

#: A bin of the histogram of sqrt(vhat) is what shares sign, exponent and the first 6 bits of the mantissa of a float32:
#: 64 bins for each doubling.
_SHIFT = 17
_BINS = 1 << (32 - 1 - _SHIFT)

#: Significant digits that are kept.
DIGITS = 4

#: Optimizers that add epsilon to the root of v, not of vhat.
_EPSILON_HAT = {"RAdam", "SparseAdam"}


@dataclass
class Sums:
    """What the statistics of some coordinates are computed from; sums of disjoint parts add up."""

    coordinates: float = 0.0
    averaged: float = 0.0  # coordinates of which the optimizer keeps v
    alive: float = 0.0  # those of them with v > 0
    signal: float = 0.0  # of |mhat| / sqrt(vhat)
    has_mean: float = 0.0  # coordinates that this is over
    over: Array = field(default_factory=lambda: np.zeros(len(EPSILON_PARTS)))  # coordinates, by `EPSILON_PARTS`
    updated: float = 0.0  # coordinates that had a gradient in this step
    scaled: float = 0.0  # of (change / lr)^2
    change: float = 0.0  # of change^2
    weight: float = 0.0  # of weight^2
    product: float = 0.0  # of m g
    mean: float = 0.0  # of m^2
    gradient: float = 0.0  # of g^2
    noise: float = 0.0  # see `noise_left`
    true_gradient: float = 0.0
    bins: Array = field(default_factory=lambda: np.zeros(0))  # of sqrt(vhat), from bin `first`
    first: int = 0

    def add(self, other: Self) -> None:
        """Add the sums of other coordinates."""
        for one in fields(self):
            if one.name not in {"bins", "first"}:
                setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))
        if len(other.bins):
            if len(self.bins) < _BINS:
                widened = np.zeros(_BINS)
                widened[self.first : self.first + len(self.bins)] = self.bins
                self.bins, self.first = widened, 0
            self.bins[other.first : other.first + len(other.bins)] += other.bins

    def statistics(self) -> dict[str, float]:
        """Compute the statistics that these sums have the data for."""
        found: dict[str, float] = {"coordinates": self.coordinates}
        if self.averaged:
            found["no_gradient"] = 1 - self.alive / self.averaged
        if self.alive:
            found |= {name: share / self.alive for name, share in zip(EPSILON_PARTS, self.over, strict=True)}
            found |= self._percentiles()
        if self.has_mean:
            found["signal"] = self.signal / self.has_mean
        if self.updated and np.isfinite(self.scaled):
            found["update_rms_over_lr"] = (self.scaled / self.updated) ** 0.5
        if self.updated and self.weight > 0:
            found["update_over_weight"] = (self.change / self.weight) ** 0.5
        if self.mean > 0 and self.gradient > 0:
            found["cosine"] = self.product / (self.mean * self.gradient) ** 0.5
        if self.true_gradient > 0 and self.noise > 0:
            found["noise_scale"] = self.noise / self.true_gradient
        return {name: rounded(value) for name, value in found.items() if np.isfinite(value)}

    def _percentiles(self) -> dict[str, float]:
        below = np.cumsum(self.bins)
        numbers = [int(np.searchsorted(below, percent / 100 * below[-1])) + self.first for percent in PERCENTILES]
        edges = (np.array([numbers, [one + 1 for one in numbers]], np.int64) << _SHIFT).astype(np.int32)
        middle = edges.view(np.float32).astype(np.float64).mean(axis=0)
        return {f"log10_sqrt_vhat_p{one}": float(x) for one, x in zip(PERCENTILES, np.log10(middle), strict=True)}


def rounded(value: float) -> float:
    """Round to `DIGITS` significant digits; whole numbers stay."""
    value = float(value)
    return value if value.is_integer() else float(f"{value:.{DIGITS}g}")


def noise_left(beta1: float, steps: float) -> float:
    r"""How much of one batch's variance is left in the averaged gradient of so many steps.

    That average is :math:`\hat m = \sum_i w_i g_i` with :math:`w_i = (1-\beta_1) \beta_1^{k-i} / (1-\beta_1^k)`. Of
    independent batches its variance is c times that of one, with

    .. math:: c = \sum w_i^2 = \frac{(1-\beta_1)(1+\beta_1^k)}{(1+\beta_1)(1-\beta_1^k)}

    So it is a gradient of 1/c batches, and g, which it does not contain, one of one batch: the two
    sizes that McCandlish et al. (2018, appendix A.1) ask for, at no cost. With their norms,

    .. math:: |G|^2 \approx \frac{|\hat m|^2 - c |g|^2}{1 - c}, \qquad
        S \approx \frac{|g|^2 - |\hat m|^2}{1 - c}

    per batch, and the noise scale, in batches, is S / |G|^2. The gradient is taken not to change within the average's
    memory, so it is an estimate, from one step; where noise hides the gradient, |G|^2 comes out below 0 and there is
    none.

    Example:
        >>> round(noise_left(0.9, 1000), 4)  # 19 batches
        0.0526
    """
    power: float = beta1**steps
    return (1 - beta1) * (1 + power) / ((1 + beta1) * (1 - power))


def flat(tensor: Tensor, like: Tensor, every: int = 1, *, copy: bool = False) -> Array:
    """Read a tensor's numbers, or every so many, in the order of another one's memory; a view where there is one.

    Raises:
        TypeError, ValueError: it is complex, or of another shape.
    """
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        raise TypeError("complex weights")
    if tensor.shape != like.shape:
        raise ValueError(f"shape {tuple(tensor.shape)} instead of {tuple(like.shape)}")
    order = sorted(range(like.ndim), key=like.stride, reverse=True)
    numbers = tensor.permute(order).reshape(-1)[::every]
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    found: Array = numbers.to("cpu", dtype, copy=copy).numpy()
    return found


def steps_of(state: dict[str, Any], group: dict[str, Any], otherwise: int) -> float:
    """How many steps the optimizer itself has counted of a parameter."""
    for table, key in ((state, "step"), (group, "step"), (group, "steps")):
        count = table.get(key)
        if isinstance(count, int | float | Tensor):
            return float(count)
    return float(otherwise)


def beta(group: dict[str, Any], index: int) -> float | None:
    """One of a group's two decay rates, if it has them."""
    betas = group.get("betas")
    return float(betas[index]) if isinstance(betas, tuple | list) and len(betas) > index else None


def decoupled(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool | None:
    """Whether weight decay is no part of the averaged gradient; None if that is not known."""
    if "decoupled_weight_decay" in group:
        return bool(group["decoupled_weight_decay"])
    if isinstance(optimizer, torch.optim.AdamW):
        return True
    known = torch.optim.Adam, torch.optim.Adamax, torch.optim.NAdam, torch.optim.RAdam
    return False if isinstance(optimizer, known) else None


def epsilon(optimizer: torch.optim.Optimizer, group: dict[str, Any], steps: float) -> float | None:
    """Epsilon beside sqrt(vhat), if the group has one."""
    eps, beta2 = group.get("eps"), beta(group, 1)
    if not isinstance(eps, int | float | Tensor):
        return None
    if beta2 is not None and {one.__name__ for one in type(optimizer).__mro__} & _EPSILON_HAT:
        return float(float(eps) / (1 - beta2**steps) ** 0.5)
    return float(eps)


def histogram(root: Array) -> tuple[Array, int]:
    """Count positive numbers by bin; returns the counts and the number of the first bin."""
    bins = root.astype(np.float32, copy=False).view(np.int32) >> _SHIFT
    first = int(bins.min())
    bins -= first
    return np.bincount(bins).astype(np.float64), first


def add_moments(sums: Sums, v: Array, m: Array | None, *, corrections: tuple[float, float], eps: float | None) -> None:
    """Add what v and m tell, given ``1 - beta1^t`` and ``1 - beta2^t``."""
    alive = v > 0
    if not alive.all():
        v, m = v[alive], None if m is None else m[alive]
    sums.alive += len(v)
    if not len(v):
        return
    root = np.sqrt(v)
    root *= 1 / corrections[1] ** 0.5
    sums.bins, sums.first = histogram(root)
    if eps is not None:
        sums.over += [np.count_nonzero(root < eps / part) for part in EPSILON_PARTS.values()]
    if m is not None:
        sums.signal += float(np.divide(np.abs(m), root, out=root).sum(dtype=np.float64)) / corrections[0]
        sums.has_mean += len(v)


def dot(one: Array, other: Array) -> float:
    """The product of two vectors of numbers, as a float64."""
    return float(np.dot(one, other))
