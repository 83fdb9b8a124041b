"""Trials, what their training loops get, and what comes of them: epoch records, outcomes, machines, results."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from fairtrial.spec import FORMAT, Settings, content, digest


class Outcome(StrEnum):
    """How a trial ended. Three ways, kept apart everywhere."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """One arm at one seed: what a trial is, and nothing else.

    Attributes:
        arm: the arm's name.
        seed: the replicate. All arms of a seed share initial weights and the order of batches.
        settings: the arm's full configuration.
        noise: the seeds of the initial weights and of the order of batches, where a study varies the two apart and they
            are not both the trial's own; see `weights_seed` and `order_seed`.
    """

    arm: str
    seed: int
    settings: Settings
    noise: tuple[int, int] | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the full configuration, the arm's name and the seed, or seeds.

        A changed default changes it, so that no trial is ever taken for another. Studies that share a trial share its
        record: going from three seeds to five trains two more, not five.
        """
        table = {"format": FORMAT, "arm": self.arm, "seed": self.seed, "settings": content(self.settings)}
        return digest(table if self.noise is None else table | {"noise": self.noise})

    @property
    def weights_seed(self) -> int:
        """The seed of the initial weights."""
        return self.seed if self.noise is None else self.noise[0]

    @property
    def order_seed(self) -> int:
        """The seed, together with the epoch, of the order of batches; of dropout too."""
        return self.seed if self.noise is None else self.noise[1]

    @property
    def epochs(self) -> int:
        """Epochs to train, from the settings."""
        return self.settings.training.epochs


class Checkpoints(Protocol):
    """Keeps one attempt's state through crashes; `TrialContext.save` and `TrialContext.load` use it.

    Attributes:
        fingerprints: what the attempt has reported; saved and loaded with its state.
    """

    fingerprints: dict[str, str]

    @property
    def due(self) -> bool:
        """Whether the training loop should save its state soon."""

    def save(self, state: object) -> None:
        """Write a checkpoint."""

    def load(self) -> Any:
        """Read the last complete checkpoint; None if there is none."""


class TrialContext:
    """What a training loop gets: its trial, and the means to report and to save.

    Args:
        trial: what to train.
        checkpoints: where the state is saved; None to save nothing.
        on_progress: told how far the loop is within an epoch: batches done, batches in all, and metrics.

    Attributes:
        trial: what to train. Its arm, seed, settings, epochs and seeds are attributes of the context too.
        fingerprints: what this attempt has reported by `fingerprint` so far.

    Example:
        >>> def train(trial: TrialContext) -> Iterator[dict[str, float]]:
        ...     for epoch in range(trial.epochs):
        ...         yield {"test_acc": 0.5 + 0.1 * epoch}
    """

    def __init__(
        self,
        trial: Trial,
        checkpoints: Checkpoints | None = None,
        on_progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
    ) -> None:
        self.trial = trial
        self.fingerprints = {} if checkpoints is None else checkpoints.fingerprints
        self._checkpoints = checkpoints
        self._on_progress = on_progress

    @property
    def arm(self) -> str:
        """The arm's name."""
        return self.trial.arm

    @property
    def seed(self) -> int:
        """The replicate."""
        return self.trial.seed

    @property
    def settings(self) -> Settings:
        """The arm's full configuration."""
        return self.trial.settings

    @property
    def epochs(self) -> int:
        """Epochs to train."""
        return self.trial.epochs

    @property
    def weights_seed(self) -> int:
        """The seed of the initial weights."""
        return self.trial.weights_seed

    @property
    def order_seed(self) -> int:
        """The seed, together with the epoch, of the order of batches; of dropout too."""
        return self.trial.order_seed

    def progress(self, batch: int, batches: int, **metrics: float) -> None:
        """Report how far this epoch is; nothing is recorded, and it costs nothing if nobody watches.

        Args:
            batch: batches done in this epoch, from 1.
            batches: batches in an epoch.
            **metrics: what is known so far, such as ``train_acc=0.31``; accuracies as fractions.
        """
        if self._on_progress is not None:
            self._on_progress(batch, batches, metrics)

    @property
    def checkpoint_due(self) -> bool:
        """Whether a training loop that can save its state within an epoch should do so now.

        It is so when some time has passed since the last checkpoint, and when the study is asked to stop. Asking after
        every step costs nothing.
        """
        return self._checkpoints is not None and self._checkpoints.due

    def save(self, state: object) -> None:
        """Save all that a training loop needs to continue from here, in case this process dies before the end.

        The records that the loop has yielded so far and the trial's fingerprints are saved with it. When this returns,
        the checkpoint is complete on the disk; the one before is kept until then. Without checkpoints, nothing happens.

        Args:
            state: dictionaries, lists, tuples, strings, numbers, True, False and None, NumPy arrays and torch tensors,
                in any nesting. Random generators must be in it too if the trial is to end as if nothing had happened.

        Raises:
            TypeError: something else is in the state.
            CheckpointError: it can't be written.
            Stopped: it was written, and the study is asked to stop; let it pass.

        Example:
            >>> for epoch in range(done, trial.epochs):                                   # doctest: +SKIP
            ...     ...
            ...     yield {"train_loss": loss, "test_acc": accuracy}
            ...     trial.save({"epoch": epoch + 1, "model": model.state_dict()})
        """
        if self._checkpoints is not None:
            self._checkpoints.save(state)

    def load(self) -> Any:
        """Get what an earlier attempt, which did not live to the end, has saved last.

        Call it before the first record. The records that had been yielded by then count as this attempt's, so the loop
        continues with the record after them. A loop that never calls this starts its trial from the beginning.

        Returns:
            The state, equal to the bit; tensors are on the CPU, in the memory format that they had. None if there is
            none: begin from the start.

        Raises:
            RuntimeError: the loop has yielded a record already.
        """
        return None if self._checkpoints is None else self._checkpoints.load()

    def fingerprint(self, **digests: str) -> None:
        """Report what this trial has in common with the other arms of its seed, so that the pairing can be proved.

        Call it before the first step, or whenever the value is known; a name that is reported again replaces the
        earlier value. A comparison of two arms is refused where both have a fingerprint of one name at one seed and the
        two differ. Names that begin with ``final_`` are for results, such as the weights at the end: they are recorded,
        so that two runs of one trial can be compared, and arms may differ in them.

        Args:
            **digests: a digest by name. fairtrial's own loop reports ``initial_weights``, ``batch_order`` and, at the
                end, ``final_weights``; a loop of the user's own may report these, by `fairtrial.fingerprint` or any
                digest, and others.

        Raises:
            TypeError, ValueError: a digest is no string, or empty.

        Example:
            >>> trial.fingerprint(initial_weights=fairtrial.fingerprint(model.state_dict()))  # doctest: +SKIP
        """
        for name, value in digests.items():
            if not isinstance(value, str):
                raise TypeError(f"fingerprint {name} must be a string, not {type(value).__name__}")
            if not value:
                raise ValueError(f"fingerprint {name} is empty")
        self.fingerprints.update(digests)


