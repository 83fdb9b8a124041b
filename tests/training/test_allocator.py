"""Freed memory stays in the process."""

import platform
import subprocess
import sys

import pytest

from fairtrial.training import allocator

#: Faults of rounds that each take and free 64 MiB in blocks too large for the heap by default. In a process of its own,
#: because glibc moves its thresholds by itself, and because ours stay moved.
PROGRAM = """
import ctypes, resource, sys
from fairtrial.training.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.argtypes, malloc.restype, free.argtypes = [ctypes.c_size_t], ctypes.c_void_p, [ctypes.c_void_p]
def round():
    blocks = [malloc(16 * 2**20 + size) for size in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, 16 * 2**20)
    for block in blocks:
        free(block)
round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    round()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word):
    told = subprocess.run([sys.executable, "-c", PROGRAM, word], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone has these settings")
def test_no_faults_after_the_first_round():
    assert faults("keep") < 100
    assert faults("leave") > 1000


def test_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    allocator.keep_freed_memory.cache_clear()
    assert allocator.keep_freed_memory() is False
    allocator.keep_freed_memory.cache_clear()
