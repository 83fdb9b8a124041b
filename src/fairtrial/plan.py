"""From a study to its trials. Pure."""

import heapq
from collections.abc import Sequence

from fairtrial.records import Trial
from fairtrial.spec import Study


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
