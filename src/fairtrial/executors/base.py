"""The contract of executors, and the one way in which a trial becomes messages.

An executor runs trials somewhere and tells what comes of them. It promises:

* Order. The messages of one trial come as one `Started`, its `Epoch` records by rising epoch, and one `Ended`; between
  the first and the last, `Fingerprinted` whenever the trial's fingerprints have changed. Those of different trials may
  mix. A trial that has lost its worker may begin again, with a `Started` in the place of its `Ended`; then its `Epoch`
  records begin again too, with the first. Nothing of the attempt before comes after that `Started`.
* Pauses. Between messages comes None where no further one is waiting: a good moment to write down what came before.
* Failures. What goes wrong inside a training loop is a message (`Ended` with outcome ``failed`` and the traceback),
  never an exception of the executor. The first line of the detail says plainly what happened. Ctrl-C is no failure: it
  passes through, and the trial stays without an end.
* Retries. What ends the worker and not just the loop (a crash, a signal, an exit, no memory left, silence) is tried
  once more, by another worker; the second time it is a failure, whose detail tells of both. An exception of the
  training loop would come again, and is not tried again; nor is a trial that took longer than its time limit.
* Checkpoints. Given a place for them, a trial that begins again can go on from where its last attempt was saved; if one
  can't be used, a `Warned` says so. A checkpoint that can't be written, on a full disk for example, is no failure of
  the trial that meets it first, and would be met by all others next: `messages` raises `CheckpointError`, and the trial
  stays without an end. A worker process reports it as `CheckpointFailed`. Leaving the context while trials run asks
  them to save what they have, and waits a little for it.
* Threads. All methods are called from one thread, the conductor's. Trials may be submitted while messages are read.
* End. `messages` ends when every submitted trial has ended.
* Results. Records depend on the trial alone: whatever the executor, the same numbers.

Progress within an epoch goes to the trial's listener. It may be dropped, and nothing depends on it.
"""

import math
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from fairtrial.checkpoints import CheckpointManager, TrialCheckpoints
from fairtrial.errors import CheckpointError, Diverged
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

#: A training loop: built in, or brought along.
TrainingLoop: TypeAlias = Callable[[Trial], Iterator[Mapping[str, float]]]


@dataclass(frozen=True)
class Started:
    """A trial begins, on a machine, at a time (UTC)."""

    trial: Trial
    machine: Machine
    at: datetime


@dataclass(frozen=True)
class Fingerprinted:
    """A trial has told what it shares with the other arms of its seed: all its fingerprints so far, by name."""

    trial: Trial
    fingerprints: Mapping[str, str]


@dataclass(frozen=True)
class Epoch:
    """A trial has finished an epoch."""

    trial: Trial
    record: EpochRecord


@dataclass(frozen=True)
class Ended:
    """A trial has ended, at a time (UTC); ``detail`` says what happened unless it finished."""

    trial: Trial
    outcome: Outcome
    detail: str
    at: datetime


@dataclass(frozen=True)
class Warned:
    """What a user should know of a trial although it changes no result; may come anywhere within its story."""

    trial: Trial
    text: str


@dataclass(frozen=True)
class CheckpointFailed:
    """What a worker sends in place of `Ended` where `drive` has raised `CheckpointError`; never seen by a conductor.

    An executor that gets it raises ``CheckpointError(detail)`` from its `messages`.
    """

    trial: Trial
    detail: str


