"""The contract of stores.

A store keeps studies, trials and epoch records. It promises:

* One writer. Only the runner writes, and `Store.lock` refuses a second run of the same study. Readers see whole
  transactions, also while it writes.
* Nothing lost, nothing doubled. When `Store.write` or `Store.add_study` returns, what was written is on the disk. A
  transaction whose connection was lost, even during its commit, is retried on a new connection for a while.
* Threads. Any thread may use the store.
* Trials by content. A trial is known by its hash. Studies that share a trial share its record.
* Attempts. A new attempt at a trial keeps the epoch records of the one before until it replaces them; when a trial
  ends, only records of its last attempt remain. The same is true of snapshots. Fingerprints of the attempt before are
  dropped at once. Reports of an attempt that was superseded are refused.
* Stages. What each study asks of its trials is registered when it runs, once, with what had ended by then. A stage
  never changes, and neither does which stages came before it.
* Damage. What was written has checksums. Where a record, a study or a stage is not what was written, or is lost,
  reading it is a `StoreDamagedError` that names it.
* Order. Results come in the order of the study's plan, epoch records by rising epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from fairtrial.history import History
from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, Snapshot, Trial, TrialResult

T = TypeVar("T")


@dataclass(frozen=True)
class StoredStudy:
    """A study in a store, and its progress.

    Attributes:
        name: the study's name.
        hash: its content hash.
        toml: the study itself, every default spelled out.
        last_run: when it was last run, in UTC.
        trials: how many trials it plans.
        outcomes: how many of them have ended, by outcome.
        started: how many have begun but not ended: they are running, or were interrupted.
        source: path of the file or name of the shipped study that it was read from; None if unknown.
        assignments: the ``KEY=VALUE`` overrides that it was read with.
        damage: what is damaged of its plan or its trials, which are then not counted; empty if nothing is.
    """

    name: str
    hash: str
    toml: str
    last_run: datetime
    trials: int
    outcomes: Mapping[Outcome, int]
    started: int
    source: str | None = None
    assignments: tuple[str, ...] = ()
    damage: str = ""

    @property
    def label(self) -> str:
        """The study's name with the head of its hash, as `Study.label`."""
        return f"{self.name}@{self.hash[:8]}"


class Writer(Protocol):
    """Writes what happens to trials, within one transaction of `Store.write`.

    The caller gives each attempt at a trial a random id. A call repeated with the same arguments changes nothing.

    Raises:
        StoreError: the trial is not in the store, has not begun, or another process has restarted it; the message says
            which. The whole transaction is undone.
    """

    def begin(self, trial: Trial, attempt: str, machine: Machine, at: datetime, forced: str = "") -> None:
        """Record that an attempt at a trial begins; it supersedes the one before.

        ``forced`` says what differs from the study's earlier trials, where the user chose to continue all the same.
        """

    def add_epoch(self, trial: Trial, attempt: str, record: EpochRecord) -> None:
        """Record an epoch of the current attempt; its metrics are any numbers by name, NaN and infinities included."""

    def add_fingerprints(self, trial: Trial, attempt: str, fingerprints: Mapping[str, str]) -> None:
        """Record the current attempt's fingerprints in place of those it had."""

    def add_snapshot(self, trial: Trial, attempt: str, snapshot: Snapshot) -> None:
        """Record a snapshot of the current attempt."""

    def end(
        self,
        trial: Trial,
        attempt: str,
        outcome: Outcome,
        detail: str,
        at: datetime,
        *,
        reads: Sequence[str] | None = None,
    ) -> None:
        """Record how the current attempt ended and what it read of its settings; drop records of earlier attempts."""


def add_result(writer: Writer, trial: Trial, result: TrialResult, attempt: str) -> None:
    """Write all of a trial that ended elsewhere, as one attempt."""
    assert result.outcome is not None
    writer.begin(trial, attempt, result.machine, result.started, result.forced)
    if result.fingerprints:
        writer.add_fingerprints(trial, attempt, result.fingerprints)
    for record in result.epochs:
        writer.add_epoch(trial, attempt, record)
    for snapshot in result.snapshots:
        writer.add_snapshot(trial, attempt, snapshot)
    writer.end(trial, attempt, result.outcome, result.detail, result.ended or result.started, reads=result.reads)


class Store(AbstractContextManager["Store"], Protocol):
    """Keeps studies and their results. Leaving the context closes it."""

    @property
    def beside(self) -> str:
        """Path to which suffixes are added for files of a run: the database's own, or a name in the working folder."""

    def lock(self, study: Study) -> AbstractContextManager[None]:
        """Lock a study in this store against other runs, within a context; the lock dies with its process.

        Raises:
            StoreLockedError: another run has locked it; the message says which. Nothing is waited for.
        """

    def write(self, work: Callable[[Writer], T]) -> T:
        """Run a function that writes, as one transaction, and return its result; an exception undoes all of it.

        Args:
            work: called with a `Writer`, again after a lost connection. It must not use the store itself, and must not
                catch the database's errors.
        """

    def add_study(self, study: Study, at: datetime) -> None:
        """Record that a study runs, at a time with its zone, and add the trials of its plan that are not there yet.

        It is registered, too; see `register`. Its `Origin` replaces the earlier one if it names a source.
        """

    def register(self, study: Study, at: datetime) -> None:
        """Register what a study that is in the store asks, unless it has a stage already.

        A stage that another one was registered after before its own first look was complete has no number in the order
        of looks; it is registered anew.
        """

    def history(self, study: Study) -> History:
        """Read what was asked of a study's trials, and when; of a study that was never run, as if it were run now."""

    def trained_elsewhere(self, study: Study) -> dict[str, str]:
        """Return which trials of a study that was added other runs have, or will train: by hash, with a study's label.

        Of the living runs of studies that share a trial, the one that was added first trains it.
        """

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Return by hash how trials ended, None for those that have not. Unknown trials are left out."""

    def results(self, study: Study) -> list[TrialResult]:
        """Read the results of a study's trials; those that never began are left out.

        The study itself need not be in the store: other studies may have trained some of its trials. Snapshots are left
        out, which can be a hundred times as much as all else.
        """

    def snapshots(self, trials: Sequence[str], *, tensors: bool = True) -> dict[str, tuple[Snapshot, ...]]:
        """Read the snapshots of trials, by the trial's hash, those that have any; see `TrialResult.snapshots`.

        Without ``tensors``, the statistics of single tensors are left out.
        """
