"""A power of the time that is left."""

import math

from fairtrial.registry import SCHEDULES
from fairtrial.spec.numbers import Positive
from fairtrial.training.schedules.linear import DecaySettings


@SCHEDULES.register("polynomial")
class Polynomial(DecaySettings):
    """A power of the share of the time that is left (torch's PolynomialLR; Chen et al. 2017, section 4.1).

    Attributes:
        power: 1 is a straight line.
    """

    power: Positive = 1.0

    def left(self, done: float) -> float:
        """See `DecaySettings.left`."""
        return math.pow(1 - done, self.power)
