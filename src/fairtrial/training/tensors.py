"""Write torch's tensors to checkpoints as bytes, because NumPy lacks some of torch's types."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fairtrial.checkpoints.serialization import ArrayType, register


def pack(tensor: torch.Tensor) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """Split a plain tensor into its bytes, and its type, shape and strides.

    The memory order, such as channels last, is kept, because kernels that walk over several tensors together rely on
    it; a tensor whose memory has gaps or overlaps becomes contiguous.
    """
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError("a sparse, quantized or meta tensor: a checkpoint takes plain ones")
    values = tensor.detach().cpu().resolve_conj().resolve_neg()
    if not _is_dense(values.shape, values.stride()):
        values = values.contiguous()
    content = values.as_strided((values.numel(),), (1,)).view(torch.uint8).numpy()
    dtype = str(values.dtype).removeprefix("torch.")
    return content, {"dtype": dtype, "shape": list(values.shape), "stride": list(values.stride())}


def unpack(content: npt.NDArray[np.uint8], description: Mapping[str, Any]) -> torch.Tensor:
    """Rebuild a tensor, on the CPU."""
    dtype = getattr(torch, description["dtype"])
    if not content.size:  # NumPy gives it strides that torch can't view as another type
        return torch.empty(description["shape"], dtype=dtype)
    return torch.from_numpy(content.copy()).view(dtype).as_strided(description["shape"], description["stride"])


def _is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether a tensor's elements fill its memory without gaps or overlaps, in any order."""
    expected = 1
    for step, size in sorted((step, size) for size, step in zip(shape, stride, strict=True) if size != 1):
        if step != expected:
            return False
        expected *= size
    return True


register(ArrayType("torch", torch.Tensor, pack, unpack))
