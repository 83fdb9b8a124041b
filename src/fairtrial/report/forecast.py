"""How much of a study's work is done, and how long the rest will take."""

from collections.abc import Iterable

from fairtrial.scheduler import makespan
from fairtrial.trial import Trial


class Forecast:
    """Judges the time that is left by the pace so far, for trials that run one after another or side by side.

    Work is counted in epochs, parts of an epoch by their batches. The pace is that of one trial: seconds that trials
    have been running, over epochs that they have done. What is left is dealt out to the workers as an executor does
    it, in order, each trial to the worker that is free first; so it is known that the last trial runs alone.

    Args:
        trials: what is to be trained, in the order in which it will be.
        workers: how many trials run side by side.

    Example:
        >>> forecast = Forecast([first, second, third], workers=2)  # doctest: +SKIP
        >>> forecast.began(first, now=0.0)                          # doctest: +SKIP
        >>> forecast.at(first, epochs=0.5)                          # doctest: +SKIP
        >>> forecast.seconds_left(now=30.0)                         # doctest: +SKIP
    """

    def __init__(self, trials: Iterable[Trial] = (), workers: int = 1) -> None:
        self.workers = workers
        self._waiting = {trial.hash: float(trial.epochs) for trial in trials}
        self._total = sum(self._waiting.values())
        self._running: dict[str, _Running] = {}
        self._closed = 0.0  # epochs of ended trials, done or not: no more work
        self._done = 0.0  # epochs that ended trials have done
        self._seconds = 0.0  # how long ended trials have run

    @property
    def fraction(self) -> float:
        """Share of the work that is done, from 0 to 1."""
        done = self._closed + sum(trial.done for trial in self._running.values())
        return min(1.0, done / self._total) if self._total else 1.0

    def seconds_left(self, now: float) -> float | None:
        """Estimate the seconds that are left; None while there is nothing to judge by.

        Args:
            now: in seconds, by the clock that `began` and `ended` are told.
        """
        running = self._running.values()
        epochs = self._done + sum(trial.done for trial in running)
        if epochs == 0:
            return None
        pace = (self._seconds + sum(now - trial.began for trial in running)) / epochs
        left = [max(0.0, trial.epochs - trial.done) for trial in running] + [*self._waiting.values()]
        return pace * makespan(left, max(self.workers, len(running)))

    def began(self, trial: Trial, now: float) -> None:
        """Note that a trial has begun."""
        self._waiting.pop(trial.hash, None)
        self._running[trial.hash] = _Running(float(trial.epochs), now)

    def at(self, trial: Trial, epochs: float) -> None:
        """Note how many epochs of a running trial are done."""
        if trial.hash in self._running:
            self._running[trial.hash].done = epochs

    def spare(self, trial: Trial) -> None:
        """Note that a trial that waits will not be run."""
        self._total -= self._waiting.pop(trial.hash, 0.0)

    def ended(self, trial: Trial, now: float) -> None:
        """Note that a trial needs no more work, whether it did all its epochs or not."""
        ended = self._running.pop(trial.hash, None)
        if ended is not None:
            self._closed += ended.epochs
            self._done += ended.done
            self._seconds += now - ended.began


class _Running:
    """A trial that runs: epochs to do, when it began, and epochs done."""

    def __init__(self, epochs: float, began: float) -> None:
        self.epochs = epochs
        self.began = began
        self.done = 0.0
