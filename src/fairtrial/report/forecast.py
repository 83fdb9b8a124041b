"""How much of a study's work is done, and how long the rest will take."""

from collections.abc import Iterable
from dataclasses import dataclass

from fairtrial.scheduler import makespan
from fairtrial.trial import Trial

#: Epochs or seconds of training that must have been timed before there is an estimate.
ENOUGH_EPOCHS, ENOUGH_SECONDS = 1.0, 3.0

#: Least rest of a running trial, in epochs: after its last batch it is evaluated.
LEAST_REST = 0.05


class Forecast:
    """Estimates the time that is left from the pace so far, for trials one after another or side by side.

    Work is counted in epochs, parts of an epoch by their batches. The pace is that of one trial: seconds over epochs,
    both counted from a trial's first report, so that neither its start-up nor the epochs restored from a checkpoint
    count as training. Start-up is counted separately, once for each trial that has not begun. The rest is assigned to
    workers as an executor does it, in order, each trial to the first free worker; so a last trial alone is accounted
    for. Every ``now`` is in seconds, by one clock.
    """

    def __init__(self, trials: Iterable[Trial] = (), workers: int = 1) -> None:
        self.workers = workers
        self._waiting = {trial.hash: float(trial.epochs) for trial in trials}
        self._total = sum(self._waiting.values())
        self._running: dict[str, _Timing] = {}
        self._ended: list[_Timing] = []

    @property
    def fraction(self) -> float:
        """Share of the work that is done, from 0 to 1."""
        done = sum(trial.epochs for trial in self._ended) + sum(trial.done for trial in self._running.values())
        return min(1.0, done / self._total) if self._total else 1.0

    def seconds_left(self, now: float) -> float | None:
        """Estimate the seconds that are left; None while too little has been timed."""
        pace = self._pace(now)
        if pace is None:
            return None
        starts = [trial.start_up(pace) for trial in (*self._ended, *self._running.values()) if trial.fresh]
        start_up = sum(starts) / len(starts) if starts else 0.0
        left = []
        for trial in self._running.values():
            begins = max(0.0, start_up - (now - trial.began)) if trial.first is None else 0.0
            left.append(begins + pace * max(LEAST_REST, trial.epochs - trial.done))
        left += [start_up + pace * epochs for epochs in self._waiting.values()]
        return makespan(left, max(self.workers, len(self._running)))

    def began(self, trial: Trial, now: float) -> None:
        """Note that a trial has begun."""
        self._waiting.pop(trial.hash, None)
        self._running[trial.hash] = _Timing(float(trial.epochs), now)

    def reached(self, trial: Trial, epochs: float, now: float) -> None:
        """Note how many epochs of a running trial are done."""
        if (running := self._running.get(trial.hash)) is not None:
            running.done = epochs
            running.first = running.first or (now, epochs)

    def cancel(self, trial: Trial) -> None:
        """Note that a waiting trial will not run."""
        self._total -= self._waiting.pop(trial.hash, 0.0)

    def ended(self, trial: Trial, now: float) -> None:
        """Note that a trial needs no more work, whether it did all its epochs or not; it may have begun elsewhere."""
        self.cancel(trial)
        if (ended := self._running.pop(trial.hash, None)) is not None:
            ended.end = now
            self._ended.append(ended)

    def _pace(self, now: float) -> float | None:
        """Seconds per epoch; None if too little has been timed."""
        timed = [trial for trial in (*self._ended, *self._running.values()) if trial.first is not None]
        epochs = sum(trial.trained for trial in timed)
        seconds = sum(trial.seconds(now) for trial in timed)
        if epochs > 0 and (epochs >= ENOUGH_EPOCHS or seconds >= ENOUGH_SECONDS):
            return seconds / epochs
        # Of a loop that reports once per trial, only whole trials can be timed.
        whole = [trial for trial in self._ended if trial.fresh and trial.done and not trial.trained]
        return sum(each.end - each.began for each in whole) / sum(each.done for each in whole) if whole else None


@dataclass
class _Timing:
    """Epochs of a trial, when it began, epochs done, time and epochs of its first report, and when it ended."""

    epochs: float
    began: float
    done: float = 0.0
    first: tuple[float, float] | None = None
    end: float = 0.0

    @property
    def fresh(self) -> bool:
        """Whether it began with its first epoch, not from a checkpoint, as far as is known."""
        return self.first is not None and self.first[1] <= 1.0

    @property
    def trained(self) -> float:  # since its first report
        return self.done - self.first[1] if self.first else 0.0

    def seconds(self, now: float) -> float:  # likewise
        return (self.end or now) - self.first[0] if self.first else 0.0

    def start_up(self, pace: float) -> float:
        """Seconds before its first epoch: what its first report took beyond the pace."""
        return max(0.0, self.first[0] - self.began - pace * self.first[1]) if self.first else 0.0
