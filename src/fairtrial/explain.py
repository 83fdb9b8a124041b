"""What the numbers of each arm's optimizer mean over the steps of its training.

Adam has two conventions for epsilon. torch, optax and the paper (Kingma & Ba 2014, algorithm 1) add it to the root of
the bias-corrected average of squares; Keras and TensorFlow to the root of the uncorrected one ("epsilon hat", the end
of the paper's section 2). With c the correction of the average, epsilon hat is epsilon times sqrt(c), where c =
1 - beta2^t at step t: no two constants do the same at every step.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fairtrial.errors import StudyError
from fairtrial.spec import BUILT_IN, Arm, OptimizerSettings, ScheduleSettings, Settings, Study

Item = TypeVar("Item")
Key = TypeVar("Key")

#: Optimizers with Adam's update, and so with both conventions.
ADAMS = ("adam", "adamw")
#: Optimizers whose betas are the decays of averages of the gradient and of its square.
_SQUARES = (*ADAMS, "nadam", "radam")
#: A bias below this share of an average is over.
NO_BIAS = 0.01
#: Steps at which a schedule is looked at, to find its highest rate.
MOST_LOOKS = 10_000


@dataclass(frozen=True)
class Average:
    """An exponential moving average of an optimizer."""

    key: str  # the setting, such as "beta2"
    of: str  # what is averaged; empty where only the optimizer knows
    decay: float
    horizon: float  # steps over which the weight of a gradient falls to 1 / e, nearly: 1 / (1 - decay)
    full_after: int  # steps after which its bias towards 0 is below 1%


@dataclass(frozen=True)
class AdamStep:
    """Adam's bias corrections at one step, and its epsilon in both conventions."""

    step: int
    first: float  # what the average of gradients is multiplied by: 1 / (1 - beta1^t)
    second: float  # and that of squares: 1 / (1 - beta2^t)
    torch_eps: float  # the same update in torch's convention
    keras_eps: float  # and in Keras's


@dataclass(frozen=True)
class Rates:
    """The learning rate over a training of some arms, at steps that are counted from 1."""

    arms: tuple[str, ...]  # labels
    schedule: ScheduleSettings
    first: float
    highest: float
    highest_at: int  # the first step that has it
    last: float


@dataclass(frozen=True)
class Explanation:
    """What the numbers of some arms mean; they share optimizer and steps."""

    arms: tuple[str, ...]  # labels
    optimizer: OptimizerSettings
    steps_per_epoch: int
    epochs: int
    averages: tuple[Average, ...]
    adam: tuple[AdamStep, ...]  # at some steps; none for other optimizers
    rates: tuple[Rates, ...]  # of each schedule, but for those that tell it only as they are stepped

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return self.steps_per_epoch * self.epochs


def explain(study: Study, steps_per_epoch: int | None = None) -> tuple[Explanation, ...]:
    """Explain the optimizers of a study's arms, those that are alike together.

    Args:
        study: the study.
        steps_per_epoch: how many steps an epoch has, where a training loop or the data are the user's own.

    Raises:
        StudyError: nobody knows how many steps an epoch has, or they are given though all are known.

    Example:
        >>> first = explain(fairtrial.load("paper"))[0]
        >>> first.steps, first.averages[1].horizon
        (7820, 1000)
    """
    if steps_per_epoch is not None and all(_known(arm.settings) for arm in study.arms):
        raise StudyError(
            f"--steps {steps_per_epoch}: not needed, the data and training.batch_size of {study.name} tell"
        )
    arms = _alike(study.arms, lambda arm: (arm.settings.optimizer, *_length(arm.settings, steps_per_epoch)))
    return tuple(_explain(alike, *key) for key, alike in arms)


def averages_of(optimizer: OptimizerSettings) -> tuple[Average, ...]:
    """List the averages of an optimizer, by the settings that are their decays.

    Example:
        >>> from fairtrial.registry import OPTIMIZERS
        >>> [(one.key, one.horizon) for one in averages_of(OPTIMIZERS.get("adam")(betas=(0.9, 0.9999)))]
        [('beta1', 10), ('beta2', 10000)]
    """
    found: list[tuple[str, str, object]] = []
    betas = getattr(optimizer, "betas", None)
    if isinstance(betas, Sequence) and len(betas) > 1:
        of = ("gradients", "their squares") if optimizer.name in _SQUARES else ("", "")
        found += [("beta1", of[0], betas[0]), ("beta2", of[1], betas[1])]
    found.append(("momentum", "gradients" if optimizer.name == "muon" else "", getattr(optimizer, "momentum", None)))
    if optimizer.name == "rmsprop":  # others have an alpha that is no decay
        found.append(("alpha", "squared gradients", getattr(optimizer, "alpha", None)))
    return tuple(
        Average(key, of, decay, _round(1 / (1 - decay)), math.ceil(math.log(NO_BIAS) / math.log(decay)))
        for key, of, decay in found
        if isinstance(decay, float) and 0 < decay < 1
    )


