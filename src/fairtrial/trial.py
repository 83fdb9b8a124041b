"""Trials, the context that their training loops get, and their results."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum, StrEnum
from functools import cached_property
from typing import Any, Protocol, TypeAlias

from fairtrial.reads import RecordedSettings
from fairtrial.registry import import_name
from fairtrial.snapshots import Snapshot as Snapshot  # noqa: PLC0414  (public as `fairtrial.trial.Snapshot`)
from fairtrial.snapshots import XrayProgress
from fairtrial.spec import BUILT_IN, FORMAT, Settings, content, digest

#: Packages whose version can change a trial's numbers.
PACKAGES = ("fairtrial", "torch")

#: Begins what `TrialResult.forced` says of a trial of which a merge found two results.
CHOSEN = "a merge chose it over another result"


class Outcome(StrEnum):
    """How a trial ended."""

    FINISHED = "finished"
    DIVERGED = "diverged"
    FAILED = "failed"


#: Outcomes after which a trial never runs again, and its checkpoints are of no more use.
FINAL = (Outcome.FINISHED, Outcome.DIVERGED)


class Turn(Enum):
    """What a training loop yields between two records where several trials take turns in one process.

    Only fairtrial's own loop does, and only if `TrialContext.in_turns` says so.
    """

    OVER = "over"  #: it has done some work, and another trial may go on
    WAITS = "waits"  #: it waits for its device, and has done nothing


@dataclass(frozen=True)
class Trial:
    """One arm at one seed.

    Attributes:
        arm: the arm's name.
        seed: the replicate. All arms of a seed share initial weights and the order of batches.
        settings: the arm's full configuration.
        noise: the seeds of the initial weights and of the order of batches, if a study varies the two separately and
            they are not both ``seed``; see `weights_seed` and `order_seed`.
    """

    arm: str
    seed: int
    settings: Settings
    noise: tuple[int, int] | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of the full configuration, the arm's name and the seeds.

        A changed default changes it. Studies that share a trial share its record: going from three seeds to five trains
        two more.
        """
        table = {"format": FORMAT, "arm": self.arm, "seed": self.seed, "settings": content(self.settings)}
        return digest(table if self.noise is None else table | {"noise": self.noise})

    @property
    def weights_seed(self) -> int:
        """The seed of the initial weights."""
        return self.seed if self.noise is None else self.noise[0]

    @property
    def order_seed(self) -> int:
        """The seed, with the epoch, of the order of batches and of dropout."""
        return self.seed if self.noise is None else self.noise[1]

    @property
    def own_seed(self) -> int:
        """The seed that training loops get: that of weights and order, or the replicate where these two differ."""
        return self.weights_seed if self.weights_seed == self.order_seed else self.seed

    @property
    def epochs(self) -> int:
        """Epochs to train, from the settings."""
        return self.settings.training.epochs


class Checkpoints(Protocol):
    """Checkpoints of one attempt at a trial; `TrialContext.save` and `TrialContext.load` use them."""

    fingerprints: dict[str, str]  # what the attempt has reported; saved and loaded with its state
    xray: XrayProgress  # likewise

    @property
    def due(self) -> bool:
        """Whether the training loop should save its state soon."""

    def save(self, state: object) -> None:
        """Write a checkpoint."""

    def load(self) -> Any:
        """Read the last complete checkpoint; None if there is none."""


