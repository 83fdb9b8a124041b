"""Points in the code at which a test can kill the process, to check that nothing is lost there.

``FAIRTRIAL_FAILPOINT=checkpoint.tensors_renamed:2`` kills with SIGKILL at the second hit of that point. Each process
counts its own hits. Where ``FAIRTRIAL_FAILPOINT_HITS`` names a file, hits are counted over all processes together: then
only one process dies, and the one that takes over its work survives. Without the variable a point costs one look-up.
"""

import os
import signal
from collections import Counter
from pathlib import Path

#: Every point, in the order in which a trial passes them. A test goes through them all.
POINTS = (
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

#: Points outside a run, where stores are merged and studies removed.
STORE_POINTS = (
    "merge.trials",
    "merge.written",
    "merge.committed",
    "removal.written",
    "removal.committed",
    "removal.cleared",
)

_hits: Counter[str] = Counter()


def failpoint(point: str) -> None:
    """Die here, at one of `POINTS`, if a test wants it."""
    wanted = os.environ.get("FAIRTRIAL_FAILPOINT")
    if wanted is None:
        return
    name, _, number = wanted.partition(":")
    if name == point and _hit(point) == int(number or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def _hit(point: str) -> int:
    """Count a hit, and return its number, from 1."""
    shared = os.environ.get("FAIRTRIAL_FAILPOINT_HITS")
    if shared is None:
        _hits[point] += 1
        return _hits[point]
    from filelock import FileLock  # noqa: PLC0415  (needed by tests alone)

    with FileLock(f"{shared}.lock"), Path(shared).open("ab") as file:
        file.write(b".")
        return file.tell()