def adam_step(step: int, betas: Sequence[float], eps: float, convention: str) -> AdamStep:
    """Compute what Adam's corrections and its epsilon are at a step, from 1.

    Example:
        >>> adam_step(1, (0.9, 0.999), 1e-7, "keras").torch_eps
        3.16227766e-06
    """
    first, second = (-math.expm1(step * math.log(beta)) if beta else 1.0 for beta in betas[:2])
    root = math.sqrt(second)
    torch_eps, keras_eps = (eps, eps * root) if convention == "torch" else (eps / root, eps)
    return AdamStep(step, 1 / first, 1 / second, *(float(f"{value:.9g}") for value in (torch_eps, keras_eps)))


def _length(settings: Settings, steps: int | None) -> tuple[int, int]:
    """Steps of an epoch, and epochs."""
    training = settings.training
    if not (steps := _known(settings) or steps):
        whose = settings.data.name if training.loop == BUILT_IN else training.loop
        raise StudyError(f"{whose}: how many steps an epoch has is unknown here; give --steps N")
    return steps, training.epochs


def _known(settings: Settings) -> int | None:
    """Steps of an epoch of fairtrial's own loop, if the number of images is known."""
    images = settings.data.train_images if settings.training.loop == BUILT_IN else None
    return math.ceil(images / settings.training.batch_size) if images else None


def _alike(items: Iterable[Item], key: Callable[[Item], Key]) -> list[tuple[Key, list[Item]]]:
    """Group what has equal keys, in order; keys need not be hashable."""
    groups: list[tuple[Key, list[Item]]] = []
    for item in items:
        mine = key(item)
        found = next((group for of, group in groups if of == mine), None)
        if found is None:
            groups.append((mine, [item]))
        else:
            found.append(item)
    return groups


def _explain(arms: Sequence[Arm], optimizer: OptimizerSettings, steps: int, epochs: int) -> Explanation:
    adam: tuple[AdamStep, ...] = ()
    if optimizer.name in ADAMS:
        betas, eps, convention = (getattr(optimizer, key) for key in ("betas", "eps", "eps_convention"))
        adam = tuple(adam_step(step, betas, eps, convention) for step in _shown(steps, steps * epochs))
    schedules = _alike(arms, lambda arm: arm.settings.schedule)
    rates = (_rates(alike, optimizer.lr, schedule, steps, epochs) for schedule, alike in schedules)
    known = tuple(one for one in rates if one is not None)
    return Explanation(_labels(arms), optimizer, steps, epochs, averages_of(optimizer), adam, known)


def _labels(arms: Sequence[Arm]) -> tuple[str, ...]:
    return tuple(arm.label or arm.name for arm in arms)


def _shown(epoch: int, steps: int) -> Iterator[int]:
    """Choose the steps to look at: powers of ten within the first epoch, its end, and the end of the training."""
    yield from (step for step in (1, 10, 100, 1000) if step < min(epoch, steps))
    yield from dict.fromkeys((epoch, steps))


def _rates(arms: Sequence[Arm], lr: float, schedule: ScheduleSettings, steps: int, epochs: int) -> Rates | None:
    if not schedule.known_beforehand:
        return None
    total = steps * epochs

    def rate(step: int) -> float:
        return lr * schedule.lr_factor(step / steps, epochs, 1 / steps)

    stride = math.ceil(total / MOST_LOOKS)
    near = max(range(0, total, stride), key=rate)  # the first one
    highest = max(range(max(0, near - stride + 1), min(total, near + stride)), key=rate)
    return Rates(_labels(arms), schedule, rate(0), rate(highest), highest + 1, rate(total - 1))


def _round(value: float) -> float:
    """Drop what floating point adds to a quotient: 1 / (1 - 0.9) is 10."""
    rounded = float(f"{value:.9g}")
    return int(rounded) if rounded.is_integer() else rounded
