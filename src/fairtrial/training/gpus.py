"""What torch knows of this machine's GPUs, for `fairtrial doctor`."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Gpu:
    """A GPU of NVIDIA's: its name, compute capability, and bytes of its memory that are free and in all."""

    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int


def find_gpus() -> tuple[Gpu, ...]:
    """List all GPUs of NVIDIA's that torch can use, whichever are chosen; this gives each a context for a while."""
    if not torch.cuda.is_available():
        return ()
    return tuple(
        Gpu(
            torch.cuda.get_device_name(number),
            torch.cuda.get_device_capability(number),
            *torch.cuda.mem_get_info(number),
        )
        for number in range(torch.cuda.device_count())
    )


def cuda_version() -> str | None:
    """The version of CUDA that torch is built with; None if it is built without."""
    return torch.version.cuda


def has_mps() -> bool:
    """Whether torch can use a GPU of Apple's."""
    return torch.backends.mps.is_available()
