"""Estimates what a study will cost, and what more or fewer seeds would find."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fairtrial.executors.slots import choose_slots
from fairtrial.history import History
from fairtrial.scheduler import Scheduler, makespan
from fairtrial.spec import BUILT_IN, Settings, Study
from fairtrial.stats.comparison import paired_spread
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.power import detectable
from fairtrial.stats.replay import Stops
from fairtrial.stats.stages import standing
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
) -> Estimate:
    """Estimate the cost of a study's missing trials, and of other numbers of seeds.

    For fairtrial's own loop, a few steps and one evaluation are timed, after the data are downloaded. A trial of a
    user's loop is assumed to take as long as finished trials of the same arm did, or of any arm. Workers, threads and
    spread are those of `fairtrial.api.estimate_cost`. Each other number of seeds is at least 2; a crossed design has
    its own number and no other.
    """
    estimator = _Estimator(results, history, workers, threads)
    cost = estimator.cost(study)
    if len(study.arms) == 1:
        return cost
    spread = spread or paired_spread(study, results)
    numbers = (study.noise.crossed,) if study.noise.crossed else tuple(seeds)
    options = []
    for n in numbers:
        resized = study if study.noise.crossed else Study.from_dict(study.to_dict() | {"seeds": n})
        stands = standing(resized, history, study.evidence.metric, study.evidence.target)
        found = None
        if spread and n in stands.looks:
            plan = LookPlan.of(len(study.arms) - 1, stands.looks, earlier=stands.earlier, share=stands.share)
            found = spread * detectable(plan, study.question_alpha, stands.looks.index(n))
        options.append(SeedOption(n, found, estimator.cost(resized).seconds))
    return replace(cost, spread=spread, seed_options=tuple(options))


@dataclass
class _Estimator:
    """Estimates costs of studies, and times each kind of trial once."""

    results: Sequence[TrialResult]
    history: History | None
    workers: int | None
    threads: int | None
    timings: dict[str, tuple[float, float]] = field(default_factory=dict)  # seconds of a step and of a trial, by kind

    def cost(self, study: Study) -> Estimate:
        ended = {result.trial for result in self.results if result.outcome is not None}
        scheduler = Scheduler(study, Stops(lambda: self.history) if study.sequential else None)
        scheduler.advance(ended, lambda: self.results)
        missing = [trial for trial in scheduler.possible if trial.hash not in ended]
        slots = choose_slots(len(missing), self.workers, self.threads)
        built_in = [trial for trial in missing if trial.settings.training.loop == BUILT_IN]
        self._time(study, built_in, slots.threads)
        seconds = [self._seconds(trial) for trial in missing]
        known = [value for value in seconds if value is not None]
        return Estimate(
            trials=len(scheduler.possible),
            missing=len(missing),
            workers=slots.workers,
            threads=slots.threads,
            step_ms=self.timings[_kind(built_in[0].settings)][0] * 1e3 if built_in else None,
            seconds=makespan(known, slots.workers) if len(known) == len(seconds) else None,
            bytes=sum(TRIAL_BYTES + EPOCH_BYTES * trial.epochs for trial in missing),
        )

    def _time(self, study: Study, trials: Sequence[Trial], threads: int) -> None:
        new = {kind: trial for trial in trials if (kind := _kind(trial.settings)) not in self.timings}
        if not new:
            return
        from fairtrial.training import bench, datasets, prepare  # noqa: PLC0415

        prepare.prepare(study)
        for kind, trial in new.items():
            pace = bench.pace(trial, threads=threads)
            data = datasets.load(trial.settings.data, verify=False)
            self.timings[kind] = pace.step_seconds, pace.trial_seconds(trial.settings, data)

    def _seconds(self, trial: Trial) -> float | None:
        if trial.settings.training.loop == BUILT_IN:
            return self.timings[_kind(trial.settings)][1]
        finished = [result for result in self.results if result.outcome is Outcome.FINISHED]
        alike = [result for result in finished if result.arm == trial.arm] or finished
        seconds = [(result.ended - result.started).total_seconds() for result in alike if result.ended]
        return sum(seconds) / len(seconds) if seconds else None


def _kind(settings: Settings) -> str:
    """Everything that a trial's duration depends on: all but the numbers given to the optimizer."""
    parts = [part.model_dump_json() for part in (settings.data, settings.model, settings.training)]
    return "|".join([*parts, settings.optimizer.name])
