"""The contract of stores.

A store keeps studies, trials and epoch records. It promises:

* One writer. Only the runner writes, and `Store.lock` keeps a second run of the same study away. Readers see whole
  transactions, also while it writes.
* Nothing lost, nothing doubled. When `Store.write` or `Store.add_study` returns, what was written is on the disk. After
  a lost connection a transaction is run again on a new one for a while, also when it was lost while it committed.
* Threads. Any may use the store.
* Trials by content. A trial is known by its hash. Studies that share a trial share its record.
* Attempts. Beginning a trial again keeps the records of the attempt before until new ones take their place; when a
  trial ends, only records of its last attempt remain. Fingerprints of the attempt before are forgotten at once. What an
  attempt that was superseded still reports is refused.
* Order. Results come in the order of the study's plan, epoch records by rising epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialResult

T = TypeVar("T")


@dataclass(frozen=True)
class StoredStudy:
    """A study in a store, and how far it is.

    Attributes:
        name: the study's name.
        hash: its content hash.
        toml: the study itself, every default spelled out.
        last_run: when it was last run, in UTC.
        trials: how many trials it plans.
        outcomes: how many of them have ended, by outcome.
        started: how many have begun but not ended: they run now, or were interrupted.
        source: the file's path or the shipped name that it was read from; None if nobody said.
        assignments: the ``KEY=VALUE`` overrides that it was read with.
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

    @property
    def label(self) -> str:
        """The study's name with the head of its hash, as `Study.label`."""
        return f"{self.name}@{self.hash[:8]}"


class Writer(Protocol):
    """Writes what happens to trials, within one transaction of `Store.write`.

    An attempt at a trial is known by a random id that its caller makes. All methods may be called again with the same
    arguments, to the same effect.

    Raises:
        StoreError: the trial is not in the store, has not begun, or another process has restarted it: the message says
            which. The whole transaction is undone.
    """

    def begin(self, trial: Trial, attempt: str, machine: Machine, at: datetime, forced: str = "") -> None:
        """Record that an attempt at a trial begins; it supersedes the one before.

        Args:
            trial: the trial.
            attempt: the attempt's id.
            machine: where it runs.
            at: when.
            forced: what differs from the study's trials before, where the user chose to continue all the same.
        """

    def add_epoch(self, trial: Trial, attempt: str, record: EpochRecord) -> None:
        """Record an epoch of the current attempt; its metrics are any numbers by name, NaN and infinities included."""

    def add_fingerprints(self, trial: Trial, attempt: str, fingerprints: Mapping[str, str]) -> None:
        """Record the current attempt's fingerprints in place of those it had."""

    def end(self, trial: Trial, attempt: str, outcome: Outcome, detail: str, at: datetime) -> None:
        """Record how the current attempt ended, and drop the records that earlier ones left behind."""


class Store(AbstractContextManager["Store"], Protocol):
    """Keeps what was planned and what came of it. Leaving the context closes it."""

    @property
    def beside(self) -> str:
        """Path beside which files of a run may lie: the database's own, or a name in the working folder."""

    def lock(self, study: Study) -> AbstractContextManager[None]:
        """Lock a study in this store against other runs, within a context; the lock dies with its process.

        Raises:
            StoreLockedError: another run has it; the message says whose. Nothing is waited for.
        """

    def write(self, work: Callable[[Writer], T]) -> T:
        """Run a function that writes, as one transaction; an exception undoes all of it.

        Args:
            work: called with a `Writer`; may be called again after a lost connection. It must not use the store itself,
                and must let the database's errors pass.

        Returns:
            What ``work`` returned.
        """

    def add_study(
        self,
        study: Study,
        trials: Sequence[Trial],
        at: datetime,
        *,
        source: str | None = None,
        assignments: Sequence[str] | None = None,
    ) -> None:
        """Record that a study runs, with its planned trials; known ones are left as they are.

        Args:
            study: the study.
            trials: its plan.
            at: when.
            source: the file's path or the shipped name that it was read from. If given, it replaces the one before,
                and so do the overrides with it; without one, both stay.
            assignments: the ``KEY=VALUE`` overrides that it was read with.
        """

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Look up by hash how trials ended; None for those that did not. Unknown ones are left out."""

    def results(self, study: Study) -> list[TrialResult]:
        """Read what is known of a study's trials; those that never began are left out.

        The study itself need not be in the store: others may have trained some of its trials.
        """
