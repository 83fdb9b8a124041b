"""Fingerprints of tensors, which prove that two trials had the same initial weights and the same batches."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def fingerprint(
    tensors: Mapping[str, Tensor | npt.NDArray[np.generic]] | Iterable[tuple[str, Tensor | npt.NDArray[np.generic]]],
) -> str:
    """Hash named tensors: their names, types, shapes and values to the bit, in order.

    Device and memory layout do not matter: a channels-last copy has the same fingerprint. Pairs are read one at a time,
    so a generator needs no more memory than its largest tensor.

    Args:
        tensors: by name, such as a ``state_dict``, or pairs of name and tensor, of any shape. NumPy arrays count as
            tensors of their type.

    Returns:
        SHA-256 in hexadecimal.

    Example:
        >>> fingerprint({"a": torch.zeros(2)}) == fingerprint({"a": torch.zeros(2, 1)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        values = (tensor if isinstance(tensor, Tensor) else torch.tensor(tensor)).detach().cpu().contiguous()
        # The head ends in a newline and determines how many bytes follow, so different lists never hash the same bytes.
        digest.update(f"{name!r} {values.dtype} {tuple(values.shape)}\n".encode())
        # Not reshape: a tensor of one element, or none, counts as contiguous with any strides, and keeps them.
        digest.update(values.as_strided((values.numel(),), (1,)).view(torch.uint8).numpy().data)
    return digest.hexdigest()
