"""Ends processes that a training loop has forked and that come back out of it.

A fork is a copy of the whole process: if it left the training loop, it would report the trial's records a second time,
and, in the process that runs the study, write to the store.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

#: Exit status of such a process, unless it asked for another by ``sys.exit``.
FORKED = 4

_LINE = (
    b"fairtrial: a process that the training loop forked came back out of the loop, and was ended; "
    b"end it in the loop, with os._exit(0)\n"
)


def end_if_forked(owner: int) -> None:
    """End this process without cleanup, with a line on standard error, unless its number is the owner's."""
    if os.getpid() != owner:
        os.write(2, _LINE)
        os._exit(FORKED)


@contextmanager
def only_in(owner: int) -> Iterator[None]:
    """End a process with another number at the end of a block, whatever ends that; ``sys.exit`` as it asks."""
    try:
        yield
    except SystemExit as end:
        if os.getpid() != owner:
            os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise
    finally:
        end_if_forked(owner)
