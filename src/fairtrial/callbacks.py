"""Callbacks: called while a study runs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fairtrial.executors.slots import Slots
from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial

if TYPE_CHECKING:
    from fairtrial.results import StudyResults


class Callback:
    """Called while a study runs. Does nothing; override the methods that you need."""

    def on_download(self, done: int, total: int | None, what: str) -> None:
        """Data are being downloaded: bytes done, bytes in all (above 0; None if unknown), and what it is."""

    def on_plan(self, study: Study, trials: Sequence[Trial], missing: Sequence[Trial]) -> None:
        """A study is about to run: all trials that it may come to, and those that are still to be trained."""

    def on_workers(self, slots: Slots) -> None:
        """Trials are about to run on this machine: how many side by side, and with how many threads each."""

    def on_trial_start(self, trial: Trial, machine: Machine) -> None:
        """A trial has started."""

    def on_progress(self, trial: Trial, batch: int, batches: int, metrics: Mapping[str, float]) -> None:
        """A trial is at a batch of its current epoch."""

    def on_epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch record is in the store."""

    def on_trial_end(self, trial: Trial, outcome: Outcome, detail: str) -> None:
        """A trial's outcome is in the store; where the run of another study has trained it, it did not start here."""

    def on_warning(self, trial: Trial | None, text: str) -> None:
        """Something that changes no result, such as a damaged checkpoint that was skipped; None for the whole study."""

    def on_arm_stopped(self, study: Study, arm: str, seeds: int, reason: str) -> None:
        """An arm of a sequential study gets no further seeds.

        Its verdict is settled after this many seeds; or it can't be, because too many of its or the reference's trials
        diverged, failed or share no fingerprints; or it is the reference, and no other arm continues.
        """

    def on_results(self, runs: "StudyResults") -> None:
        """A call of `fairtrial.run` has trained all that was missing: its results, which know their verdicts."""

    def on_close(self) -> None:
        """A call of `fairtrial.run` is over, also if an error or Ctrl-C ended it; nothing is called after this."""


@contextmanager
def closing(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Tell callbacks when a call is over, whatever ended it."""
    try:
        yield
    finally:
        for callback in callbacks:
            callback.on_close()