class TrialContext:
    """What a training loop gets: its trial, and methods to report progress and to save its state.

    Args:
        trial: what to train.
        checkpoints: where the state is saved; None to save nothing.
        on_progress: called with the batches done in an epoch, batches in all, and metrics.
        xray: whether `xray` does anything.
        in_turns: other trials run in this process, in turn with this one; see `Turn`.

    Attributes:
        trial: what to train; its arm, seeds, settings and epochs are attributes of the context too.
        fingerprints: what this attempt has reported by `fingerprint` so far.
        reads: what a user's loop has read of the settings so far; see `reads`. None for fairtrial's own.
        xray_progress: the snapshots that this attempt has taken so far.
        xray_wanted: whether the user wants snapshots.
        on_epoch_end: called by `end_epoch`.

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
        *,
        xray: bool = True,
        in_turns: bool = False,
    ) -> None:
        self.in_turns = in_turns
        self.reads: set[str] | None = None if trial.settings.training.loop == BUILT_IN else set()
        self.trial = trial if self.reads is None else _recorded(trial, self.reads)
        self.fingerprints = {} if checkpoints is None else checkpoints.fingerprints
        self._checkpoints = checkpoints
        self._on_progress = on_progress
        self.xray_progress = XrayProgress() if checkpoints is None else checkpoints.xray
        self.xray_wanted = xray
        self.on_epoch_end: Callable[[int], None] | None = None

    @property
    def arm(self) -> str:
        """The arm's name."""
        return self.trial.arm

    @property
    def seed(self) -> int:
        """The seed of the initial weights and of the order of batches; the replicate where these two differ."""
        return self.trial.own_seed

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
        """The seed, with the epoch, of the order of batches and of dropout."""
        return self.trial.order_seed

    def progress(self, batch: int, batches: int, **metrics: float) -> None:
        """Report progress within this epoch, which is displayed and not recorded.

        Args:
            batch: batches done in this epoch, from 1.
            batches: batches in an epoch.
            **metrics: values so far, such as ``train_acc=0.31``; accuracies as fractions.
        """
        if self._on_progress is not None:
            self._on_progress(batch, batches, metrics)

    @property
    def checkpoint_due(self) -> bool:
        """Whether a training loop that can save its state within an epoch should do so now.

        True a minute after the last checkpoint, or later if ``training.checkpoint_seconds`` says so, and when the study
        is asked to stop. Checking it costs nothing.
        """
        return self._checkpoints is not None and self._checkpoints.due

    def save(self, state: object) -> None:
        """Offer a checkpoint: all that a training loop needs to continue from here if this process dies.

        Offer one after each epoch. It is written if the last one is long enough ago (``training.checkpoint_seconds``;
        by default 50 times as long as writing it took, at most ten minutes), or if the study is asked to stop;
        otherwise nothing happens, and a process that dies redoes what came since. The records that the loop has yielded
        so far and the trial's fingerprints are saved with it. A checkpoint that is written is on the disk when this
        returns; the previous one is kept until then.

        Args:
            state: dictionaries, lists, tuples, strings, numbers, True, False and None, NumPy arrays and torch tensors,
                in any nesting. For the same results as without a break, include the states of random generators.

        Raises:
            TypeError: the state contains something else.
            CheckpointError: it can't be written.
            Stopped: it was written, and the study is asked to stop; do not catch it.

        Example:
            >>> for epoch in range(done, trial.epochs):                                   # doctest: +SKIP
            ...     ...
            ...     yield {"train_loss": loss, "test_acc": accuracy}
            ...     trial.save({"epoch": epoch + 1, "model": model.state_dict()})
        """
        if self._checkpoints is not None:
            self._checkpoints.save(state)

    def load(self) -> Any:
        """Load the last state that an interrupted attempt at this trial has saved.

        Call it before the first record, or it is a `RuntimeError`. The records that had been yielded by then count as
        this attempt's: continue with the record after them. A loop that never calls this begins anew.

        Returns:
            The state, equal to the bit, with tensors on the CPU in the memory format that they had; or None.
        """
        return None if self._checkpoints is None else self._checkpoints.load()

    def fingerprint(self, **digests: str) -> None:
        """Report digests of what this trial shares with the other arms of its seed, which prove the pairing.

        A comparison of two arms is refused if they differ in a fingerprint at one seed. Names that begin with
        ``final_`` are for results, such as the weights at the end: arms may differ in them, and two runs of one trial
        can be compared by them. A name that is reported again replaces the earlier value.

        Args:
            **digests: a digest by name, of `fairtrial.fingerprint` or any other. fairtrial's own loop reports
                ``initial_weights``, ``batch_order`` and, at the end, ``final_weights``.

        Raises:
            TypeError, ValueError: a digest is not a string, or empty.

        Example:
            >>> trial.fingerprint(initial_weights=fairtrial.fingerprint(model.state_dict()))  # doctest: +SKIP
        """
        for name, value in digests.items():
            if not isinstance(value, str):
                raise TypeError(f"fingerprint {name} must be a string, not {type(value).__name__}")
            if not value:
                raise ValueError(f"fingerprint {name} is empty")
        self.fingerprints.update(digests)

    def xray(self, optimizer: Any, network: Any = None, *, steps_per_epoch: int | None = None) -> Any:
        """Take snapshots of an optimizer's state from now on; they change no result. `fairtrial xray` shows them.

        Call it once the optimizer is made, and again if the loop makes another one.

        Args:
            optimizer: a ``torch.optim.Optimizer``.
            network: the ``torch.nn.Module`` that it trains; it names the tensors and the kinds of layers.
            steps_per_epoch: steps of the optimizer in each epoch. By default they are counted in the first, whose last
                step then has no statistics of its update.

        Returns:
            The `fairtrial.training.xray.Xray`, which a loop may ignore.

        Example:
            >>> optimizer = torch.optim.Adam(network.parameters(), lr=trial.settings.optimizer.lr)  # doctest: +SKIP
            >>> trial.xray(optimizer, network)                                                      # doctest: +SKIP
        """
        attach = import_name("fairtrial.training.xray:attach")  # of a layer above, which alone knows torch
        return attach(self, optimizer, network, steps_per_epoch=steps_per_epoch)

    def end_epoch(self, epoch: int) -> None:
        """Note that the loop has yielded the record of an epoch; executors call it, and a loop need not."""
        self.xray_progress.epochs = epoch
        if self.on_epoch_end is not None:
            self.on_epoch_end(epoch)


