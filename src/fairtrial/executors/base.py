"""The contract of executors: what they are given, what they report, and how one trial becomes messages.

The runner opens an `Executor` for a study's `Workload`, submits trials to the `Session`, and reads messages, which
carry the trial's id: its hash. A session promises:

* Order. The messages of one trial are one `Started`, its `EpochFinished` records by rising epoch, and one `Ended`;
  in between, `Fingerprinted` whenever the trial's fingerprints have changed, and `SnapshotTaken` by rising step, before
  the record of its epoch. Messages of different trials may mix. A
  trial whose worker died may restart, with a `Started` in place of its `Ended`; its records then restart from the first
  epoch, and no message of the earlier attempt follows.
* Pauses. None where no other message is waiting: a good moment to write the earlier ones to the store.
* Failures. An error inside a training loop is a message (`Ended` with outcome ``failed`` and the traceback), never an
  exception of the session. The first line of the detail says plainly what happened. Ctrl-C is no failure: it passes
  through, and the trial stays without an end.
* Retries. What ends the worker and not just the loop (a crash, a signal, an exit, no memory left, silence) is retried
  once, by another worker; the second time it is a failure, whose detail describes both. What ran out of memory beside
  other trials (or was killed, which mostly means that) is retried with no other trial beside it, and a `Warned` says
  so. An exception of the training loop would recur, and is not retried; nor is a trial that exceeded its time limit.
* Records. Where a training loop's first record is not what the study needs (a metric is missing, text, in percent),
  every trial would meet the same: `messages` raises `RecordError`, and the trial stays without an end. In a later
  epoch it is a failure of the trial, but for a number in another unit: accuracies in percent may begin below 1.
* Checkpoints. A trial that restarts can continue from its last checkpoint; if one can't be used, a `Warned` says so.
  Where a checkpoint can't be written, as on a full disk, the trial has not failed, and all others would meet the same:
  `messages` raises `CheckpointError`, and the trial stays without an end. Leaving the context while trials run asks
  them to save their state, and waits a little for it.
* Threads. All methods are called from one thread. Trials may be submitted while messages are read.
* End. `messages` ends when every submitted trial has ended.
* Forks. A process that a training loop has forked, and that comes back out of the loop, is ended and reports nothing.
* Results. Records depend on the trial alone: whatever the executor, the same numbers.

Progress within an epoch goes to `Workload.on_progress` at once, and not through `messages`, which in this process has
no turn before the epoch is over. It may be dropped, and nothing depends on it.
"""

import os
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from fairtrial.checkpoints import CheckpointManager, TrialCheckpoints
from fairtrial.errors import CheckpointError, Diverged, RecordError, StudyError
from fairtrial.executors.forks import end_if_forked, only_in
from fairtrial.executors.records import NO_RULES, RecordRules, UnitError
from fairtrial.executors.slots import Slots
from fairtrial.spec.messages import show
from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot, TrainingLoop, Trial, TrialContext, Turn


@dataclass(frozen=True)
class Started:
    """A trial has started on a machine, at a time (UTC)."""

    trial_id: str
    machine: Machine
    at: datetime


@dataclass(frozen=True)
class Fingerprinted:
    """A trial has reported what it shares with the other arms of its seed: all its fingerprints so far, by name."""

    trial_id: str
    fingerprints: Mapping[str, str]


@dataclass(frozen=True)
class SnapshotTaken:
    """A trial has taken a snapshot of its optimizer's state."""

    trial_id: str
    snapshot: Snapshot


@dataclass(frozen=True)
class EpochFinished:
    """A trial has finished an epoch."""

    trial_id: str
    record: EpochRecord


@dataclass(frozen=True)
class Ended:
    """A trial has ended, at a time (UTC); ``detail`` says what happened unless it finished.

    ``reads`` is what a user's loop read of its settings; None if unknown.
    """

    trial_id: str
    outcome: Outcome
    detail: str
    at: datetime
    reads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Warned:
    """What a user should know about a trial although it changes no result."""

    trial_id: str
    text: str


@dataclass(frozen=True)
class Progressed:
    """How far a trial is within its epoch; for `Workload.on_progress`, and never recorded."""

    trial_id: str
    batch: int
    batches: int
    metrics: Mapping[str, float]


Message: TypeAlias = Started | Fingerprinted | SnapshotTaken | EpochFinished | Ended | Warned


@dataclass(frozen=True)
class NodeData:
    """Data that every node of a cluster needs, for nodes that can't download them."""

    gather: Callable[[], object]  # called once, on the machine that runs the study; returns the data
    place: Callable[[Callable[[], object]], None]  # called once on each node, with a function that returns the data


