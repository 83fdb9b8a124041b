"""Schedules trials: all of a study at once, or seed by seed until every verdict is settled."""

import heapq
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from fairtrial.spec import Study
from fairtrial.trial import Trial, TrialResult

#: By how much the seeds of noise of an A/A arm are above those of the other arms: more than any study has.
AA_SEEDS = 1_000_000

#: Finds the arms that need no further seeds, with the reason, from the results of the seeds so far: in the order of the
#: plan, whole seeds only, and of an arm that has stopped no more than the seeds that it had then. It must depend on
#: nothing else. The results of a call begin with those of the call before, so that a rule need not begin anew.
StoppingRule: TypeAlias = Callable[[Study, Sequence[TrialResult]], Mapping[str, str]]


class StoppedArm(NamedTuple):
    """An arm that gets no further seeds, with the number of seeds that it has, and the reason."""

    arm: str
    seeds: int
    reason: str


@dataclass(frozen=True)
class Decision:
    """What follows from the trials that have ended: those to run next, in the order of the plan, and arms that stop."""

    trials: tuple[Trial, ...]
    stopped: tuple[StoppedArm, ...]


class Scheduler:
    """Schedules the trials of a study.

    A study with a fixed number of seeds wants all its trials at once. A sequential one wants `Study.min_seeds` seeds of
    every arm; when all of these trials have ended, it applies the stopping rule, and then wants one more seed of the
    other arms and of the reference, which stops with the last of them. A trial that failed or diverged has ended.

    Decisions follow from the results of whole seeds, seed by seed: not from the order in which trials end, how many run
    at a time, or what else the store contains. The next seed never starts before the last one is complete: starting the
    reference's early would occupy a second worker, but train one trial for nothing at the end of most studies, and make
    a study's trials depend on the number of workers. Without a rule no arm stops early.
    """

    def __init__(self, study: Study, rule: StoppingRule | None = None) -> None:
        self.study = study
        self.planned = plan(study)  # all trials that the study may need
        self._rule = rule
        self._seeds = 0
        self._stopped: dict[str, int] = {}
        self._running: deque[Trial] = deque()
        self._newest: Sequence[Trial] = ()  # the trials of the newest seeds
        self._results: list[TrialResult] = []  # of the seeds before them

    @property
    def possible(self) -> tuple[Trial, ...]:
        """All trials that the study has had or may still need, in the order of the plan."""
        return self._below(self.study.seeds)

    def advance(self, ended: Collection[str], results: Callable[[], Sequence[TrialResult]]) -> Decision:
        """Decide what follows from the trials that have ended, by hash; ``results`` is called only between seeds."""
        new: list[Trial] = []
        stopped: list[StoppedArm] = []
        known: dict[str, TrialResult] | None = None
        while self._complete(ended) and self._seeds < self.study.seeds and self.study.reference not in self._stopped:
            if self._seeds and self._rule:
                known = {result.trial: result for result in results()} if known is None else known
                self._results += [known[trial.hash] for trial in self._newest if trial.hash in known]
                stopped += self._stop(self._rule)
            if self.study.reference not in self._stopped:
                new += self._next_seeds()
        return Decision(tuple(trial for trial in new if trial.hash not in ended), tuple(stopped))

    def _complete(self, ended: Collection[str]) -> bool:
        """Whether all wanted trials have ended; looks at each of them once, however often it is called."""
        while self._running and self._running[0].hash in ended:
            self._running.popleft()
        return not self._running

    def _next_seeds(self) -> list[Trial]:
        first = self.study.min_seeds if self._rule else self.study.seeds
        seeds = self._seeds + 1 if self._seeds else first
        arms = len(self.study.arms)
        rows = self.planned[self._seeds * arms : seeds * arms]
        self._newest = [trial for trial in rows if trial.arm not in self._stopped]
        self._seeds = seeds
        self._running.extend(self._newest)
        return [*self._newest]

    def _below(self, seeds: int) -> tuple[Trial, ...]:
        """Trials of the seeds below a number, without those that stopped arms do not get."""
        return tuple(trial for trial in self.planned if trial.seed < min(seeds, self._stopped.get(trial.arm, seeds)))

    def _stop(self, rule: StoppingRule) -> list[StoppedArm]:
        reasons = rule(self.study, self._results)
        others = [arm.name for arm in self.study.arms if arm.name not in {self.study.reference, *self._stopped}]
        stopped = [StoppedArm(arm, self._seeds, reasons[arm]) for arm in others if arm in reasons]
        if len(stopped) == len(others):
            stopped.append(StoppedArm(self.study.reference, self._seeds, "no arm is left to compare with"))
        self._stopped |= {stop.arm: stop.seeds for stop in stopped}
        return stopped


def plan(study: Study) -> tuple[Trial, ...]:
    """List a study's trials, whole seeds first, arms in the study's order; of a sequential study all it may need.

    A study that is cut short then still compares all arms on the seeds it has: three arms at two seeds say more than
    one arm at five and another at one.
    """
    trials: list[Trial] = []
    for seed in range(study.seeds):
        for arm in study.arms:
            weights, order = study.noise.of(seed)
            apart = AA_SEEDS * (1 + [*study.twins].index(arm.name)) if arm.name in study.twins else 0
            seeds = (weights + apart, order + apart)
            noise = None if seeds == (seed, seed) else seeds  # such trials are those of plain studies
            trials.append(Trial(arm.name, seed, arm.settings, noise))
    return tuple(trials)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds until the last of some jobs ends, 0 without any, if each in order goes to the first free worker."""
    free_at = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)
