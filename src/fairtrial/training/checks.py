"""Checks of a training that is under way."""

import math

from fairtrial.errors import Diverged
from fairtrial.training.losses import Accumulator

#: Steps between two checks that the loss is still finite. A check waits for an accelerator, but not for a CPU.
CHECK_STEPS = 50
#: Seconds between two progress reports within an epoch.
REPORT_SECONDS = 0.2


def check_loss(sums: Accumulator, epoch: int, batch: int) -> None:
    """End a trial whose training loss is no longer finite, by `Diverged`, which names the epoch and the batch."""
    if not math.isfinite(loss := sums.loss.item()):
        raise Diverged(f"train_loss is {loss} in epoch {epoch}, by batch {batch}")
