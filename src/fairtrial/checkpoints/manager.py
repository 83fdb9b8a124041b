"""Saves and loads the checkpoints of one trial, skipping damaged ones."""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from fairtrial.checkpoints.serialization import pack, unpack
from fairtrial.checkpoints.storage import Storage, open_storage
from fairtrial.errors import CheckpointError, Stopped
from fairtrial.failpoints import failpoint
from fairtrial.snapshots import XrayProgress
from fairtrial.trial import EpochRecord, Trial

#: Version of the files below.
CHECKPOINT_FORMAT = 4

#: Checkpoints of a trial that are kept: the last, and the previous one in case the last turns out damaged.
KEPT = 2

#: Unless a study says otherwise, a checkpoint is written once so many times what the last one took has passed: saving
#: costs at most a fiftieth of a trial's time, 2%.
SPACING = 50

#: At most so many seconds, so that one save that took long (a file system that hung, a suspended process) does not keep
#: later ones from being written.
LONGEST_SPACING = 600.0

#: Seconds that a process's first checkpoint is expected to take.
FIRST_TAKES = 0.1

#: Attempt, number, the writer's random token, and a suffix. The name of a half-written file begins with a dot. No other
#: file is read or removed.
_NAME = re.compile(r"\.?(\d{4,})-(\d{6,})-([0-9a-f]{8})\.(json|safetensors)(\.[0-9a-f]{8}\.part)?")


@dataclass(frozen=True)
class CheckpointManager:
    """Where the checkpoints of trials are stored, and how often a training loop should write one within an epoch.

    Attributes:
        location: a folder's path, or a URL that fsspec understands. All processes that run trials must see the same.
        seconds: between two checkpoints within an epoch; see `TrialContext.checkpoint_due`.
        took: seconds that this process's last checkpoint took; trials of one study take about the same.
    """

    location: str
    seconds: float = 60.0
    took: list[float] = field(default_factory=lambda: [FIRST_TAKES], compare=False, repr=False)

    def open(self, trial: Trial, asked_to_stop: Callable[[], bool] = lambda: False) -> "TrialCheckpoints":
        """Begin an attempt at a trial, which must save its state and end once ``asked_to_stop`` returns True."""
        return TrialCheckpoints(self, trial, asked_to_stop)

    def remove(self, trial: Trial) -> None:
        """Remove the checkpoints of a trial that has ended; a CheckpointError if its files can't be removed."""
        self.discard(trial.hash)

    def discard(self, trial: str) -> None:
        """Remove the checkpoints of a trial, by its hash; errors as in `remove`."""
        with _checkpoint_errors(f"checkpoints in {self.location} can't be removed"):
            storage = open_storage(self.location, trial)
            for name in _files(storage):  # manifests before arrays, so that none is left without them
                storage.remove(name)
            storage.remove_folder()

    def size(self, trial: str) -> int:
        """How many bytes the checkpoints of a trial have, by its hash; errors as in `remove`."""
        with _checkpoint_errors(f"checkpoints in {self.location} can't be read"):
            storage = open_storage(self.location, trial)
            return sum(map(storage.size, _files(storage)))

    def saved(self) -> set[str]:
        """List the trials that have a checkpoint, by hash; errors as in `remove`."""
        with _checkpoint_errors(f"checkpoints in {self.location} can't be read"):
            return set(open_storage(self.location, "").names())

    def remove_leftovers(self, ended: Iterable[Trial]) -> None:
        """Remove checkpoints of ended trials that a process left because it died just then; errors as in `remove`."""
        names = self.saved()
        for trial in ended:
            if trial.hash in names:
                self.remove(trial)


