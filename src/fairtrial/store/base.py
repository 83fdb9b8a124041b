"""The contract of stores.

A store keeps studies, trials and epoch records. It promises:

* One writer. Only the conductor writes, and `Store.hold` keeps a second one of the same study away. Readers see whole
  transactions, also while it writes.
* Nothing lost, nothing doubled. When a method returns, what it was told is on the disk; within `Store.together`, when
  that ends. A connection that was lost is made again for a while, also in the middle of a commit.
* Threads. Any may use the store; `Store.together` is about the calls of one.
* Trials by content. A trial is known by its hash. Studies that share a trial share its record.
* Attempts. Beginning a trial again keeps the records of the attempt before until new ones take their place; when a
  trial ends, only records of its last attempt remain. Fingerprints of the attempt before are forgotten at once. What an
  attempt that was superseded still says is refused.
* Order. Results come in the order of the study's plan, epoch records by rising epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialResult


@dataclass(frozen=True)
class StoredStudy:
    """A study in a store, and how far it is.

    Attributes:
        name: the study's name.
        hash: its content hash.
        toml: the study itself, every default spelt out.
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
    """Writes within one transaction; see `Store.write`. Attempts are named by whoever runs them."""

    def begin(self, trial: Trial, attempt: str, machine: Machine, at: datetime, forced: str = "") -> None:
        """Record that an attempt at a trial begins."""

    def add_epoch(self, trial: Trial, attempt: str, record: EpochRecord) -> None:
        """Record an epoch of an attempt."""

    def add_fingerprints(self, trial: Trial, attempt: str, fingerprints: Mapping[str, str]) -> None:
        """Record an attempt's fingerprints."""

    def end(self, trial: Trial, attempt: str, outcome: Outcome, detail: str, at: datetime) -> None:
        """Record how an attempt ended."""


class Store(AbstractContextManager["Store"], Protocol):
    """Keeps what was planned and what came of it. Leaving the context closes it."""

    @property
    def beside(self) -> str:
        """Path beside which files of a run may lie: the database's own, or a name in the working folder."""

    def lock(self, study: Study) -> AbstractContextManager[None]:
        """Lock a study against a second run in this store; see `hold`."""

    def write(self, work: Callable[[Writer], object]) -> None:
        """Make one transaction of what `work` writes."""

    def hold(self, study: Study) -> AbstractContextManager[None]:
        """Keep other runs of this study in this store away, within a context; the hold dies with its process.

        Raises:
            StoreHeldError: another run has it; the message says whose. Nothing is waited for.
        """

    def together(self) -> AbstractContextManager[None]:
        """Make one transaction of all writing calls of this thread within a context; an exception undoes them all.

        Reading calls within it see what was written. A call that is refused with a `StoreError` of its own has done
        nothing, and the others stand; after an error of the database the context can only fail.

        Raises:
            RuntimeError: this thread is within such a context already.
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
            source: the file's path or the shipped name that it was read from. One that is given takes the place of the
                one before, and so do the overrides with it; without one, both stay.
            assignments: the ``KEY=VALUE`` overrides that it was read with.
        """

    def studies(self) -> list[StoredStudy]:
        """List all studies, the one that ran last first."""

    def outcomes(self, trials: Sequence[Trial]) -> dict[str, Outcome | None]:
        """Look up by hash how trials ended; None for those that did not. Unknown ones are left out."""

    def begin(self, trial: Trial, machine: Machine, at: datetime) -> int:
        """Record that a trial begins, and return the number of this attempt, from 1."""

    def add_epoch(self, trial: Trial, attempt: int, record: EpochRecord) -> None:
        """Record an epoch of an attempt; a `StoreError` if another attempt has begun since."""

    def add_fingerprints(self, trial: Trial, attempt: int, fingerprints: Mapping[str, str]) -> None:
        """Record an attempt's fingerprints in place of those it had; errors as `add_epoch`'s."""

    def end(self, trial: Trial, attempt: int, outcome: Outcome, detail: str, at: datetime) -> None:
        """Record how an attempt ended, and drop what earlier ones left behind; errors as `add_epoch`'s."""

    def results(self, study: Study) -> list[TrialResult]:
        """Read what is known of a study's trials; those that never began are left out.

        The study itself need not be in the store: others may have trained some of its trials.
        """
