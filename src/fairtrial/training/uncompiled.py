"""Torch's optimizers without torch's compiler, which fairtrial's training step never uses."""

import inspect
from functools import cache

import torch

#: The methods that, beside `step`, import ``torch._dynamo`` when they are first called, in torch 2.13.
_DECORATED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


@cache
def uncompiled(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Make a class that does what one of torch's optimizers does, without importing torch's compiler.

    The methods of torch's classes import it when they are first called, to tell it to leave them alone. That takes as
    long as ``import torch``, in each process. Here they are called without that decoration.

    Args:
        kind: a class of ``torch.optim``. It is not changed.

    Example:
        >>> weights = torch.nn.Parameter(torch.ones(3))
        >>> isinstance(uncompiled(torch.optim.Adam)([weights]), torch.optim.Adam)
        True
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _DECORATED}
    step = torch.no_grad()(inspect.unwrap(kind.step))  # as its decoration does
    return type(kind.__name__, (kind,), {**methods, "step": step, "__module__": kind.__module__})
