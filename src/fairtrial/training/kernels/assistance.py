"""Cores that the compiled kernels may use beside their own thread: another number never changes a bit of a result.

A trial has one thread, because two trials on two cores beat one trial on two threads. When fewer trials are left than
cores, idle cores help with those: several threads compute a layer, each number by the same operations in the same order
as one thread does. Whoever runs trials sets the number, at any moment and from any thread; the next layers follow it.
"""

import os

_cores = 1


def use_cores(number: int) -> None:
    """Let the kernels use so many cores in this process, at least 1, from the next layers on; at first it is 1.

    Example:
        >>> use_cores(2)
        >>> cores()
        2
        >>> use_cores(1)
    """
    global _cores  # noqa: PLW0603  # one number a process, like torch's own number of threads
    _cores = max(1, number)


def cores() -> int:
    """Return the number of cores that the kernels may use, with the one that calls them."""
    return _cores


def _stay_alone() -> None:
    """Give a fork one core: what forks, such as a data loader, starts as many processes as it wants."""
    use_cores(1)


os.register_at_fork(after_in_child=_stay_alone)
