"""Optimizers that need more than a gradient: those that evaluate a batch again, and those with weights to evaluate."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache

import torch
from torch import Tensor, nn

from fairtrial.training.averages import restored
from fairtrial.training.randomness import random_state, set_random_state

#: Puts the gradient of a batch's loss into the parameters; returns loss and outputs, both detached.
Gradient = Callable[[], tuple[Tensor, Tensor]]


def step_with_closure(
    optimizer: torch.optim.Optimizer, gradient: Gradient, network: nn.Module, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Let an optimizer take a step that may evaluate the batch again, and return the first evaluation.

    Every evaluation sees the same dropout, and batch norm keeps the statistics of the first, as if there were only one.
    An optimizer such as L-BFGS evaluates first where it is, and gets what has been computed. One that has moved the
    weights or changed the gradients before it asks, such as SAM (Foret et al. 2021), which all with a method
    ``first_step`` are taken to do, gets a new evaluation.
    """
    moves_first = hasattr(optimizer, "first_step")
    before = random_state(device)
    loss, outputs = gradient()
    answers, computed = iter([] if moves_first else [loss]), _versions(network)
    with ExitStack() as at_the_end:

        @cache
        def keep() -> None:
            at_the_end.enter_context(restored(list(network.buffers())))
            at_the_end.callback(set_random_state, random_state(device), device)

        def closure() -> Tensor:
            for known in answers:
                if _versions(network) == computed:
                    return known
            keep()
            set_random_state(before, device)
            with torch.enable_grad():
                return gradient()[0]

        optimizer.step(closure)  # type: ignore[arg-type]  # torch's type of a closure is one that gives a float
    return loss, outputs


def _versions(network: nn.Module) -> list[tuple[int | None, ...]]:
    """Which weights and gradients a network has: torch counts the changes of each tensor but those by ``data``."""
    pairs = ((one, one.grad) for one in network.parameters())
    return [(_version(one), None if grad is None else id(grad), _version(grad)) for one, grad in pairs]


def _version(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor._version  # noqa: SLF001  (torch has no other name for it)


def has_modes(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer evaluates other weights than it trains, as schedule-free ones do (Defazio et al. 2024)."""
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


@contextmanager
def evaluated_weights(optimizer: torch.optim.Optimizer, network: nn.Module) -> Iterator[None]:
    """Give a network the weights that its optimizer evaluates, for a while; afterwards it has the same bits as before.

    Going to these weights and back would round them, so that an evaluation would change the training.
    """
    if not has_modes(optimizer):
        yield
        return
    with restored([parameter.detach() for parameter in network.parameters()]):
        optimizer.eval()  # type: ignore[attr-defined]
        try:
            yield
        finally:
            optimizer.train()  # type: ignore[attr-defined]
