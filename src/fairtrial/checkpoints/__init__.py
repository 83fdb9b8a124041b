"""Checkpoints of running trials: saved by a training loop, whole through crashes, and loaded after one.

    <location>/<trial hash>/0001-000003-5f0c9a1e.safetensors   the arrays of attempt 1's third checkpoint
                            0001-000003-5f0c9a1e.json          all the rest, with digests of both

The JSON file is written last; a checkpoint without one, or whose digests do not match, does not exist. The previous
checkpoint stays until the next is whole. The last part of a name is drawn by the process that writes: a worker that was
given up but still writes, because it was only cut off, can't spoil the files of its successor.
"""

from fairtrial.checkpoints.manager import CheckpointManager, TrialCheckpoints

__all__ = ["CheckpointManager", "TrialCheckpoints"]