@dataclass(frozen=True)
class Workload:
    """What an executor runs: everything that it needs to know about training, without importing it.

    Workers must be able to import all functions but ``on_progress``.
    """

    loop: TrainingLoop
    machine: Callable[[Trial], Machine]  # describes the machine of the calling process; called where the trial runs
    trials: tuple[Trial, ...]  # those that may be submitted
    checkpoints: CheckpointManager | None = None  # where trials save their state; None for nowhere
    set_up: Callable[[int], None] | None = None  # called first in each worker process, with its number of threads
    gpus: int = 0  # of this machine
    environment: Callable[[int], Mapping[str, str]] | None = None  # variables of a local worker, by its number from 0
    device_memory: Callable[[], tuple[int, int]] | None = None  # of a worker's GPU: bytes free, and taken by the worker
    # Called in a worker, from any thread, with the cores that its trial may use for now: this must change no record.
    use_cores: Callable[[int], None] | None = None
    data: NodeData | None = None
    rules: RecordRules = NO_RULES  # for the records of training loops
    notes: tuple[str, ...] = ()  # what the user should know before trials start
    on_progress: Callable[[Progressed], None] = lambda _progress: None  # called with progress within epochs
    xray: bool = True  # whether trials take snapshots of their optimizers


class Session(AbstractContextManager["Session"], Protocol):
    """One study on an executor. Leaving the context stops running trials."""

    @property
    def slots(self) -> Slots | None:
        """How many trials run side by side on this machine; None where that is not known beforehand."""

    def submit(self, trial: Trial) -> None:
        """Queue a trial; trials start in the order of submission."""

    def messages(self) -> Iterator[Message | None]:
        """Run the submitted trials and report their messages, until every trial has ended; None for a pause."""


class Executor(Protocol):
    """Where trials run: an object that a user constructs and that stores nothing but choices."""

    @property
    def checkpoints(self) -> str | None:
        """The folder or URL where running trials save their state; None for a folder beside the store."""

    def open(self, workload: Workload) -> Session:
        """Open a session for a study.

        Raises:
            FairtrialError: it can't run here, for example because workers can't import the training loop.
        """


def device_elsewhere(executor: Executor) -> str | None:
    """Ask an executor for the kind of device (``"cpu"``, ``"cuda"``) that trials get on other machines than this one.

    None where they run on this machine: such executors need no method `device`.

    Raises:
        FairtrialError: the other machines can't be reached.
    """
    ask: Callable[[], str | None] | None = getattr(executor, "device", None)
    return ask() if ask else None


def check_importable(trials: Iterable[Trial]) -> None:
    """Refuse training loops that worker processes can't import, with a StudyError that names two ways that work."""
    for name in dict.fromkeys(trial.settings.training.loop for trial in trials):
        module, _, function = name.partition(":")
        if "#" in function:
            what = "within another function" if "<" in function else "with bound arguments"
            what = "of the running script or notebook" if module == "__main__" else what
            raise StudyError(
                f'training.loop = "{name.partition("#")[0]}": workers can\'t import a function {what}; move it to the '
                "top of a module, or run with executor=fairtrial.InlineExecutor()"
            )


def run_trial(
    trial: Trial,
    loop: TrainingLoop,
    machine: Machine,
    checkpoints: TrialCheckpoints | None = None,
    rules: RecordRules = NO_RULES,
    *,
    on_progress: Callable[[Progressed], None] = lambda _progress: None,
    pass_on: Callable[[Exception], bool] = lambda _error: False,
    xray: bool = True,
) -> Generator[Message, None, None]:
    """Run one trial and turn what its training loop does into messages.

    A loop ends well by running out; it may stop before its last epoch. It diverges by raising `Diverged` or by yielding
    a loss (a metric named ``loss`` or ``..._loss``) that is not finite; that record is dropped, because it would make
    every mean NaN. It fails by raising anything else, by yielding something other than a record, no record, or more
    records than it has epochs. Closing this generator closes the training loop. What the study expects of records is in
    ``rules``.

    Fingerprints and snapshots come before the record of their epoch, or before the trial's end. The records of a
    checkpoint that the loop has loaded come before its own first one.

    A trial has no end where the loop was asked to stop (it raises `Stopped`), where checkpoints can't be written or
    read (`CheckpointError`), where a record breaks the rules of all (`RecordError`), or where ``pass_on`` says that an
    exception ends the process, not just the trial.
    """
    turns = run_in_turns(
        trial, loop, machine, checkpoints, rules, on_progress=on_progress, pass_on=pass_on, xray=xray, in_turns=False
    )
    with closing(turns) as messages:
        for message in messages:
            if not isinstance(message, Turn):  # there is none; this says so to a type checker
                yield message


