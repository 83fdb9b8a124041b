"""Muon for matrices together with AdamW for other weights: two of torch's optimizers as one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for parameters of two or more dimensions, as matrices with a row for each output; AdamW for the others.

    The matrices are views of the parameters, so that there is one copy of each weight, unless a parameter's memory has
    gaps; its matrix is a copy, which is written back.

    Args:
        parameters: dense tensors on one device, which stay the same objects.
        muon: arguments of ``torch.optim.Muon``.
        adamw: arguments of ``torch.optim.AdamW``.

    Attributes:
        parameters: the tensors; those in `param_groups` are the matrices.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], muon: Mapping[str, Any], adamw: Mapping[str, Any]) -> None:
        self.parameters = list(parameters)
        self._matrices = [(one, nn.Parameter(as_matrix(one.detach(), one))) for one in self.parameters if one.ndim > 1]
        others = [one for one in self.parameters if one.ndim <= 1]
        self._parts: list[torch.optim.Optimizer] = []
        if self._matrices:
            self._parts.append(torch.optim.Muon([matrix for _, matrix in self._matrices], **muon))
        if others:
            self._parts.append(torch.optim.AdamW(others, **adamw))
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let both take a step."""
        loss = None if closure is None else closure()
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else as_matrix(parameter.grad, parameter)
        copied = [pair for pair in self._matrices if pair[0].data_ptr() != pair[1].data_ptr()]
        with torch.no_grad():
            for parameter, matrix in copied:
                matrix.copy_(as_matrix(parameter, parameter))
            for part in self._parts:
                part.step()
            for parameter, matrix in copied:
                ordered = _in_memory_order(parameter, parameter)
                ordered.copy_(matrix.view(ordered.shape))
        return loss

    def held(self) -> Iterator[tuple[nn.Parameter, dict[str, Any], dict[str, Any]]]:
        """List the parameters, each with its group and with what torch's optimizer keeps of it."""
        of_matrix = {id(matrix): parameter for parameter, matrix in self._matrices}
        for part in self._parts:
            for group in part.param_groups:
                for one in group["params"]:
                    yield of_matrix.get(id(one), one), group, part.state.get(one) or {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the parameters."""
        del set_to_none  # as torch's other optimizers do by default
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Read the states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self._parts for group in part.param_groups]


def as_matrix(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Flatten all dimensions but the first, in the order in which a parameter's memory has them; a view of that one.

    Muon does not depend on the order of columns.
    """
    return _in_memory_order(tensor, parameter).flatten(1)


def _in_memory_order(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Order all dimensions but the first as a parameter's memory does; a view."""
    inner = sorted(range(1, parameter.ndim), key=parameter.stride, reverse=True)
    return tensor.permute(0, *inner)
