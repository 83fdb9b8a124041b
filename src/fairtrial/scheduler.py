"""Which trials a study needs next: all of them, or seed by seed until every verdict is settled. Pure."""

import heapq
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fairtrial.spec import Study
from fairtrial.trial import Trial, TrialResult

#: Tells which arms need no further seeds, from the results of the seeds so far: in the order of the plan, whole seeds
#: only, and of an arm that has stopped no more than the seeds that it had then. It must depend on nothing else.
StoppingRule: TypeAlias = Callable[[Study, Sequence[TrialResult]], Collection[str]]


@dataclass(frozen=True)
class Decision:
    """What follows from the trials that have ended by now.

    Attributes:
        trials: trials that are wanted now and were not before, in the order of the plan.
        stopped: arms that get no further seeds from now on, with the number of seeds that they have. The reference is
            among them once no other arm goes on.
    """

    trials: tuple[Trial, ...]
    stopped: dict[str, int]


class Scheduler:
    """Follows a study from seed to seed.

    A study with a fixed number of seeds wants all its trials at once. A sequential one wants `Study.min_seeds` seeds of
    every arm; whenever all trials that are wanted have ended, it asks which arms are settled, and then wants one more
    seed of the others and of the reference. A trial that failed or diverged has ended.

    What is decided follows from the results of whole seeds, seed by seed. It does not matter which trial ended first,
    how many ran at a time, or what the store knows beyond the wanted trials. The next seed never starts before the last
    one is complete: starting the reference's early would keep a second worker busy, but train one trial for nothing at
    the end of most studies, and which trials a study has would depend on the number of workers.

    Args:
        study: the study.
        settled: who decides; without it no arm stops early.

    Attributes:
        study: the study.
        planned: all trials that it may come to, in order.
    """

    def __init__(self, study: Study, settled: StoppingRule | None = None) -> None:
        self.study = study
        self._settled = settled
        self.planned = plan(study)
        self._seeds = study.min_seeds if settled else study.seeds
        self._stopped: dict[str, int] = {}
        self._asked_for: set[str] = set()
        self._new: list[Trial] = []
        self._open: deque[Trial] = deque()
        self._ask_for_more()

    @property
    def possible(self) -> tuple[Trial, ...]:
        """All trials that the study can still come to or has had, in the order of the plan."""
        return self._below(self.study.seeds)

    def advance(self, ended: Collection[str], results: Callable[[], Sequence[TrialResult]]) -> Decision:
        """Take note of the trials that have ended, and decide what there is to decide.

        Args:
            ended: hashes of the trials that have ended, whatever their outcome.
            results: reads the study's results; called only when a seed is complete.
        """
        stopped: dict[str, int] = {}
        while self._complete(ended) and self._seeds < self.study.seeds and not self._over:
            stopped |= self._look(results())
            if not self._over:
                self._seeds += 1
                self._ask_for_more()
        new, self._new = self._new, []
        return Decision(tuple(trial for trial in new if trial.hash not in ended), stopped)

    def _ask_for_more(self) -> None:
        """Take up the trials that are wanted now and were not before."""
        new = [trial for trial in self._below(self._seeds) if trial.hash not in self._asked_for]
        self._asked_for.update(trial.hash for trial in new)
        self._new += new
        self._open.extend(new)

    @property
    def _over(self) -> bool:
        return self.study.reference in self._stopped

    def _complete(self, ended: Collection[str]) -> bool:
        """Tell whether all that was asked for has ended; each trial is passed once, however often this is asked."""
        while self._open and self._open[0].hash in ended:
            self._open.popleft()
        return not self._open

    def _below(self, seeds: int) -> tuple[Trial, ...]:
        """The trials of the seeds below a number, without those that stopped arms are spared."""
        return tuple(trial for trial in self.planned if trial.seed < min(seeds, self._stopped.get(trial.arm, seeds)))

    def _look(self, results: Sequence[TrialResult]) -> dict[str, int]:
        """Ask which arms are settled by the seeds so far, and stop them."""
        assert self._settled is not None
        known = {trial.hash for trial in self._below(self._seeds)}
        settled = self._settled(self.study, [result for result in results if result.trial in known])
        others = [arm.name for arm in self.study.arms if arm.name != self.study.reference]
        stopped = {arm: self._seeds for arm in others if arm in settled and arm not in self._stopped}
        if all(arm in {*stopped, *self._stopped} for arm in others):
            stopped[self.study.reference] = self._seeds
        self._stopped |= stopped
        return stopped


def plan(study: Study) -> tuple[Trial, ...]:
    """List a study's trials so that whole seeds finish first.

    A study that is cut short then still compares all arms on the seeds it has: three arms at two seeds say more than
    one arm at five and another at one.

    Args:
        study: the study; arms keep its order.

    Returns:
        ``seeds * len(arms)`` trials; of a sequential study all that it may come to.
    """
    return tuple(
        Trial(arm.name, seed, arm.settings, noise=_noise(study, seed))
        for seed in range(study.seeds)
        for arm in study.arms
    )


def _noise(study: Study, seed: int) -> tuple[int, int] | None:
    """Tell the seeds of weights and order; None where both are the seed, so that plain studies share such trials."""
    seeds = study.noise.of(seed)
    return None if seeds == (seed, seed) else seeds


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Tell how long a list of jobs takes when each goes, in order, to the worker that is free first.

    Args:
        seconds: the duration of each job.
        workers: how many run at a time.

    Returns:
        Seconds until the last job ends; 0 without jobs.
    """
    free_at = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)
