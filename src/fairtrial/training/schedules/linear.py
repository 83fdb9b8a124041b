"""A straight line."""

from fairtrial.registry import SCHEDULES
from fairtrial.training.schedules.decay import DecaySettings


@SCHEDULES.register("linear")
class Linear(DecaySettings):
    """A straight line from the learning rate to a fraction of it."""

    def left(self, done: float) -> float:
        """See `DecaySettings.left`."""
        return 1 - done