def _recorded(trial: Trial, reads: set[str]) -> Trial:
    """Copy a trial, so that what is read of its settings is added to a set; to compute its hash is no reading."""
    copy = replace(trial, settings=RecordedSettings.of(trial.settings, reads))
    copy.__dict__["hash"] = trial.hash
    return copy


#: A training loop, fairtrial's own or a user's: yields the metrics of each epoch.
TrainingLoop: TypeAlias = Callable[[TrialContext], Iterator[Mapping[str, float] | Turn]]


@dataclass(frozen=True)
class EpochRecord:
    """What a trial reports after an epoch, counted from 1.

    Metrics are losses in nats, accuracies as fractions, times in seconds.
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
        git_commit: of the study file's folder, if it is a repository; followed by ``+`` if it has uncommitted changes.
        layers: what computes the layers of fairtrial's own loop, such as ``"compiled kernels (g++ 12.2.0, AVX-512)"``;
            others give the same results to rounding, not to the bit. Empty for a user's loop, and in a precision
            that only torch's own have.
        data: digest of the decoded data set that fairtrial's own loop trains on. Empty for a user's loop.
        weights: digest of the file of initial weights, if the model names one.
        code: digests of the user's own code that the trial ran, by file, and versions of the packages that it imports;
            see `sources.code_of`. Empty where all of it is fairtrial's.
    """

    versions: Mapping[str, str]
    processor: str
    device: str
    threads: int
    system: str
    git_commit: str | None = None
    layers: str = ""
    data: str = ""
    weights: str = ""
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def conditions(self) -> dict[str, str]:
        """What can change a trial's numbers, as far as it is known, but for its data and the user's own code."""
        versions = {name: self.versions[name] for name in PACKAGES if name in self.versions}
        computed_on = self.processor if self.device == "cpu" else self.device
        known = {"threads": str(self.threads), "processor": computed_on, "layers": self.layers}
        return versions | {name: value for name, value in known.items() if value}


def kind_of_condition(value: str) -> str:
    """A condition without its details: torch's own layers compute the same, why ever they do."""
    return value.partition(":")[0] if value.startswith(("plain: ", "torch's own: ")) else value


@dataclass(frozen=True)
class TrialResult:
    """What the store knows of one trial.

    Attributes:
        arm: the arm's name.
        seed: the replicate.
        trial: the trial's hash.
        outcome: how it ended; None while it runs, or if it was interrupted.
        detail: how and when a trial diverged, or the traceback of a failed one.
        started: when the last attempt began, in UTC.
        ended: when it ended, in UTC.
        machine: where it ran.
        epochs: its records, in order.
        fingerprints: digests by name that the last attempt reported; see `TrialContext.fingerprint`.
        forced: what differed from the study's earlier trials, where the user chose to continue all the same.
        reads: what a user's training loop read of its settings, see `reads`; None where that is not known.
        snapshots: of its optimizer's state, by rising step; only if they were asked for, see `Store.snapshots`.
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
    reads: tuple[str, ...] | None = None
    snapshots: tuple[Snapshot, ...] = ()

    @property
    def continued(self) -> str:
        """Under which other conditions the user chose to continue: ``forced`` without what a merge noted."""
        return self.forced.partition(CHOSEN)[0].removesuffix("; ")
