"""Half a cosine."""

import math

from fairtrial.registry import SCHEDULES
from fairtrial.training.schedules.linear import DecaySettings


@SCHEDULES.register("cosine")
class Cosine(DecaySettings):
    """Half a cosine from the learning rate to a fraction of it (Loshchilov & Hutter 2017, eq. 5, no restarts)."""

    def left(self, done: float) -> float:
        """See `DecaySettings.left`."""
        return 0.5 * (1 + math.cos(math.pi * done))
