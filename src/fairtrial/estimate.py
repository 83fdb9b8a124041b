"""Estimates what a study will cost, and what more or fewer seeds would find."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from fairtrial.executors.slots import choose_slots
from fairtrial.history import History
from fairtrial.scheduler import Scheduler, makespan
from fairtrial.spec import BUILT_IN, Arm, Settings, Study
from fairtrial.stats.comparison import paired_spread
from fairtrial.stats.joined import Key
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.power import detectable
from fairtrial.stats.replay import Stops
from fairtrial.stats.stages import standing
from fairtrial.stats.welch import detectable as detectable_unpaired
from fairtrial.trial import Outcome, Trial, TrialResult

#: Bytes by which a SQLite store grows with a trial and with an epoch record of six metrics (measured on 195 trials).
TRIAL_BYTES, EPOCH_BYTES = 2_200, 400


@dataclass(frozen=True)
class SeedOption:
    """What a number of seeds, compared once at their end, would find, and what it costs."""

    seeds: int
    difference: float | None  # smallest true one found with 80% power, in the metric's unit; None without a spread
    seconds: float | None  # wall time of the trials that are still missing for it; None if unknown


@dataclass(frozen=True)
class Estimate:
    """What the missing trials of a study will cost.

    For a sequential study, in which arms may still stop, the number of trials and the costs are upper limits; trials of
    arms that have stopped do not count.
    """

    trials: int  # of the study
    missing: int  # still to be trained
    workers: int  # processes that the estimate assumes
    threads: int  # of each
    step_ms: float | None  # milliseconds per training step, as measured; None if nothing was timed
    seconds: float | None  # wall time of the missing trials; None if unknown: a user's loop that has never run
    bytes: int  # how much the store will grow
    tuning_trials: int = 0  # of the study's, those that tune its arms
    spread: float | None = None  # standard deviation of a paired difference, in the metric's unit; None if unknown
    seed_options: tuple[SeedOption, ...] = ()  # other numbers of seeds; none for a study with one arm


def estimate(
    study: Study,
    results: Sequence[TrialResult],
    *,
    history: History | None = None,
    workers: int | None = None,
    threads: int | None = None,
    spread: float | None = None,
    seeds: Sequence[int] = (3, 5, 8, 12, 20),
    tuned: int = 0,
) -> Estimate:
    """Estimate the cost of a study's missing trials, and of other numbers of seeds.

    For fairtrial's own loop, a few steps and one evaluation are timed, after the data are downloaded. A trial of a
    user's loop is assumed to take as long as finished trials of the same arm did, or of any arm. Workers, threads and
    spread are those of `fairtrial.api.estimate_cost`. Each other number of seeds is at least 2; a crossed design has
    its own number and no other. Of a study whose arms have yet to be tuned, ``tuned`` tuning trials have ended.
    """
    estimator = _Estimator(study, results, history, workers, threads, tuned)
    cost = estimator.cost()
    if len(study.arms) == 1:
        return cost
    spread = spread or paired_spread(study, results)
    options = []
    for n in (study.noise.crossed,) if study.noise.crossed else seeds:
        stands = standing(study, history, study.evidence.metric, study.evidence.target, seeds=n)
        found = None
        if spread and study.evidence.unpaired:
            level = study.question_alpha / (len(study.arms) - 1)
            found = spread / math.sqrt(n) * detectable_unpaired(n - 1, n - 1, 0.5, level)
        elif spread and n in stands.looks:
            looks = LookPlan.of(len(study.arms) - 1, stands.looks, earlier=stands.earlier, share=stands.share)
            found = spread * detectable(looks, study.question_alpha, stands.looks.index(n))
        options.append(SeedOption(n, found, estimator.cost(n).seconds))
    return replace(cost, spread=spread, seed_options=tuple(options))


@dataclass
class _Estimator:
    """Estimates costs of a study, and times each kind of trial once."""

    study: Study
    results: Sequence[TrialResult]
    history: History | None
    workers: int | None
    threads: int | None
    tuned: int = 0  # tuning trials that have ended
    timings: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds of a step and of a trial, by kind

    def cost(self, seeds: int | None = None) -> Estimate:
        """What the missing trials will cost, or would with a fixed number of seeds."""
        ended = {(result.arm, result.seed) for result in self.results if result.outcome is not None}
        possible = self._possible() if seeds is None else self._planned(seeds)
        missing = [self.arms[arm] for arm in self._tuning[self.tuned :]]
        missing += [self.arms[arm] for arm, seed in possible if (arm, seed) not in ended]
        slots = choose_slots(len(missing), self.workers, self.threads)
        built_in = [arm for arm in missing if arm.settings.training.loop == BUILT_IN]
        self._time(built_in, slots.threads)
        seconds = [self._seconds(arm) for arm in missing]
        known = [value for value in seconds if value is not None]
        return Estimate(
            trials=len(self._tuning) + len(possible),
            tuning_trials=len(self._tuning),
            missing=len(missing),
            workers=slots.workers,
            threads=slots.threads,
            step_ms=self.timings[self._kinds[built_in[0].name]][0] * 1e3 if built_in else None,
            seconds=makespan(known, slots.workers) if len(known) == len(seconds) else None,
            bytes=sum(TRIAL_BYTES + EPOCH_BYTES * arm.settings.training.epochs for arm in missing),
        )

    def _possible(self) -> Sequence[Key]:
        """All trials that the study has had or may still need."""
        if not self.study.sequential:
            return self._planned(self.study.seeds)
        scheduler = Scheduler(self.study, Stops(lambda: self.history))
        scheduler.advance({one.trial for one in self.results if one.outcome is not None}, lambda: self.results)
        return [(trial.arm, trial.seed) for trial in scheduler.possible]

    def _planned(self, seeds: int) -> Sequence[Key]:
        """All trials of so many seeds, in the order of the plan."""
        return [(arm, seed) for seed, arm in product(range(seeds), self.arms)]

    def _time(self, arms: Sequence[Arm], threads: int) -> None:
        new = {kind: arm for arm in arms if (kind := self._kinds[arm.name]) not in self.timings}
        if not new:
            return
        from fairtrial.training import bench, datasets, prepare  # noqa: PLC0415

        prepare.prepare(self.study)
        for kind, arm in new.items():
            pace = bench.pace(Trial(arm.name, 0, arm.settings), threads=threads)
            data = datasets.load(arm.settings.data, verify=False)
            self.timings[kind] = pace.step_seconds, pace.trial_seconds(arm.settings, data)

    @cached_property
    def _tuning(self) -> Sequence[str]:
        """The arm of each tuning trial that the study needs first, in about the order in which they are trained."""
        tuning = self.study.tuning
        if tuning is None or not self.study.untuned:
            return ()
        arms = [arm for arm in self.arms if arm not in self.study.twins]
        return [arm for _ in range(tuning.budget(self.study.reference) * tuning.seeds.max) for arm in arms]

    @cached_property
    def arms(self) -> Mapping[str, Arm]:
        """The arms by their names."""
        return {arm.name: arm for arm in self.study.arms}

    @cached_property
    def _kinds(self) -> Mapping[str, str]:
        """The kind of each arm's trials."""
        return {arm.name: _kind(arm.settings) for arm in self.study.arms}

    def _seconds(self, arm: Arm) -> float | None:
        if arm.settings.training.loop == BUILT_IN:
            return self.timings[self._kinds[arm.name]][1]
        return self._took.get(arm.name, self._took.get(None))

    @cached_property
    def _took(self) -> Mapping[str | None, float]:
        """Mean seconds of finished trials, of each arm and of all of them (None)."""
        found: dict[str | None, list[float]] = {}
        for one in self.results:
            if one.outcome is Outcome.FINISHED and one.ended:
                for arm in (one.arm, None):
                    found.setdefault(arm, []).append((one.ended - one.started).total_seconds())
        return {arm: sum(seconds) / len(seconds) for arm, seconds in found.items()}


def _kind(settings: Settings) -> str:
    """Everything that a trial's duration depends on: all but the numbers given to the optimizer."""
    parts = [part.model_dump_json() for part in (settings.data, settings.model, settings.training)]
    return "|".join([*parts, settings.optimizer.name])
