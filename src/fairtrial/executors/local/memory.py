"""Memory limits, and recognizing and describing errors of running out of memory."""

import re
import resource
import traceback
from pathlib import Path

from fairtrial.executors.limits import format_bytes

#: Part of the plain RuntimeError that PyTorch's CPU allocator raises.
_TORCH_ON_CPU = "DefaultCPUAllocator: can't allocate memory"

#: How PyTorch passes on that a process of a data loader had no memory left, whatever the error's type becomes.
_IN_LOADER = re.compile(r"Caught \w*MemoryError in DataLoader worker")
#: And that one was killed, which the kernel does for lack of memory, and hardly anybody else.
_LOADER_KILLED = re.compile(r"DataLoader worker \(pid [0-9]+\) is killed by signal: Killed")

#: A process that is so near its limit, in bytes, has no memory left: less than Python and glibc ask for at a time.
_NO_ROOM = 2 << 20


def limit_memory(limit: int | None) -> None:
    """Limit the data of this process, and of each that it starts, to so many bytes; None removes the limit.

    Data are what is writable and the process's own: heap, thread stacks and private mappings. The whole address space
    (RLIMIT_AS) would be the wrong measure, as torch and CUDA reserve much more of it than they ever use. The hard limit
    is never raised.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = hard if limit is None else limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def ran_out_of_memory(error: BaseException) -> bool:
    """Check whether an exception means that there was no memory left, on the CPU or on a GPU.

    Whatever is raised where this process has no room left under its own limit counts as well: code that can't allocate
    does not always say so, CPython's compiler included.
    """
    in_loader = _IN_LOADER.match(str(error)) is not None or bool(_killed_loader(error))
    told = isinstance(error, MemoryError) or _on_gpu(error) or in_loader or _TORCH_ON_CPU in str(error)
    return told or _no_room()


def hit_limit(error: BaseException, limit: int | None) -> bool:
    """Check whether running out of memory means this process's own limit in bytes, and not that of the machine."""
    return limit is not None and not _on_gpu(error) and not _killed_loader(error)


def describe(error: BaseException, limit: int | None) -> str:
    """Say that memory ran out, under which limit in bytes if any, with the traceback below."""
    if limit is None or not hit_limit(error, limit):
        text = _killed_loader(error) or str(error).strip().partition("\n")[0]
        what = f"out of memory: {text}" if text else "out of memory"
    else:
        what = f"memory limit of {format_bytes(limit)} reached"
    return f"{what}\n{''.join(traceback.format_exception(error))}"


def _no_room() -> bool:
    """Check whether this process's data have come up to its limit; False where the system does not tell."""
    limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if limit == resource.RLIM_INFINITY:
        return False
    try:
        data = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:  # not on Linux
        return False
    except MemoryError:
        return True
    return data is not None and limit - int(data[1]) * 1024 < _NO_ROOM


def _on_gpu(error: BaseException) -> bool:
    """Check for torch's error by its name, because this process need not import torch."""
    return any(base.__name__ == "OutOfMemoryError" for base in type(error).__mro__)


def _killed_loader(error: BaseException) -> str:
    """What PyTorch says of a data loader's process that was killed, in this error or its cause; empty if it was not."""
    texts = (str(one) for one in (error, error.__cause__, error.__context__) if one is not None)
    return next((found[0] for text in texts if (found := _LOADER_KILLED.search(text))), "")