#: A training loop, fairtrial's own or a user's: yields the metrics of each epoch.
TrainingLoop: TypeAlias = Callable[[TrialContext], Iterator[Mapping[str, float]]]


@dataclass(frozen=True)
class EpochRecord:
    """What a trial reports after an epoch.

    Attributes:
        arm: the arm's name.
        seed: the replicate.
        epoch: from 1.
        metrics: by name; losses in nats, accuracies as fractions, times in seconds.
    """

    arm: str
    seed: int
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Machine:
    """Where and with what a trial ran.

    Attributes:
        versions: package versions by name, ``python`` among them.
        processor: the processor's name as the system gives it.
        device: ``"cpu"``, or the accelerator's name.
        threads: threads that one training run uses.
        system: operating system and release.
        git_commit: commit of the folder that holds the study file, if it is a repository; with ``+`` behind it if
            that folder has uncommitted changes.
        layers: what computes the layers of fairtrial's own loop, such as ``"compiled kernels (g++ 12.2.0, AVX-512)"``;
            another path gives the same results to rounding, not to the bit. Empty for a loop of the user's own.
        data: digest of the decoded data set that fairtrial's own loop trains on. Empty for a loop of the user's own.
    """

    versions: Mapping[str, str]
    processor: str
    device: str
    threads: int
    system: str
    git_commit: str | None = None
    layers: str = ""
    data: str = ""


@dataclass(frozen=True)
class TrialResult:
    """What the store knows of one trial.

    Attributes:
        arm: the arm's name.
        seed: the replicate.
        trial: the trial's hash.
        outcome: how it ended; None while it runs, or if it was interrupted.
        detail: for a diverged trial what was seen and when, for a failed one its traceback.
        started: when the last attempt began, in UTC.
        ended: when it ended, in UTC.
        machine: where it ran.
        epochs: its records, in order.
        fingerprints: digests, by name, of what the arms of a seed are meant to share, as the last attempt reported
            them: ``initial_weights`` and ``batch_order`` from fairtrial's own loop. One that is not there is unknown.
            Those named ``final_...`` are results.
        forced: what differed from the study's earlier trials, where the user chose to continue all the same.
    """

    arm: str
    seed: int
    trial: str
    outcome: Outcome | None
    detail: str
    started: datetime
    ended: datetime | None
    machine: Machine
    epochs: tuple[EpochRecord, ...]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    forced: str = ""


def digest_results(results: Iterable[TrialResult]) -> str:
    """Digest what a study's trials came to, so that two runs can be seen to have given the same to the bit.

    Args:
        results: of the trials, in any order. Arm, seed, outcome, fingerprints and all records count, and for a diverged
            trial what was seen. Times and machines don't; neither does what was said of a failure, which names files,
            limits and signals of one machine.

    Returns:
        SHA-256 in hexadecimal.
    """
    return digest({result.trial: _lasting(result) for result in results})


def _lasting(result: TrialResult) -> dict[str, Any]:
    return {
        "arm": result.arm,
        "seed": result.seed,
        "outcome": result.outcome,
        "seen": result.detail if result.outcome is Outcome.DIVERGED else "",
        "fingerprints": dict(result.fingerprints),
        "epochs": [
            [record.epoch, {name: float(value).hex() for name, value in record.metrics.items() if not _is_time(name)}]
            for record in result.epochs
        ],
    }


def _is_time(metric: str) -> bool:
    return metric == "seconds" or metric.endswith("_seconds")
