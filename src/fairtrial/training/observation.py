"""Observe what a training loop does with torch, without its help: its first model's weights and its first batch.

The first module with weights to train that a loop calls is taken for its model, and what that, or a part of it, is
first given in training for its first batch. A loop that calls no module is not seen.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parameter import is_lazy

from fairtrial.training.fingerprints import fingerprint


class Observation:
    """What was seen of a loop so far.

    Attributes:
        initial_weights: a digest of the model's state at its first call; empty if there was none.
        first_batch: a digest of the tensors that it was first given in training; likewise.
    """

    def __init__(self) -> None:
        self.initial_weights = self.first_batch = ""
        self._model: weakref.ref[nn.Module] | None = None

    @property
    def weights(self) -> str:
        """A digest of the model's state now; empty if there is no model, or none any more."""
        model = None if self._model is None else self._model()
        return "" if model is None else fingerprint(_tensors(model))

    def look(self, module: nn.Module, inputs: tuple[Any, ...]) -> bool:
        """Look at a call of a module; returns whether all has been seen."""
        if self._model is None and _trains(module):
            self._model, self.initial_weights = weakref.ref(module), fingerprint(_tensors(module))
        if self._model is not None and module.training and torch.is_grad_enabled():
            tensors = [(str(place), value) for place, value in enumerate(inputs) if isinstance(value, Tensor)]
            self.first_batch = fingerprint(tensors) if tensors else ""
        return bool(self.first_batch)


@contextmanager
def observing() -> Iterator[Observation]:
    """Observe the calls of all modules in a block, until a model and its first batch have been seen."""
    seen = Observation()

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if seen.look(module, inputs):
            hook.remove()  # later calls are as fast as ever

    hook = register_module_forward_pre_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


def _trains(module: nn.Module) -> bool:
    parameters = [*module.parameters()]
    return not any(map(is_lazy, parameters)) and any(each.requires_grad for each in parameters)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
