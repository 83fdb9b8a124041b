"""From a specification to a torch optimizer and a learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from fairtrial import spec


def build_optimizer(settings: spec.Optimizer, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    r"""Make the optimizer that a specification describes.

    With ``eps_convention = "torch"`` Adam is algorithm 1 of Kingma & Ba (2014), as torch.optim.Adam has it:

    .. math:: \theta \leftarrow \theta - \alpha \, \hat m_t / (\sqrt{\hat v_t} + \epsilon)

    With ``"keras"`` it is the form at the end of their section 2, which Keras and TensorFlow use:

    .. math:: \theta \leftarrow \theta
        - \alpha \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} m_t / (\sqrt{v_t} + \hat\epsilon)

    Args:
        settings: the optimizer's section.
        parameters: what to optimize, real floating-point tensors on one device.

    Returns:
        A torch optimizer. Adam and AdamW use torch's fused kernels, which read and write each parameter once.

    Example:
        >>> weights = torch.nn.Parameter(torch.ones(3))
        >>> build_optimizer(spec.Adam(lr=0.1), [weights]).param_groups[0]["lr"]
        0.1
    """
    if isinstance(settings, spec.SGD):
        return torch.optim.SGD(
            parameters,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )
    kind = torch.optim.AdamW if isinstance(settings, spec.AdamW) else torch.optim.Adam
    optimizer = kind(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    if settings.eps_convention == "keras":
        _use_epsilon_hat(optimizer)
    return optimizer


def _use_epsilon_hat(optimizer: torch.optim.Optimizer) -> None:
    """Turn torch's Adam into Keras's by giving it, before each step, the epsilon that makes the two equal.

    Multiplying numerator and denominator of Keras's update by ``1 / sqrt(1 - beta2^t)`` gives torch's update with
    ``eps = eps_hat / sqrt(1 - beta2^t)``. So torch's fast kernels serve both. The count of steps stands in the
    parameter group, where the optimizer's own state dict saves and restores it.
    """
    for group in optimizer.param_groups:
        group["eps_hat"], group["steps"] = group["eps"], 0

    def before_step(running: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        for group in running.param_groups:
            group["steps"] += 1
            group["eps"] = group["eps_hat"] / math.sqrt(1 - group["betas"][1] ** group["steps"])

    optimizer.register_step_pre_hook(before_step)


def build_schedule(
    settings: spec.Schedule, optimizer: torch.optim.Optimizer, *, steps_per_epoch: int, epochs: int
) -> LambdaLR:
    """Make the schedule that a specification describes; call its ``step`` after each optimizer step.

    Args:
        settings: the schedule's section.
        optimizer: whose learning rate it moves.
        steps_per_epoch: optimizer steps an epoch.
        epochs: epochs of the whole training.
    """
    return LambdaLR(optimizer, lambda step: lr_factor(settings, step / steps_per_epoch, epochs, 1 / steps_per_epoch))


def lr_factor(settings: spec.Schedule, epoch: float, epochs: int, step: float = 0.0) -> float:
    """Compute what the learning rate is multiplied by at one moment of the training.

    Args:
        settings: the schedule's section.
        epoch: epochs done, with fractions.
        epochs: epochs of the whole training.
        step: length of one step in epochs. The warm-up counts the step about to be taken, so that the first step of
            a warm-up has a rate above 0 and the last one the full rate.

    Returns:
        A factor of the optimizer's ``lr``, from 0 to 1 (above 1 only where ``step`` schedules have such a factor).
    """
    warmup = settings.warmup_epochs
    warm = min(1.0, (epoch + step) / warmup) if warmup else 1.0
    if isinstance(settings, spec.Constant):
        return warm
    if isinstance(settings, spec.Step):
        return warm * settings.factor ** sum(milestone <= epoch for milestone in settings.milestones)
    if epoch < warmup:
        return warm
    done = min(1.0, (epoch - warmup) / (epochs - warmup)) if epochs > warmup else 1.0
    left = 0.5 * (1 + math.cos(math.pi * done)) if isinstance(settings, spec.Cosine) else 1 - done
    return settings.final + (1 - settings.final) * left
