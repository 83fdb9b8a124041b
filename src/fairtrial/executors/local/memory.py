"""Running out of memory: how it is limited, recognised and told."""

import resource
import traceback

from fairtrial.executors.limits import format_bytes

#: What PyTorch's allocator on the CPU says; it raises a plain RuntimeError.
_TORCH_ON_CPU = "DefaultCPUAllocator: can't allocate memory"

#: Classes by name, because whoever runs trials does not import torch. GPUs have memory of their own.
_TORCH_ON_GPU = "OutOfMemoryError"


def limit_memory(limit: int | None) -> None:
    """Limit the data of this process, and of each that it starts, to so many bytes.

    Data are what is writable and its own: heap, thread stacks and private mappings. The whole address space
    (RLIMIT_AS) would be the wrong measure, as torch and CUDA reserve much more of it than they ever touch.

    Args:
        limit: bytes; None for no limit. Lowers what was there before, and never raises it beyond the hard limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard if limit is None else limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that there was no memory left, on the CPU or on a GPU."""
    return isinstance(error, MemoryError) or _on_gpu(error) or _TORCH_ON_CPU in str(error)


def describe(error: BaseException, limit: int | None) -> str:
    """Say that memory ran out, with the traceback below.

    Args:
        error: what was raised.
        limit: the limit in bytes that was set, or None.
    """
    if limit is None or _on_gpu(error):
        text = str(error).strip().partition("\n")[0]
        what = f"out of memory: {text}" if text else "out of memory"
    else:
        what = f"memory limit of {format_bytes(limit)} reached"
    return f"{what}\n{''.join(traceback.format_exception(error))}"


def _on_gpu(error: BaseException) -> bool:
    return any(base.__name__ == _TORCH_ON_GPU for base in type(error).__mro__)
