"""The mean over tasks: arms compared with the reference over all tasks of a study at once.

At each seed an arm's difference is the mean of its differences on the tasks, each with equal weight. Tasks are fixed:
the verdict is about these tasks, not about others like them. The means of the seeds are independent, so that `judge`
applies to them as to the differences on one task, whether or not what a seed does on one task resembles what it does on
another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fairtrial.errors import StudyError
from fairtrial.spec import digest
from fairtrial.stats.comparison import StudyVerdict
from fairtrial.stats.contrasts import Contrasts, refuse
from fairtrial.stats.paired import LostSeeds
from fairtrial.stats.pairing import pairing_conflict


def over_tasks(tasks: Mapping[str, Contrasts], name: str, alpha: float) -> StudyVerdict:
    """Compare the arms with the reference on the mean over tasks.

    Args:
        tasks: the contrasts of each task's study, by its name.
        name: of the whole.
        alpha: error rate of all arms and looks together.

    Raises:
        StudyError: the tasks differ in their arms, reference, seeds, measure or margin.
    """
    _check_alike(tasks)
    first = next(iter(tasks.values()))
    base = first.study.reference
    others = [arm.name for arm in first.study.arms if arm.name != base]
    seeds = min(one.main.seeds for one in tasks.values())
    table = np.mean([one.data.differences(base, others, seeds) for one in tasks.values()], axis=0)
    refused = _refused(tasks, base, others)
    table[:, [arm in refused for arm in others]] = np.nan
    ended = [min(seeds, *(one.together({base, arm}) for one in tasks.values())) for arm in others]
    latest = max(tasks.values(), key=lambda one: one.main.stage)  # tasks may have been looked at unequally often
    apart = {arm for one in tasks.values() for arm in one.apart}
    rows = latest.judge_columns(table, ended, others, alpha, first.evidence.margin, apart=apart)
    found = [
        refuse(row, refused[row.arm])
        if row.arm in refused
        else first.with_losses(row, base, _lost(tasks, row.arm, base))
        for row in rows
    ]
    mains = [one.main for one in tasks.values()]
    return replace(
        first.main,
        study=name,
        hash=digest({task: one.study.hash for task, one in tasks.items()}),
        tasks=tuple(tasks),
        alpha=alpha,
        looks=latest.main.looks,
        stage=latest.main.stage,
        part=latest.main.part,
        whole=latest.main.whole,
        spent=tuple(arm for arm in others if any(arm in main.spent for main in mains)),
        seeds=seeds,
        comparisons=tuple(replace(row, caveats=(*row.caveats, _meaning(tasks))) for row in found),
        ended={arm: sum(main.ended[arm] for main in mains) for arm in first.main.ended},
        lost={arm: counts for arm in others if (counts := _losses(tasks, arm))},
        refused=refused,
        jitter=None,
        exploratory=tuple(dict.fromkeys(reason for main in mains for reason in main.exploratory)),
        set_beforehand=all(main.set_beforehand for main in mains),
        alerts=tuple(dict.fromkeys(alert for main in mains for alert in main.alerts)),
    )


def _check_alike(tasks: Mapping[str, Contrasts]) -> None:
    """Raise a `StudyError` if tasks differ in what must be the same to compare over all of them."""
    first = next(iter(tasks.values()))
    for task, one in tasks.items():
        for key in ("reference", "seeds", "min_seeds"):
            _same(task, key, getattr(first.study, key), getattr(one.study, key))
        for key in ("metric", "margin", "larger_is_better"):
            _same(task, f"evidence.{key}", getattr(first.evidence, key), getattr(one.evidence, key))
        _same(task, "arms", *([arm.name for arm in each.study.arms] for each in (first, one)))


def _refused(tasks: Mapping[str, Contrasts], base: str, others: Sequence[str]) -> dict[str, str]:
    """The arms that can't be compared on some task, with the first reason."""
    found: dict[str, str] = {}
    for one in tasks.values():
        for arm in others:
            if why := pairing_conflict(one.study, base, arm, one.results):
                found.setdefault(arm, why)
    return found


def _meaning(tasks: Mapping[str, Contrasts]) -> str:
    return f"A difference is the mean of those on {' and '.join(tasks)}, with equal weight."


def _same(task: str, key: str, expected: object, value: object) -> None:
    if value != expected:
        raise StudyError(f"tasks.{task}: {key} must be that of the other tasks, to compare over all of them")


def _lost(tasks: Mapping[str, Contrasts], arm: str, base: str) -> LostSeeds:
    lost = [one.data.lost_seeds(arm, base) for one in tasks.values()]
    ours, theirs = ({seed for one in lost for seed in getattr(one, which)} for which in ("arm", "other"))
    return LostSeeds(tuple(sorted(ours)), tuple(sorted(theirs)))


def _losses(tasks: Mapping[str, Contrasts], arm: str) -> dict[str, int]:
    """Count an arm's lost trials on all tasks, by what happened."""
    counts: dict[str, int] = {}
    for one in tasks.values():
        for (name, _), how in sorted(one.data.lost.items()):
            if name == arm:
                counts[how] = counts.get(how, 0) + 1
    return counts
