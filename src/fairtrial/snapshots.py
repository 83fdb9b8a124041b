"""Snapshots of an optimizer's state, and what an attempt at a trial keeps of them: its x-ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """Statistics of an optimizer's state at one step of a trial.

    Statistics are numbers by name; `fairtrial.training.statistics` says what each is. One that could not be computed is
    missing, and ``notes`` say why. Snapshots are never part of a digest or a hash.

    Attributes:
        arm: the arm's name.
        seed: the replicate.
        epoch: the epoch of the step, from 1.
        step: the steps that the optimizer had taken since the trial began, this one included.
        overall: statistics of all coordinates together.
        kinds: statistics of each kind of layer, such as ``"depthwise convolution"``.
        tensors: statistics of each parameter tensor, by its name in the network.
        notes: what could not be computed, and why.
    """

    arm: str
    seed: int
    epoch: int
    step: int
    overall: Mapping[str, float]
    kinds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tensors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class XrayProgress:
    """What an attempt at a trial has of its x-ray so far; saved and loaded with the trial's state.

    Attributes:
        snapshots: in order of their steps.
        steps: the steps that the optimizer has taken.
        epochs: the epochs that have ended.
        epoch_steps: the steps of the first epoch, once it has ended.
        missed: why the next snapshot comes later than planned; empty if it does not.
    """

    snapshots: list[Snapshot] = field(default_factory=list)
    steps: int = 0
    epochs: int = 0
    epoch_steps: int = 0
    missed: str = ""

    def state(self) -> dict[str, Any]:
        """Read what a checkpoint needs."""
        table: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        return table | {"snapshots": [_table(one) for one in self.snapshots]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` has read; the list stays the same object."""
        self.snapshots[:] = [Snapshot(**{**table, "notes": tuple(table["notes"])}) for table in state["snapshots"]]
        self.steps, self.epochs, self.epoch_steps = state["steps"], state["epochs"], state["epoch_steps"]
        self.missed = state["missed"]


def _table(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot's fields by name; `dataclasses.asdict` would copy every number."""
    return {one.name: getattr(snapshot, one.name) for one in fields(snapshot)}
