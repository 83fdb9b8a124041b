"""Torch on one thread, as a worker has it: quick for small tensors, the same everywhere. With kernels or without."""

from collections.abc import Iterator

import pytest
import torch

from fairtrial.training.kernels import library
from fast_layers import needs_kernels


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["compiled", "plain"])
def either_path(request, monkeypatch):
    """Run a test with the compiled kernels, if this machine can have them, and without."""
    if request.param == "plain":
        monkeypatch.setattr(library, "load", lambda dtype: None)
    else:
        needs_kernels()
