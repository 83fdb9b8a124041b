"""Points in the code at which a test can kill the process, to see that nothing is lost there.

``FAIRTRIAL_FAILPOINT=checkpoint.tensors_renamed:2`` kills with SIGKILL at the second hit of that place. Hits
are counted in each process on its own. Where ``FAIRTRIAL_FAILPOINT_HITS`` names a file they are counted over all
processes together: then one process alone dies of it, and whoever takes over its work lives. Without the variable a
place costs a look into a dictionary.
"""

import os
import signal
from collections import Counter
from pathlib import Path

#: Every place, in the order in which a trial comes by. A test goes through them all.
PLACES = (
    "runner.planned",
    "runner.uncommitted",
    "runner.written",
    "runner.committed",
    "runner.cleared",
    "worker.trial",
    "worker.report",
    "worker.reported",
    "checkpoint.begun",
    "checkpoint.tensors_written",
    "checkpoint.tensors_renamed",
    "checkpoint.manifest_written",
    "checkpoint.manifest_renamed",
    "checkpoint.pruned",
)

_hits: Counter[str] = Counter()


def failpoint(place: str) -> None:
    """Die here if a test wants it.

    Args:
        place: one of `PLACES`.
    """
    wanted = os.environ.get("FAIRTRIAL_FAILPOINT")
    if wanted is None:
        return
    name, _, number = wanted.partition(":")
    if name == place and _hit(place) == int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _hit(place: str) -> int:
    """Count a hit, and tell which it was, from 1."""
    shared = os.environ.get("FAIRTRIAL_FAILPOINT_HITS")
    if shared is None:
        _hits[place] += 1
        return _hits[place]
    from filelock import FileLock  # noqa: PLC0415  (tests alone come here)

    with FileLock(f"{shared}.lock"), Path(shared).open("ab") as file:
        file.write(b".")
        return file.tell()
