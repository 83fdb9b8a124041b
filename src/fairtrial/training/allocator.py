"""Keeping freed memory in the process, so that the next training step finds it there.

Every step frees its activations and asks for as many again. By default glibc gives large blocks back to the system,
which then has to hand out and zero every page anew, a fault for each 4 KiB. With the thresholds raised the memory
stays with the process, which holds at its end as much as it held at its peak.
"""

import ctypes
import platform
from functools import cache

# The numbers of mallopt's parameters are part of glibc's binary interface (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

#: Blocks up to this size come from the heap, not from a mapping of their own. The most that glibc allows on 64 bits.
LARGEST_HEAP_BLOCK = 32 * 2**20

#: So much may be free at the heap's end before any of it goes back: in effect, all stays.
KEPT = 2**31 - 1

#: How much more than asked for is taken when the heap grows.
STRIDE = 16 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Tell this process's allocator to keep what is freed. Once is enough; more often does no harm.

    Returns:
        Whether the allocator took it: False where it is not glibc's (musl, macOS).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    settings = ((_M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK), (_M_TRIM_THRESHOLD, KEPT), (_M_TOP_PAD, STRIDE))
    taken = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(taken)
