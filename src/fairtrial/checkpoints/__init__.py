"""Checkpoints of running trials: what a training loop saves, kept whole through crashes, and given back to it.

    <place>/<trial hash>/0001-000003-5f0c9a1e.safetensors   the arrays of attempt 1's third checkpoint
                         0001-000003-5f0c9a1e.json          all the rest, with digests of both

The JSON file is written last; a checkpoint without one, or whose digests do not fit, does not exist. The checkpoint
before stays until the next is whole. The last part of a name is drawn by the process that writes: one that was given up
and writes all the same, because it was only cut off, can't spoil the files of the one that has taken over.
"""

from fairtrial.checkpoints.manager import CheckpointManager, TrialCheckpoints

__all__ = ["CheckpointManager", "TrialCheckpoints"]
