"""What a check says of a study's cost: from the attempts at its trials, or from timed steps of fairtrial's own loop."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

from fairtrial.checking.attempts import Attempt
from fairtrial.checking.findings import Finding
from fairtrial.doctor import CheckStatus
from fairtrial.estimate import estimate
from fairtrial.executors.limits import format_bytes
from fairtrial.executors.slots import choose_slots
from fairtrial.report.costs import side_by_side
from fairtrial.report.words import count, duration
from fairtrial.scheduler import makespan, plan
from fairtrial.spec import BUILT_IN, Study


def check_cost(study: Study, attempts: Sequence[Attempt], threads: int) -> Iterator[Finding]:
    """Estimate the time of all trials, and say how much memory a worker had."""
    built_in = [arm.settings.training.loop == BUILT_IN for arm in study.arms]
    paces = {one.trial.arm: _pace(one.times) for one in attempts if one.times}
    trials = plan(study)
    from fairtrial.training.devices import gpus  # noqa: PLC0415  (loads torch)

    slots = choose_slots(len(trials), None, threads, gpus=gpus())
    workers = f"{count(slots.workers, 'worker')} of {count(slots.threads, 'thread')}"
    told, seconds = [], None
    if all(built_in):
        cost = estimate(study, (), threads=threads, seeds=())
        seconds, workers = cost.seconds, side_by_side(cost)
    elif not any(built_in):  # whose epochs were short
        start, epoch = (median(each) for each in zip(*paces.values(), strict=True))
        each = [paces.get(trial.arm, (start, epoch)) for trial in trials]
        seconds = makespan(
            [one[0] + one[1] * trial.epochs for one, trial in zip(each, trials, strict=True)], slots.workers
        )
        slow = max(paces, key=lambda arm: paces[arm][1])
        told.append(
            f"an epoch takes {_short(epoch)}" + (f" ({slow}: {_short(paces[slow][1])})" if len(paces) > 1 else "")
        )
    if seconds is not None:
        size = f"{count(len(trials), 'trial')}, {workers}"
        told.append(f"the study takes {'at most ' if study.sequential else ''}about {duration(seconds)} ({size})")
    if most := max((int(one.seen.get("memory", "0")) for one in attempts), default=0):
        told.append(f"a worker had up to {format_bytes(most >> 20 << 20)} of memory")
    if told:
        yield Finding("cost", CheckStatus.GOOD, "; ".join(told))


def _pace(times: Sequence[float]) -> tuple[float, float]:
    """Seconds before the first epoch, and of an epoch; of a single record all counts as its epoch."""
    if len(times) == 1:
        return 0.0, times[0]
    pace = median(after - before for before, after in pairwise(times))
    return max(0.0, times[0] - pace), pace


def _short(seconds: float) -> str:
    return duration(seconds) if seconds >= 10 else f"{seconds:.2g} s"
