"""Cores that the compiled kernels may use beside their own thread: another number never changes a bit of a result.

A trial has one thread, because two trials on two cores beat one trial on two threads. When fewer trials are left than
cores, idle cores help with those: several threads compute a layer, each number by the same operations in the same order
as one thread does. Whoever runs trials sets the number, at any moment and from any thread; the next layers follow it.
"""

import os
from time import monotonic

_cores = 1
_since, _before = 0.0, 0.0  # when there was more than one core last, and for how many seconds earlier


def use_cores(number: int) -> None:
    """Let the kernels use so many cores in this process, at least 1, from the next layers on; at first it is 1.

    Example:
        >>> use_cores(2)
        >>> cores()
        2
        >>> use_cores(1)
    """
    global _cores, _since, _before  # one number a process, like torch's own number of threads
    now, _before = monotonic(), helped_seconds()
    _cores, _since = max(1, number), now


def cores() -> int:
    """Return the number of cores that the kernels may use, with the one that calls them."""
    return _cores


def helped_seconds() -> float:
    """Return for how many seconds this process has had more than one core, all in all."""
    return _before + (monotonic() - _since if _cores > 1 else 0.0)


def _stay_alone() -> None:
    """Give a fork one core: what forks, such as a data loader, starts as many processes as it wants."""
    use_cores(1)


os.register_at_fork(after_in_child=_stay_alone)
