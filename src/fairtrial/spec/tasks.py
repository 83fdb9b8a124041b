"""Studies over several tasks: one file, and a study of the same arms for each task.

A task is a table of changes to what all arms share, such as another data set. Its study is a study like any other,
named ``NAME.TASK``. The tasks and the mean over them share alpha equally.
"""

from collections.abc import Mapping
from typing import Any

from fairtrial.errors import StudyError
from fairtrial.registry import did_you_mean
from fairtrial.spec.evidence import Evidence
from fairtrial.spec.limits import MOST_TASKS
from fairtrial.spec.messages import show
from fairtrial.spec.overrides import Table, merge


def task_names(table: Table) -> tuple[str, ...]:
    """Name the tasks of a study's table; none without ``[tasks]``.

    Raises:
        StudyError: the tasks are no tables, or fewer than two.
    """
    tasks = table.get("tasks")
    if tasks is None:
        return ()
    if not isinstance(tasks, Mapping) or not all(isinstance(changes, Mapping) for changes in tasks.values()):
        raise StudyError(f"tasks = {show(tasks)}: must be tables of settings, such as [tasks.digits]")
    if len(tasks) < 2:
        raise StudyError("tasks: needs at least two; of a single one, write the settings into the study itself")
    if len(tasks) > MOST_TASKS:
        raise StudyError(f"tasks: has {len(tasks):,}; at most {MOST_TASKS} are allowed")
    return tuple(tasks)


def of_task(table: Table) -> dict[str, Any]:
    """The table of one task's study, which the key ``task`` names; that of a study without tasks is unchanged.

    Raises:
        StudyError: no task is named, or there is no such task.

    Example:
        >>> tasks = {"digits": {"data": {"name": "digits"}}, "photos": {}}
        >>> of_task({"name": "mine", "task": "digits", "tasks": tasks})["name"]
        'mine.digits'
    """
    names = task_names(table)
    if not names:
        return dict(table)
    task = table.get("task")
    if task is None:
        raise StudyError(f"has tasks: name one with --set task={names[0]}; run and verdict take all of them")
    if task not in names:
        raise StudyError(f"task = {show(task)}: {did_you_mean(str(task), names)}")
    own = {key: value for key, value in table.items() if key not in {"task", "tasks"}}
    merged = merge(own, table["tasks"][task], where=f"tasks.{task}.")
    evidence = merged.get("evidence", {})
    if not isinstance(evidence, Mapping):
        return merged
    if "not_worse_than" in evidence:
        raise StudyError("evidence.not_worse_than: is not for tasks; give one to fairtrial gate with --set task=NAME")
    if evidence.get("paired") is False:
        raise StudyError(
            "evidence.paired = false: the mean over [tasks] is taken at each seed; write a study for each task"
        )
    alpha = evidence.get("alpha", Evidence().alpha)
    if isinstance(alpha, int | float) and 0 < alpha < 1:  # anything else is an error of the study's own
        merged["evidence"] = {**evidence, "alpha": alpha / (len(names) + 1)}
    return {**merged, "name": f"{table.get('name')}.{task}"}
