"""Writes the messages of trials to the store, and tells callbacks of them."""

from collections.abc import Sequence
from typing import TypeAlias

from fairtrial.callbacks import Callback
from fairtrial.executors.base import Ended, EpochFinished, Fingerprinted, Message, SnapshotTaken, Started, Warned
from fairtrial.failpoints import failpoint
from fairtrial.store.base import Writer
from fairtrial.trial import Trial

#: A message that is not in the store yet, its trial and attempt, and what the user has forced.
Received: TypeAlias = tuple[Message, Trial, str, str]


def write(received: Sequence[Received], writer: Writer) -> None:
    """Write messages in one transaction, which may be run again if its connection is lost."""
    for message, trial, attempt, forced in received:
        match message:
            case Started(_, machine, at):
                writer.begin(trial, attempt, machine, at, forced)
            case Fingerprinted(_, fingerprints):
                writer.add_fingerprints(trial, attempt, fingerprints)
            case SnapshotTaken(_, snapshot):
                writer.add_snapshot(trial, attempt, snapshot)
            case EpochFinished(_, record):
                writer.add_epoch(trial, attempt, record)
            case Ended(_, outcome, detail, at, reads):
                writer.end(trial, attempt, outcome, detail, at, reads=reads)
    failpoint("runner.written")


def report(message: Message, trial: Trial, callback: Callback) -> None:
    """Tell a callback of a message that is in the store."""
    match message:
        case Started(_, machine, _):
            callback.on_trial_start(trial, machine)
        case EpochFinished(_, record):
            callback.on_epoch(trial, record)
        case Ended(_, outcome, detail, _):
            callback.on_trial_end(trial, outcome, detail)
        case Warned(_, text):
            callback.on_warning(trial, text)
