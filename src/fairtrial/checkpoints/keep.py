"""The checkpoints of one trial: saved, found again, and the damaged ones passed over."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from fairtrial.checkpoints.place import Place, open_place
from fairtrial.checkpoints.state import pack, unpack
from fairtrial.errors import CheckpointError, Stopped
from fairtrial.failpoints import failpoint
from fairtrial.records import EpochRecord, Trial

#: Version of the files below.
FORMAT = 1

#: Checkpoints of a trial that are kept: the last, and the one before in case the last turns out damaged.
KEPT = 2

_NAME = re.compile(r"(\d{4,})-(\d{6,})\.json")


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of trials lie, and how often a training loop should make one.

    Attributes:
        place: a folder's path, or a URL that fsspec understands. All that run trials must see the same.
        seconds: between two checkpoints within an epoch; see `Trial.checkpoint_due`.
    """

    place: str
    seconds: float = 60.0

    def open(self, trial: Trial, asked_to_stop: Callable[[], bool] | None = None) -> "Keep":
        """Begin an attempt at a trial.

        Args:
            trial: the trial.
            asked_to_stop: tells whether the trial should save what it has and end.

        Raises:
            CheckpointError: there can be no checkpoints at that place.
        """
        return Keep(self, trial, asked_to_stop or (lambda: False))

    def remove(self, trial: Trial) -> None:
        """Forget a trial that has ended.

        Raises:
            CheckpointError: its files can't be removed.
        """
        try:
            open_place(self.place, trial.hash).clear()
        except OSError as error:
            raise CheckpointError(f"checkpoints in {self.place} can't be removed: {error.strerror or error}") from error

    def remove_leftovers(self, ended: Iterable[Trial]) -> None:
        """Forget trials of which some may have been kept by a process that died when they had just ended.

        Args:
            ended: trials whose state nobody needs any more.

        Raises:
            CheckpointError: the place can't be read, or files can't be removed.
        """
        try:
            there = set(open_place(self.place, "").names())
        except OSError as error:
            raise CheckpointError(f"checkpoints in {self.place} can't be read: {error.strerror or error}") from error
        for trial in ended:
            if trial.hash in there:
                self.remove(trial)


@dataclass
class Keep:
    """The checkpoints of one attempt at a trial. Is a `records.Keeper`.

    Attributes:
        checkpoints: where they lie.
        trial: whose they are.
        asked_to_stop: tells whether the trial should save what it has and end.
        records: what the trial has reported so far; of the attempt before too, once its state was loaded.
        damaged: checkpoints that `load` has passed over, and what was wrong with each.
    """

    checkpoints: Checkpoints
    trial: Trial
    asked_to_stop: Callable[[], bool]
    records: list[EpochRecord] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._saved = monotonic()
        self._number = 0

    @property
    def due(self) -> bool:
        """Whether a training loop should save its state at its next convenience."""
        return self.asked_to_stop() or monotonic() - self._saved >= self.checkpoints.seconds

    def save(self, state: object) -> None:
        """Write a checkpoint; see `Trial.save`."""
        failpoint("checkpoint.begun")
        tree, arrays = pack(state)
        content = save_arrays(arrays or {"none": np.zeros(0, np.uint8)})
        name = f"{self._attempt:04d}-{self._number + 1:06d}"
        body = {
            "format": FORMAT,
            "trial": self.trial.hash,
            "records": pack([dict(record.metrics) for record in self.records])[0],
            "fingerprints": dict(self.trial.fingerprints),
            "state": tree,
            "arrays": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
        }
        try:
            self._place.write(f"{name}.safetensors", content, "tensors")
            self._place.write(f"{name}.json", _sealed(body), "manifest")
            self._number += 1
            self._prune()
        except OSError as error:
            raise CheckpointError(
                f"a checkpoint can't be written to {self.checkpoints.place}: {error.strerror or error}"
            ) from error
        self._saved = monotonic()
        failpoint("checkpoint.pruned")
        if self.asked_to_stop():
            raise Stopped

    def load(self) -> Any:
        """Read the last whole checkpoint of the attempts before; see `Trial.load`."""
        if self.records:
            raise RuntimeError("trial.load() comes before the first record")
        for name in reversed(self._before):
            try:
                body, arrays = self._read(name)
            except (ValueError, OSError, safetensors.SafetensorError) as error:
                self.damaged[name] = str(error)
                continue
            kept = unpack(body["records"], {})
            self.records.extend(
                EpochRecord(self.trial.arm, self.trial.seed, epoch, metrics) for epoch, metrics in enumerate(kept, 1)
            )
            self.trial.fingerprints.update(body["fingerprints"])
            return unpack(body["state"], arrays)
        return None

    @cached_property
    def _place(self) -> Place:
        return open_place(self.checkpoints.place, self.trial.hash)

    @cached_property
    def _before(self) -> list[str]:
        """Names of the checkpoints that were there when this attempt first looked, the newest last.

        A worker that was given up may still write some later: they are of an attempt that nobody reads any more,
        because its number is lower than that of the one that took over.
        """
        found = [
            (int(match[1]), int(match[2]), name) for name in self._place.names() if (match := _NAME.fullmatch(name))
        ]
        return [name for *_, name in sorted(found)]

    @cached_property
    def _attempt(self) -> int:
        return 1 + max((int(name.partition("-")[0]) for name in self._before), default=0)

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a checkpoint and check it.

        Raises:
            ValueError, OSError, SafetensorError: it is damaged, or another trial's.
        """
        body = _unsealed(self._place.read(name))
        if body.get("format") != FORMAT or body.get("trial") != self.trial.hash:
            raise ValueError("another format, or another trial's")
        content = self._place.read(name.replace(".json", ".safetensors"))
        if hashlib.sha256(content).hexdigest() != body["arrays"]["sha256"]:
            raise ValueError("its arrays are not those that were written")
        return body, load_arrays(content)

    def _prune(self) -> None:
        """Remove what is older than the last checkpoints of all attempts; a manifest goes before its arrays."""
        ours = [f"{self._attempt:04d}-{number:06d}.json" for number in range(1, self._number + 1)]
        good = [name for name in self._before if name not in self.damaged]
        stale = {*self._before, *ours} - {*[*good, *ours][-KEPT:]}
        there = set(self._place.names())
        for name in sorted(stale & there):
            self._place.remove(name)
        manifests = {name.removesuffix(".json") for name in there - stale if name.endswith(".json")}
        for name in sorted(there):
            if name.endswith(".safetensors") and name.removesuffix(".safetensors") not in manifests:
                self._place.remove(name)


def _sealed(body: dict[str, Any]) -> bytes:
    """Write a manifest together with its own digest."""
    return json.dumps({"sha256": _digest(body), "body": body}, allow_nan=False, separators=(",", ":")).encode()


def _unsealed(content: bytes) -> dict[str, Any]:
    sealed = json.loads(content)
    if not isinstance(sealed, dict) or sealed.get("sha256") != _digest(sealed.get("body")):
        raise ValueError("its digest does not fit")
    return dict(sealed["body"])


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()