@dataclass
class TrialCheckpoints:
    """The checkpoints of one attempt at a trial; what `TrialContext.save` and `TrialContext.load` use."""

    checkpoints: CheckpointManager
    trial: Trial
    asked_to_stop: Callable[[], bool]
    records: list[EpochRecord] = field(default_factory=list)  # so far, with those of a loaded state
    fingerprints: dict[str, str] = field(default_factory=dict)  # likewise
    xray: XrayProgress = field(default_factory=XrayProgress)  # likewise
    damaged: dict[str, str] = field(default_factory=dict)  # what is wrong with each checkpoint that `load` skipped
    warning: str = ""  # tells the user about those

    def __post_init__(self) -> None:
        self._saved = monotonic()
        self._tried = False
        self._ours: list[str] = []
        self._token = secrets.token_hex(4)

    @property
    def due(self) -> bool:
        """Whether a training loop should save its state soon."""
        return self._is_time(max(self.checkpoints.seconds, self._spacing))

    def _is_time(self, seconds: float) -> bool:
        return self.asked_to_stop() or monotonic() - self._saved >= seconds

    @property
    def _spacing(self) -> float:
        """Least seconds between two checkpoints: the study's, or what keeps the cost of saving low."""
        chosen = self.trial.settings.training.checkpoint_seconds
        return min(SPACING * self.checkpoints.took[0], LONGEST_SPACING) if chosen is None else chosen

    def save(self, state: object) -> None:
        """Write a checkpoint if it is time for one; see `TrialContext.save`."""
        if self._is_time(self._spacing):
            self._save(state)
            if self.asked_to_stop():
                raise Stopped
        elif not self._tried:
            pack(state)  # so that a state that can't be saved is an error at once
        self._tried = True

    def _save(self, state: object) -> None:
        failpoint("checkpoint.begun")
        begun = monotonic()
        tree, arrays = pack(state)
        content = save_arrays(arrays or {"none": np.zeros(0, np.uint8)})
        body = {
            "format": CHECKPOINT_FORMAT,
            "trial": self.trial.hash,
            "records": pack([dict(record.metrics) for record in self.records])[0],
            "fingerprints": dict(self.fingerprints),
            "xray": pack(self.xray.state())[0],
            "state": tree,
            "arrays": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
        }
        what = f"a checkpoint can't be written to {self.checkpoints.location}"
        with _checkpoint_errors(what, "; the previous one is kept"):
            if not self._ours:
                self._prune()  # the files of earlier attempts may be what fills the disk
            self._write(content, body)
            self._prune()
        self._saved = monotonic()
        self.checkpoints.took[0] = self._saved - begun
        failpoint("checkpoint.pruned")

    def load(self) -> Any:
        """Read the last whole checkpoint of the earlier attempts; see `TrialContext.load`."""
        if self.records:
            raise RuntimeError("call trial.load() before yielding the first record")
        with _checkpoint_errors(f"checkpoints in {self.checkpoints.location} can't be listed"):
            candidates = self._earlier[::-1]
        for name in candidates:
            try:
                body, arrays = self._read(name)
            except (ValueError, OSError, safetensors.SafetensorError) as error:
                self.damaged[name] = str(error)
                continue
            arm, seed = self.trial.arm, self.trial.seed
            records = unpack(body["records"], {})
            self.records.extend(EpochRecord(arm, seed, epoch, metrics) for epoch, metrics in enumerate(records, 1))
            self.fingerprints.update(body["fingerprints"])
            if "xray" in body:  # checkpoints of earlier versions have none
                self.xray.restore(unpack(body["xray"], {}))
            self._warn(f"continued from {name.partition('.')[0]}")
            return unpack(body["state"], arrays)
        self._warn("started from the beginning")
        return None

    def _warn(self, instead: str) -> None:
        if self.damaged:
            reasons = "; ".join(f"{name.partition('.')[0]}: {reason}" for name, reason in self.damaged.items())
            self.warning = f"skipped unusable checkpoints ({reasons}); {instead}"

    @cached_property
    def _storage(self) -> Storage:
        return open_storage(self.checkpoints.location, self.trial.hash)

    @cached_property
    def _at_first(self) -> list[str]:
        """Names of the files that existed at first; a worker that was given up may write more, which nobody reads."""
        return _files(self._storage)

    @cached_property
    def _earlier(self) -> list[str]:
        """The checkpoints among them, the newest last."""
        return sorted((name for name in self._at_first if name.endswith(".json")), key=_age)

    @cached_property
    def _attempt(self) -> int:
        """This attempt's number: above that of all files, half-written ones too, so that it knows these as stale."""
        return 1 + max((_age(name)[0] for name in self._at_first), default=0)

    def _write(self, content: bytes, body: dict[str, Any]) -> None:
        """Write the two files of a checkpoint, or neither."""
        name = f"{self._attempt:04d}-{len(self._ours) + 1:06d}-{self._token}"
        try:
            self._storage.write(f"{name}.safetensors", content, "tensors")
            sealed = json.dumps({"sha256": _digest(body), "body": body}, allow_nan=False, separators=(",", ":"))
            self._storage.write(f"{name}.json", sealed.encode(), "manifest")
        except BaseException:
            for suffix in ("json", "safetensors"):
                with suppress(OSError):
                    self._storage.remove(f"{name}.{suffix}")
            raise
        self._ours.append(f"{name}.json")

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read a checkpoint and check it: an error if it is damaged or another trial's."""
        sealed = json.loads(self._storage.read(name))
        if not isinstance(sealed, dict) or sealed.get("sha256") != _digest(sealed.get("body")):
            raise ValueError("its digest does not match")
        body = dict(sealed["body"])
        if body.get("format") != CHECKPOINT_FORMAT or body.get("trial") != self.trial.hash:
            raise ValueError("another format, or another trial's")
        content = self._storage.read(name.replace(".json", ".safetensors"))
        if hashlib.sha256(content).hexdigest() != body["arrays"]["sha256"]:
            raise ValueError("its arrays are not those that were written")
        return body, load_arrays(content)

    def _prune(self) -> None:
        """Remove all but the last checkpoints of all attempts, and what dead attempts left half-written.

        Files of a later or simultaneous attempt stay: this attempt may be the one that was given up.
        """
        good = [name for name in self._earlier if name not in self.damaged]
        kept = {name.partition(".")[0] for name in [*good, *self._ours][-KEPT:]}
        for name in sorted(self._storage.names()):  # a manifest goes before its arrays
            match = _NAME.fullmatch(name)
            if match is None or name.lstrip(".").partition(".")[0] in kept:
                continue
            if match[3] == self._token or int(match[1]) < self._attempt:
                self._storage.remove(name)


def _files(storage: Storage) -> list[str]:
    """The names of the files in a trial's folder that fairtrial wrote."""
    return [name for name in storage.names() if _NAME.fullmatch(name)]


def _age(name: str) -> tuple[int, int, str]:
    """Return what sorts the names of files by age: attempt and number, then the token."""
    attempt, number, token = name.lstrip(".").partition(".")[0].split("-")
    return int(attempt), int(number), token


@contextmanager
def _checkpoint_errors(what: str, then: str = "") -> Iterator[None]:
    """Turn an OSError into a CheckpointError of one line."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what}: {error.strerror or error}{then}") from error


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, separators=(",", ":")).encode()).hexdigest()
