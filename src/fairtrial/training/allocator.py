"""Keep freed memory in the process for the next training step.

By default glibc returns large blocks to the system, which must then zero every page again, with a fault for each 4 KiB.
"""

import ctypes
import platform
from functools import cache

# The numbers of mallopt's parameters are part of glibc's binary interface (malloc.h).
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

#: The largest block that comes from the heap and not from its own mapping: the most that glibc allows on 64 bits.
LARGEST_HEAP_BLOCK = 32 * 2**20
#: Free bytes at the heap's end above which it shrinks: in effect, never.
KEPT = 2**31 - 1
#: Extra bytes to allocate when the heap grows.
STRIDE = 16 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Make this process's allocator keep freed memory; return False if it is not glibc's (musl, macOS)."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    settings = ((_M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK), (_M_TRIM_THRESHOLD, KEPT), (_M_TOP_PAD, STRIDE))
    accepted = [mallopt(parameter, value) == 1 for parameter, value in settings]
    return all(accepted)