Message: TypeAlias = Started | Fingerprinted | Epoch | Ended | Warned


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs trials. Leaving the context stops what still runs.

    Attributes:
        checkpoints: where trials keep their state; None if nowhere.
    """

    checkpoints: CheckpointManager | None

    def submit(self, trial: Trial) -> None:
        """Queue a trial; trials start in the order of submission."""

    def messages(self) -> Iterator[Message | None]:
        """Run what was submitted and tell what comes of it, until every trial has ended; None for a pause."""


def drive(
    trial: Trial,
    loop: TrainingLoop,
    machine: Machine,
    keep: TrialCheckpoints | None = None,
    *,
    pass_on: Callable[[Exception], bool] = lambda _error: False,
) -> Generator[Message, None, None]:
    """Run one trial and turn what its training loop does into messages.

    A loop ends well by running out. It diverges by raising `Diverged` or by yielding a loss (a metric named ``loss`` or
    ``..._loss``) that is not finite; that record is not kept, because a mean over it would be no number. It fails by
    raising anything else, by yielding what is no record, and by yielding none, or more than it has epochs; it may stop
    earlier. Closing this generator closes the training loop.

    Fingerprints come before the record of the epoch in which the loop reported them, and before the end of a trial that
    had no record any more. The records of a checkpoint that the loop has loaded come before its first of its own.

    Args:
        trial: the trial.
        loop: the training loop.
        machine: where it runs.
        keep: the trial's checkpoints, or None.
        pass_on: tells whether an exception of the loop is no end of the trial, but of the process that runs it.

    Raises:
        Exception: one that is to be passed on; the trial has no end.
        Stopped: the loop has saved its state because it was asked to stop; the trial has no end.
        CheckpointError: its state can't be saved, or not be looked for; the trial has no end.
    """
    yield Started(trial, machine, _now())
    outcome, detail = Outcome.FINISHED, ""
    trial.fingerprints.clear()  # of an attempt before, in this process
    told: dict[str, str] = {}
    try:
        with closing(_records(trial, loop(trial if keep is None else replace(trial, keeper=keep)), keep)) as records:
            for record in records:
                yield from _news(trial, told, keep)
                yield Epoch(trial, record)
    except CheckpointError:
        raise
    except Diverged as divergence:
        outcome, detail = Outcome.DIVERGED, divergence.where
    except Exception as error:
        if pass_on(error):
            raise
        outcome, detail = Outcome.FAILED, _told(error)
    yield from _news(trial, told, keep)
    yield Ended(trial, outcome, detail, _now())


def _told(error: Exception) -> str:
    """Say what a training loop has raised: in one line, with the traceback below."""
    first = traceback.format_exception_only(error)[-1].partition("\n")[0]
    return f"{first}\n{''.join(traceback.format_exception(error))}"


def _news(trial: Trial, told: dict[str, str], keep: TrialCheckpoints | None) -> Iterator[Warned | Fingerprinted]:
    """Tell what is wrong with checkpoints, once, and a trial's fingerprints if they are not those told already."""
    if keep is not None and keep.warning:
        yield Warned(trial, keep.warning)
        keep.warning = ""
    if trial.fingerprints != told:
        told.update(trial.fingerprints)
        yield Fingerprinted(trial, dict(told))


def _records(
    trial: Trial, epochs: Iterator[Mapping[str, float]], keep: TrialCheckpoints | None
) -> Generator[EpochRecord, None, None]:
    """Number and check what a training loop yields, behind what it had yielded when it was saved.

    Raises:
        Diverged: a loss is not finite.
        TypeError, ValueError: it is no record, or there are none, or too many.
    """
    told: list[EpochRecord] = keep.records if keep is not None else []
    epoch = 0
    with closing(_as_generator(epochs)) as yielded:
        try:
            for metrics in yielded:
                yield from told[epoch:]
                epoch = len(told) + 1
                told.append(EpochRecord(trial.arm, trial.seed, epoch, _checked(metrics, epoch, trial.epochs)))
                yield told[-1]
        except Exception:
            yield from told[epoch:]  # what was loaded stands, whatever came after
            raise
    yield from told[epoch:]
    if not told:
        raise ValueError("the training loop yielded nothing")


def _as_generator(epochs: Iterator[Mapping[str, float]]) -> Generator[Mapping[str, float], None, None]:
    """Give any iterator the close method that generators have."""
    yield from epochs


def _checked(metrics: Mapping[str, float], epoch: int, epochs: int) -> dict[str, float]:
    """Check one epoch's metrics.

    Raises:
        Diverged: a loss is not finite.
        TypeError, ValueError: not a mapping from names to numbers, or one epoch too many.
    """
    if epoch > epochs:
        raise ValueError(f"the training loop yielded more than its {epochs} epochs")
    if not isinstance(metrics, Mapping):
        raise TypeError(f"a training loop must yield a dict of metrics, not {type(metrics).__name__}")
    checked = {str(name): float(value) for name, value in metrics.items()}
    if not checked:
        raise ValueError(f"the training loop yielded an empty record in epoch {epoch}")
    for name, value in checked.items():
        if name.endswith("_acc") and not 0 <= value <= 1:
            raise ValueError(f"{name} = {value} in epoch {epoch}: accuracies are fractions, from 0 to 1")
        if (name == "loss" or name.endswith("_loss")) and not math.isfinite(value):
            raise Diverged(f"{name} is {value} after epoch {epoch}")
    return checked


def _now() -> datetime:
    return datetime.now(UTC)
