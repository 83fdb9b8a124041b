"""Who is told what happens while a study runs."""

from collections.abc import Mapping, Sequence

from fairtrial.executors.slots import Slots
from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial


class Callback:
    """Told what happens while a study runs. Does nothing; override what you want to see."""

    def fetching(self, done: int, total: int | None, what: str) -> None:
        """Data are being fetched: bytes done, bytes in all if known, and what it is."""

    def planned(self, study: Study, trials: Sequence[Trial], missing: Sequence[Trial]) -> None:
        """A study is about to run: all its trials, and those that are still to be trained; both at most."""

    def staffed(self, slots: Slots) -> None:
        """Trials are about to run on this machine: how many side by side, and with how many threads each."""

    def started(self, trial: Trial, machine: Machine) -> None:
        """A trial has begun."""

    def progressed(self, trial: Trial, batch: int, batches: int, metrics: Mapping[str, float]) -> None:
        """A trial is at a batch of its current epoch."""

    def epoch(self, trial: Trial, record: EpochRecord) -> None:
        """An epoch record is in the store."""

    def ended(self, trial: Trial, outcome: Outcome, detail: str) -> None:
        """A trial's outcome is in the store."""

    def warned(self, trial: Trial, text: str) -> None:
        """Something about a trial that changes no result, such as a damaged checkpoint that was passed over."""

    def stopped(self, study: Study, arm: str, seeds: int) -> None:
        """An arm of a sequential study gets no further seeds.

        Its verdict is settled by this many; or it can't be, because too many of its trials, or of the reference's,
        diverged or failed or share no fingerprints; or it is the reference, and no other arm goes on.
        """
