"""Save and restore the state of a trial of fairtrial's own loop.

A resumed trial gives the same bits as one that was never interrupted. What seed and epoch determine, such as the order
of batches, is not part of the state.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fairtrial.training import tensors as _tensors  # noqa: F401  (lets checkpoints hold tensors)
from fairtrial.training.devices import check_memory
from fairtrial.training.learner import Learner
from fairtrial.training.losses import Accumulator
from fairtrial.trial import TrialContext


@dataclass
class TrainingPosition:
    """The progress of a trial: its epoch, from 1, and that epoch's finished batches, their tally and their seconds."""

    epoch: int
    batch: int
    tally: Accumulator
    seconds: float  # the sum over all attempts
    random: dict[str, torch.Tensor]  # states of the generators for dropout, by device; empty before the first batch
    evaluations: dict[str, float] = field(default_factory=dict)  # what was measured within this epoch
    evaluation_seconds: float = 0.0  # and how long that took

    @classmethod
    def before(cls, epoch: int, learner: Learner) -> "TrainingPosition":
        """Make the position before an epoch's first batch."""
        return cls(epoch, 0, learner.objective.accumulator(learner.device), 0.0, {})


def save(trial: TrialContext, learner: Learner, position: TrainingPosition) -> None:
    """Save a trial's state after the position's last batch; see `TrialContext.save` and `check_memory` for errors."""
    check_memory(learner.device, learner.shortages)
    trial.save(
        {
            "network": learner.network.state_dict(),
            "buffers": _other_buffers(learner.network),
            "optimizer": learner.optimizer.state_dict(),
            "schedule": learner.schedule.state_dict(),
            "epoch": position.epoch,
            "batch": position.batch,
            "tally": position.tally.state_dict(),
            "seconds": position.seconds,
            "random": position.random,
            "evaluations": position.evaluations,
            "evaluation_seconds": position.evaluation_seconds,
            "average": None if learner.average is None else learner.average.state_dict(),
        }
    )


def load(trial: TrialContext, learner: Learner) -> TrainingPosition:
    """Restore the last saved state into a learner, and return the position; the beginning if nothing was saved.

    Tensors keep their strides in a checkpoint. This matters: torch's fused kernels walk over the memory of a parameter
    and its moments together, and would mismatch a contiguous moment with a channels-last parameter.
    """
    state: dict[str, Any] | None = trial.load()
    if state is None:
        return TrainingPosition.before(1, learner)
    learner.network.load_state_dict(state["network"])
    _restore_buffers(learner.network, state["buffers"])
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.schedule.load_state_dict(state["schedule"])
    if learner.average is not None:
        learner.average.load_state_dict(state["average"])
    tally = learner.objective.accumulator(learner.device)
    tally.load_state_dict(state["tally"])
    return TrainingPosition(
        epoch=state["epoch"],
        batch=state["batch"],
        tally=tally,
        seconds=state["seconds"],
        random=state["random"],
        evaluations=state["evaluations"],
        evaluation_seconds=state["evaluation_seconds"],
    )


def _other_buffers(network: nn.Module) -> dict[str, Tensor]:
    """The buffers that a network's own state leaves out (``persistent=False``), by name: a step may change them too."""
    known = network.state_dict().keys()
    return {name: buffer for name, buffer in network.named_buffers() if name not in known}


@torch.no_grad()
def _restore_buffers(network: nn.Module, buffers: dict[str, Tensor]) -> None:
    for name, value in buffers.items():
        path, _, leaf = name.rpartition(".")
        module = network.get_submodule(path)
        buffer = getattr(module, leaf)
        if buffer is not None and buffer.shape == value.shape:
            buffer.copy_(value)  # in place, because modules may share it
        else:
            setattr(module, leaf, value.to(next(network.parameters()).device))
