"""What a study will cost on this machine, before it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fairtrial.executors.slots import choose_slots
from fairtrial.scheduler import Scheduler, makespan
from fairtrial.spec import BUILT_IN, Settings, Study
from fairtrial.stats.comparison import settled
from fairtrial.stats.power import detectable_differences
from fairtrial.trial import Outcome, Trial, TrialResult

#: Bytes that a SQLite store grows by for each trial and each epoch record (measured: 195 trials of 10 epochs, 6.2 kB a
#: trial, of which an epoch record of six metrics takes 0.4).
TRIAL_BYTES, EPOCH_BYTES = 2_200, 400


@dataclass(frozen=True)
class Estimate:
    """What is left to do of a study, and what it will cost.

    Attributes:
        trials: trials that the study comes to; of a sequential study, where arms may yet stop, at most. So is the rest.
            Trials that settled arms are spared are not among them.
        missing: how many of them are still to be trained.
        workers: worker processes that the estimate counts on.
        threads: threads of each.
        step_ms: milliseconds a training step, timed just now; None where nothing was timed.
        seconds: wall time of what is left; None if nobody can know: a loop of the user's own that was never run.
        bytes: what the store will grow by.
    """

    trials: int
    missing: int
    workers: int
    threads: int
    step_ms: float | None
    seconds: float | None
    bytes: int


@dataclass
class TimingCache:
    """Keeps what was timed, so that a second estimate need not time it again.

    Attributes:
        timed: seconds a step and seconds a trial of each kind of trial.
    """

    timed: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class SeedOption:
    """What a number of seeds would find, and what it costs.

    Attributes:
        seeds: number of seeds, looked at once at their end.
        difference: smallest true difference that is found with 80% power, in the metric's unit; None if nobody knows
            the spread.
        seconds: wall time of the trials that are still missing for it; None if nobody can know.
    """

    seeds: int
    difference: float | None
    seconds: float | None


def estimate(
    study: Study,
    results: Sequence[TrialResult],
    *,
    workers: int | None = None,
    threads: int | None = None,
    stopwatch: TimingCache | None = None,
) -> Estimate:
    """Estimate the cost of what is missing of a study.

    A trial of fairtrial's own loop is timed on a few steps and one evaluation; its data are fetched first. A trial of a
    user's loop is taken to last as long as finished trials of the same arm did, or of any arm.

    Args:
        study: the study.
        results: what the store knows of it.
        workers: worker processes, chosen as `run` chooses them if None.
        threads: threads of each, likewise.
        stopwatch: what was timed before, and where to note what is timed now.
    """
    ended = {result.trial for result in results if result.outcome is not None}
    course = Scheduler(study, settled if study.sequential else None)
    course.advance(ended, lambda: results)
    trials = course.possible
    missing = [trial for trial in trials if trial.hash not in ended]
    slots = choose_slots(len(missing), workers, threads)
    timed = _time_settings(study, missing, slots.threads, stopwatch or TimingCache())
    seconds = [_trial_seconds(trial, timed, results) for trial in missing]
    known = [value for value in seconds if value is not None]
    first = next(iter(timed.values()), None)
    return Estimate(
        trials=len(trials),
        missing=len(missing),
        workers=slots.workers,
        threads=slots.threads,
        step_ms=first[0] * 1e3 if first else None,
        seconds=makespan(known, slots.workers) if len(known) == len(seconds) else None,
        bytes=sum(TRIAL_BYTES + EPOCH_BYTES * trial.epochs for trial in missing),
    )


def seed_options(
    study: Study,
    results: Sequence[TrialResult],
    spread: float | None,
    *,
    seeds: Sequence[int] = (3, 5, 8, 12, 20),
    workers: int | None = None,
    threads: int | None = None,
    stopwatch: TimingCache | None = None,
) -> tuple[SeedOption, ...]:
    """Say what several numbers of seeds would find, and what each would cost.

    Args:
        study: the study; its arms, its metric and its error rate.
        results: what the store knows of it; trials that have ended cost nothing any more.
        spread: standard deviation of paired differences, in the metric's unit; see `paired_spread`.
        seeds: the numbers, each at least 2. A crossed design has its own number and no other.
        workers: as for `estimate`.
        threads: likewise.
        stopwatch: likewise.
    """
    if study.noise.crossed:
        seeds = (study.noise.crossed,)
    found: dict[int, float] = {}
    if spread is not None and len(study.arms) > 1:
        rows = detectable_differences(spread, len(study.arms) - 1, seeds, alpha=study.evidence.alpha)
        found = {row.seeds: row.difference for row in rows}
    stopwatch = stopwatch or TimingCache()
    seconds: dict[int, float | None] = {}
    for number in seeds:
        other = study if study.noise.crossed else Study.from_dict(study.to_dict() | {"seeds": number})
        cost = estimate(other, results, workers=workers, threads=threads, stopwatch=stopwatch)
        seconds[number] = cost.seconds
    return tuple(SeedOption(number, found.get(number), seconds[number]) for number in seeds)


def _time_settings(
    study: Study, trials: Sequence[Trial], threads: int, stopwatch: TimingCache
) -> dict[str, tuple[float, float]]:
    """Time each kind of trial once: seconds a step and seconds a trial, by what decides them."""
    ours = [trial for trial in trials if trial.settings.training.loop == BUILT_IN]
    if not ours:
        return {}
    from fairtrial.training import bench, datasets, prepare  # noqa: PLC0415

    prepare.prepare(study)
    timed = stopwatch.timed
    for trial in ours:
        kind = f"{threads}|{_kind(trial.settings)}"
        if kind not in timed:
            pace = bench.pace(trial, threads=threads)
            whole = pace.trial_seconds(trial.settings, datasets.load(trial.settings.data, verify=False))
            timed[kind] = pace.step_seconds, whole
    return {_kind(trial.settings): timed[f"{threads}|{_kind(trial.settings)}"] for trial in ours}


def _kind(settings: Settings) -> str:
    """What a trial's duration depends on: everything but the numbers given to the optimizer."""
    parts = (settings.data, settings.model, settings.training, settings.optimizer.name)
    return "|".join(part if isinstance(part, str) else part.model_dump_json() for part in parts)


def _trial_seconds(trial: Trial, timed: dict[str, tuple[float, float]], results: Sequence[TrialResult]) -> float | None:
    if trial.settings.training.loop == BUILT_IN:
        return timed[_kind(trial.settings)][1]
    finished = [result for result in results if result.outcome is Outcome.FINISHED and result.ended]
    alike = [result for result in finished if result.arm == trial.arm] or finished
    seconds = [(result.ended - result.started).total_seconds() for result in alike if result.ended]
    return sum(seconds) / len(seconds) if seconds else None