def run_in_turns(
    trial: Trial,
    loop: TrainingLoop,
    machine: Machine,
    checkpoints: TrialCheckpoints | None = None,
    rules: RecordRules = NO_RULES,
    *,
    on_progress: Callable[[Progressed], None] = lambda _progress: None,
    pass_on: Callable[[Exception], bool] = lambda _error: False,
    xray: bool = True,
    in_turns: bool = True,
) -> Generator[Message | Turn, None, None]:
    """Run one trial beside others of this process: as `run_trial`, but with a `Turn` wherever another may go on."""
    yield Started(trial.hash, machine, datetime.now(UTC))

    def progress(batch: int, batches: int, metrics: Mapping[str, float]) -> None:
        on_progress(Progressed(trial.hash, batch, batches, metrics))

    context = TrialContext(trial, checkpoints, progress, xray=xray, in_turns=in_turns)
    outcome, detail = Outcome.FINISHED, ""
    told = _Told()
    try:
        with closing(_records(context, as_generator(loop(context)), checkpoints, rules)) as records:
            for record in records:
                if isinstance(record, Turn):
                    yield record
                    continue
                yield from _news(context, told, checkpoints)
                yield EpochFinished(trial.hash, record)
    except (CheckpointError, RecordError):
        raise
    except Diverged as divergence:
        outcome, detail = Outcome.DIVERGED, divergence.where
    except Exception as error:
        if pass_on(error):
            raise
        first = traceback.format_exception_only(error)[-1].partition("\n")[0]
        outcome, detail = Outcome.FAILED, f"{first}\n{''.join(traceback.format_exception(error))}"
    yield from _news(context, told, checkpoints)
    reads = None if context.reads is None else tuple(sorted(context.reads))
    yield Ended(trial.hash, outcome, detail, datetime.now(UTC), reads)


@dataclass
class _Told:
    """What has been reported of a trial so far: its fingerprints, and how many snapshots."""

    fingerprints: dict[str, str] = field(default_factory=dict)
    snapshots: int = 0


def _news(
    context: TrialContext, told: _Told, checkpoints: TrialCheckpoints | None
) -> Iterator[Warned | Fingerprinted | SnapshotTaken]:
    """Report once what is wrong with checkpoints, fingerprints that have changed, and new snapshots."""
    if checkpoints is not None and checkpoints.warning:
        yield Warned(context.trial.hash, checkpoints.warning)
        checkpoints.warning = ""
    if context.fingerprints != told.fingerprints:
        told.fingerprints.update(context.fingerprints)
        yield Fingerprinted(context.trial.hash, dict(told.fingerprints))
    new = context.xray_progress.snapshots[told.snapshots :]
    told.snapshots += len(new)
    for snapshot in new:
        yield SnapshotTaken(context.trial.hash, snapshot)


def _records(
    context: TrialContext,
    epochs: Generator[Mapping[str, float] | Turn, None, None],
    checkpoints: TrialCheckpoints | None,
    rules: RecordRules,
) -> Generator[EpochRecord | Turn, None, None]:
    """Number and check what a training loop yields, after the records that were saved with its state."""
    trial = context.trial
    records: list[EpochRecord] = checkpoints.records if checkpoints is not None else []
    epoch, owner = 0, os.getpid()
    with only_in(owner), closing(epochs):
        try:
            for metrics in epochs:
                end_if_forked(owner)
                if isinstance(metrics, Turn):
                    yield metrics
                    continue
                yield from records[epoch:]
                epoch = len(records) + 1
                context.end_epoch(epoch)
                records.append(EpochRecord(trial.arm, trial.seed, epoch, _checked(trial, metrics, epoch, rules)))
                yield records[-1]
        except Exception:
            end_if_forked(owner)
            yield from records[epoch:]  # loaded records count, whatever happened since
            raise
    yield from records[epoch:]
    if not records:
        raise ValueError("the training loop yielded nothing")
    if missing := rules.missing({name for record in records for name in record.metrics}):
        raise ValueError(missing)


def as_generator(epochs: object) -> Generator[Mapping[str, float] | Turn, None, None]:
    """Give any iterator the close method that generators have; refuse what a loop without ``yield`` returns."""
    if isinstance(epochs, Mapping) or not isinstance(epochs, Iterable):
        raise TypeError(
            "a training loop must be a generator that yields a dict after each epoch; it returned "
            f"{'None' if epochs is None else f'a {type(epochs).__name__}'}"
        )
    yield from epochs


def _checked(trial: Trial, metrics: object, epoch: int, rules: RecordRules) -> dict[str, float]:
    """Check one epoch's metrics; what all trials share is a `RecordError`: a wrong first record, or another unit."""
    if epoch > trial.epochs:
        raise ValueError(f"the training loop yielded more than its {trial.epochs} epochs")
    try:
        return rules.checked(metrics, epoch)
    except (TypeError, ValueError) as error:
        if epoch > 1 and not isinstance(error, UnitError):
            raise
        loop = trial.settings.training.loop
        raise RecordError(f"training.loop = {show(str(loop))}, arm {trial.arm}, seed {trial.seed}: {error}") from error
