"""The state of a trial of fairtrial's own loop: taken so that it can be saved, and put back so that the trial goes on.

A trial that goes on gives the bits of one that was never interrupted. What seed and epoch decide, such as the order of
batches, is no part of the state.
"""

from dataclasses import dataclass
from typing import Any

import torch

from fairtrial.training import tensors as _tensors  # noqa: F401  (lets checkpoints hold tensors)
from fairtrial.training.learner import Accumulator, Learner
from fairtrial.trial import TrialContext


@dataclass
class TrainingPosition:
    """How far a trial is.

    Attributes:
        epoch: the epoch that is at work, from 1.
        batch: batches of it that are done.
        tally: loss and accuracy over these.
        seconds: how long they took, in all attempts together.
        random: states of the random generators that dropout draws from, by device; empty before the first batch, where
            the epoch sets them.
    """

    epoch: int
    batch: int
    tally: Accumulator
    seconds: float
    random: dict[str, torch.Tensor]

    @classmethod
    def before(cls, epoch: int, device: torch.device) -> "TrainingPosition":
        """Make the moment before an epoch's first batch."""
        return cls(epoch, 0, Accumulator.empty(device), 0.0, {})


def save(trial: TrialContext, learner: Learner, moment: TrainingPosition) -> None:
    """Save a trial's state.

    Args:
        trial: the trial.
        learner: after the moment's last batch.
        moment: how far it is.

    Raises:
        CheckpointError: it can't be written.
        Stopped: it was written, and the study is asked to stop.
    """
    tally = moment.tally
    trial.save(
        {
            "network": learner.network.state_dict(),
            "optimizer": learner.optimizer.state_dict(),
            "schedule": learner.schedule.state_dict(),
            "epoch": moment.epoch,
            "batch": moment.batch,
            "tally": {"loss": tally.loss, "correct": tally.correct, "images": tally.images},
            "seconds": moment.seconds,
            "random": moment.random,
        }
    )


def load(trial: TrialContext, learner: Learner) -> TrainingPosition:
    """Put back what an attempt before has saved last.

    Tensors come back from a checkpoint with the strides that they had. That matters: torch's fused kernels walk over
    the memory of a parameter and of its moments side by side, and would take a contiguous moment beside a channels-last
    parameter for one of another order.

    Args:
        trial: the trial.
        learner: as it is before the first step; it is changed in place.

    Returns:
        How far the trial is; the beginning if nothing was saved.
    """
    state: dict[str, Any] | None = trial.load()
    if state is None:
        return TrainingPosition.before(1, learner.device)
    learner.network.load_state_dict(state["network"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.schedule.load_state_dict(state["schedule"])
    kept = state["tally"]
    tally = Accumulator(kept["loss"].to(learner.device), kept["correct"].to(learner.device), kept["images"])
    return TrainingPosition(state["epoch"], state["batch"], tally, state["seconds"], state["random"])


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Read the generators that a network on this device draws from; the CPU's is always among them."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set what `random_state` has read. A state of a device that is not this one's is left out."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
