"""Fingerprints of tensors: proof that two trials began from the same weights and saw the same batches."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> str:
    """Digest named tensors: their names, types, shapes and values to the bit, in the order in which they come.

    Neither the device nor the layout in memory matters: a channels-last copy has the same fingerprint. Pairs are taken
    one at a time, so a generator needs no more memory than its largest tensor.

    Args:
        tensors: by name, such as a ``state_dict``, or pairs of name and tensor.

    Returns:
        SHA-256 in hexadecimal.

    Example:
        >>> fingerprint({"a": torch.zeros(2)}) == fingerprint({"a": torch.zeros(2, 1)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
        values = tensor.detach().cpu().contiguous()
        # The head ends in a newline and tells how many bytes follow, so no two lists of tensors run into each other.
        digest.update(f"{name!r} {values.dtype} {tuple(values.shape)}\n".encode())
        # Not by reshape: what has one element, or none, counts as contiguous with any strides, and keeps them.
        digest.update(values.as_strided((values.numel(),), (1,)).view(torch.uint8).numpy().data)
    return digest.hexdigest()
