"""Estimates what a study will cost, and what more or fewer seeds would find."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from fairtrial.executors.auto import AutoExecutor
from fairtrial.executors.cuda.levels import MOST, PAYS
from fairtrial.executors.slots import Slots, choose_slots
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

if TYPE_CHECKING:  # the module itself loads torch
    from fairtrial.training.bench_gpu import SideBySide

#: Bytes by which a SQLite store grows with a trial and with an epoch record of six metrics (measured on 195 trials).
TRIAL_BYTES, EPOCH_BYTES = 2_200, 400

#: Seconds for which trials side by side on a GPU are timed, for each number of them.
SECONDS_TO_TIME = 1.0


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
    workers: int  # processes that the estimate assumes; where trials share GPUs, one for each GPU
    threads: int  # of each
    step_ms: float | None  # milliseconds per training step of one trial, as measured; None if nothing was timed
    seconds: float | None  # wall time of the missing trials; None if unknown: a user's loop that has never run
    bytes: int  # how much the store will grow
    tuning_trials: int = 0  # of the study's, those that tune its arms
    spread: float | None = None  # standard deviation of a paired difference, in the metric's unit; None if unknown
    seed_options: tuple[SeedOption, ...] = ()  # other numbers of seeds; none for a study with one arm
    gpus: int = 0  # that train; 0: the trials are trained on a CPU, or have all ended
    trials_per_gpu: int | None = None  # side by side in one process a GPU; None where each trial has a process
    steps_per_second: float | None = None  # of these all together, on one GPU; None where each trial has a process
    trial_gpu_bytes: int | None = None  # memory of the GPU that one of them takes, the data apart; None if unknown


def estimate(
    study: Study,
    results: Sequence[TrialResult],
    *,
    history: History | None = None,
    workers: int | None = None,
    threads: int | None = None,
    trials_per_gpu: int | None = None,
    spread: float | None = None,
    seeds: Sequence[int] = (3, 5, 8, 12, 20),
    tuned: int = 0,
) -> Estimate:
    """Estimate the cost of a study's missing trials, and of other numbers of seeds.

    For fairtrial's own loop, a few steps and one evaluation are timed, after the data are downloaded; where trials
    would share GPUs, with one trial, two, four and so on side by side, as long as more pay off or up to
    ``trials_per_gpu``. A trial of a user's loop is assumed to take as long as finished trials of the same arm did, or
    of any arm. Workers, threads, trials a GPU and spread are those of `fairtrial.api.estimate_cost`. Each other number
    of seeds is at least 2; a crossed design has its own number and no other. Of a study whose arms have yet to be
    tuned, ``tuned`` tuning trials have ended.

    Raises:
        FairtrialError: a number that is not allowed, or trials a GPU on a machine without any.
    """
    executor = AutoExecutor(workers, threads, trials_per_gpu=trials_per_gpu)
    estimator = _Estimator(study, results, history, executor, workers, threads, trials_per_gpu, tuned)
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
    executor: AutoExecutor
    workers: int | None
    threads: int | None
    trials_per_gpu: int | None
    tuned: int = 0  # tuning trials that have ended
    timings: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds of a step and of a trial, by kind
    on_gpu: dict[str, "_KindOnGpu"] = field(default_factory=dict)  # by kind

    def cost(self, seeds: int | None = None) -> Estimate:
        """What the missing trials will cost, or would with a fixed number of seeds."""
        ended = {(result.arm, result.seed) for result in self.results if result.outcome is not None}
        possible = self._possible() if seeds is None else self._planned(seeds)
        missing = [self.arms[arm] for arm in self._tuning[self.tuned :]]
        missing += [self.arms[arm] for arm, seed in possible if (arm, seed) not in ended]
        built_in = [arm for arm in missing if arm.settings.training.loop == BUILT_IN]
        gpus = self._gpus if missing else 0
        shared = bool(missing) and self.executor.shares_gpus(gpus, takes_turns=len(built_in) == len(missing))
        slots = choose_slots(len(missing), self.workers, self.threads, gpus=gpus)
        cost = Estimate(
            trials=len(self._tuning) + len(possible),
            tuning_trials=len(self._tuning),
            missing=len(missing),
            workers=slots.workers,
            threads=slots.threads,
            step_ms=None,
            seconds=None,
            bytes=sum(TRIAL_BYTES + EPOCH_BYTES * arm.settings.training.epochs for arm in missing),
            gpus=gpus,
        )
        return self._by_turns(cost, missing) if shared else self._by_processes(cost, missing, built_in, slots)

    def _by_processes(self, cost: Estimate, missing: Sequence[Arm], built_in: Sequence[Arm], slots: Slots) -> Estimate:
        """The cost of trials that have a process each. Those that share a GPU are assumed to gain nothing by it."""
        self._time(built_in, slots.threads)
        seconds = [self._seconds(arm) for arm in missing]
        known = [value for value in seconds if value is not None]
        lanes = min(slots.workers, cost.gpus) if cost.gpus and built_in else slots.workers
        return replace(
            cost,
            step_ms=self.timings[self._kinds[built_in[0].name]][0] * 1e3 if built_in else None,
            seconds=makespan(known, lanes) if len(known) == len(seconds) else None,
        )

    def _by_turns(self, cost: Estimate, missing: Sequence[Arm]) -> Estimate:
        """The cost of trials that take turns in one process a GPU, so many at a time."""
        self._time_side_by_side(missing, cost.threads)
        kinds = [self.on_gpu[self._kinds[arm.name]] for arm in missing]
        most = min(kind.most for kind in kinds)
        processes = min(cost.gpus, len(missing))
        side_by_side = min(most, -(-len(missing) // processes))
        of_each = [kinds[number::processes] for number in range(processes)]
        seconds = [
            sum(kind.seconds(len(some)) for some in _groups(one, side_by_side) for kind in some) for one in of_each
        ]
        first = kinds[0]
        rate = first.rate(side_by_side)
        return replace(
            cost,
            workers=processes,
            gpus=processes,
            trials_per_gpu=side_by_side,
            step_ms=side_by_side / rate * 1e3,
            steps_per_second=rate,
            trial_gpu_bytes=first.measured[-1].bytes_per_trial,
            seconds=max(seconds),
        )

    @cached_property
    def _gpus(self) -> int:
        from fairtrial.training import devices  # noqa: PLC0415  (loads torch)

        return devices.gpus()

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

    def _time_side_by_side(self, arms: Sequence[Arm], threads: int) -> None:
        """Time each kind of trial side by side: the first with rising numbers, others with one and as many as that."""
        new = {kind: arm for arm in arms if (kind := self._kinds[arm.name]) not in self.on_gpu}
        if not new:
            return
        from fairtrial.training import bench_gpu, datasets, prepare  # noqa: PLC0415

        prepare.prepare(self.study)
        bench_gpu.use_threads(threads)
        for kind, arm in new.items():
            most = max((one.most for one in self.on_gpu.values()), default=0)
            counts = sorted({1, most}) if most else _counts(self.trials_per_gpu or MOST)
            measured: list[SideBySide] = []
            for one in bench_gpu.measure_each(Trial(arm.name, 0, arm.settings), counts, SECONDS_TO_TIME):
                measured.append(one)
                if not self.trials_per_gpu and not _pay(measured):
                    break
            work = bench_gpu.work_of_trial(arm.settings, datasets.load(arm.settings.data, verify=False))
            self.on_gpu[kind] = _KindOnGpu(
                tuple(measured), work, measured[-1 if self.trials_per_gpu or _pay(measured) else -2].trials
            )

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


@dataclass(frozen=True)
class _KindOnGpu:
    """Trials of a kind side by side on a GPU, as they were timed."""

    measured: "tuple[SideBySide, ...]"  # by rising number of trials
    work: tuple[int, int]  # steps of a trial, and images that it evaluates
    most: int  # trials side by side that pay off, and have memory

    def rate(self, trials: int) -> float:
        """Steps a second of so many side by side, all together: between two numbers that were timed, in proportion."""
        return self._between(trials, [one.steps_per_second for one in self.measured])

    def seconds(self, trials: int) -> float:
        """A trial's share of the GPU's time, if so many are side by side."""
        images = self._between(trials, [one.images_per_second for one in self.measured])
        return self.measured[-1].start_seconds + self.work[0] / self.rate(trials) + self.work[1] / images

    def _between(self, trials: int, values: Sequence[float]) -> float:
        return float(np.interp(trials, [one.trials for one in self.measured], values))


def _counts(most: int) -> Sequence[int]:
    """The numbers of trials to time: powers of two up to a number, and that number."""
    return sorted({min(2**power, most) for power in range(most.bit_length() + 1)})


def _pay(measured: "Sequence[SideBySide]") -> bool:
    """Whether the last number of trials side by side pays off, compared with the one before."""
    *_, before, last = (0.0, *(one.steps_per_second for one in measured))
    return last >= PAYS * before


def _groups(kinds: Sequence[_KindOnGpu], size: int) -> Sequence[Sequence[_KindOnGpu]]:
    return [kinds[start : start + size] for start in range(0, len(kinds), size)]


def _kind(settings: Settings) -> str:
    """Everything that a trial's duration depends on: all but the numbers given to the optimizer."""
    parts = [part.model_dump_json() for part in (settings.data, settings.model, settings.training)]
    return "|".join([*parts, settings.optimizer.name])
