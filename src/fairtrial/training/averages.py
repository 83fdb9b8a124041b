"""Averages over training: an exponential moving average of a network's weights, and batch-norm statistics."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from fairtrial.errors import StudyError


class WeightAverage:
    """An exponential moving average of a network's weights, and of its running statistics with them.

    Step t, from 1, gives the average weight min(decay, (1 + t) / (10 + t)), so that a short training is not an average
    of its initial weights (the form of TensorFlow's ``tf.train.ExponentialMovingAverage``).

    Args:
        network: what is averaged.
        decay: in (0, 1); the average reaches back about ``1 / (1 - decay)`` steps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._network = network
        self._held: list[Tensor] | None = None
        self._average = [tensor.clone() for tensor in self._current]

    @property
    def _current(self) -> list[Tensor]:
        """The network's tensors as they are: an optimizer, or a network's own code, may have put others in place."""
        if self._held is not None:
            return self._held
        return [of.detach() for of in self._network.state_dict().values() if of.is_floating_point()]

    def hold(self) -> None:
        """Take the network to keep the tensors that it has now, as it does where steps are recorded: it saves time."""
        self._held = self._current

    def update(self) -> None:
        """Take the network's present weights into the average."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        get_ema_multi_avg_fn(decay)(self._average, self._current, 0)  # type: ignore[no-untyped-call]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the average for a while."""
        current = self._current
        with restored(current):
            _copy(self._average, current)
            yield

    def state_dict(self) -> dict[str, Any]:
        """Read what a checkpoint needs."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` has read."""
        self._steps = state["steps"]
        _copy(state["average"], self._average)


@contextmanager
def recalibrated(network: nn.Module, batches: Iterable[Tensor]) -> Iterator[None]:
    """Give a network's batch norms the mean of their statistics over some batches, for a while.

    The batches are images (batch, channels, height, width), and pass as in training but for dropout. Each batch norm
    averages its means and variances, all batches alike, in place of an average that forgets or lags.

    Raises:
        StudyError: the network has no batch norm with running statistics.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        raise StudyError("training.recalibrate_batch_norm = true: the model has no batch norm with running statistics")
    momenta = [norm.momentum for norm in norms]
    with restored(list(network.buffers())):
        try:
            network.eval()
            for norm in norms:
                norm.train()
            for number, inputs in enumerate(batches, start=1):
                for norm in norms:
                    norm.momentum = 1 / number  # the first batch replaces the statistics; all end up with equal weights
                with torch.no_grad():
                    network(inputs)
        finally:
            network.train()
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        yield


@contextmanager
def restored(tensors: list[Tensor]) -> Iterator[None]:
    """Give tensors their present values again at the end, in place and to the bit."""
    saved = [tensor.clone() for tensor in tensors]
    try:
        yield
    finally:
        _copy(saved, tensors)


@torch.no_grad()
def _copy(values: Iterable[Tensor], tensors: Iterable[Tensor]) -> None:
    for value, tensor in zip(values, tensors, strict=True):
        tensor.copy_(value)
