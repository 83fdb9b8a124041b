"""Checkpoints of running trials: what a training loop saves, kept whole through crashes, and given back to it.

    <place>/<trial hash>/0001-000003.safetensors    the arrays of attempt 1's third checkpoint
                         0001-000003.json           all the rest, with digests of both

The JSON file is written last; a checkpoint without one, or whose digests do not fit, does not exist. The checkpoint
before stays until the next is whole.
"""

from fairtrial.checkpoints.keep import Checkpoints, Keep

__all__ = ["Checkpoints", "Keep"]
