"""Results of a study over several tasks: each task's, and the mean over them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fairtrial import loading
from fairtrial.api import open_results
from fairtrial.results import StudyResults
from fairtrial.spec import Study
from fairtrial.store.base import Store
from fairtrial.store.url import DEFAULT_STORE

if TYPE_CHECKING:
    from fairtrial.report.charts import Figure
    from fairtrial.report.views import View
    from fairtrial.stats.comparison import StudyVerdict


@dataclass(frozen=True, repr=False)
class TaskResults:
    """The results of each task's study, by the task's name. A notebook shows them as their verdicts."""

    name: str
    tasks: Mapping[str, StudyResults]

    def __repr__(self) -> str:
        return f"<TaskResults {self.name}: {', '.join(self.tasks)}>"

    def _repr_html_(self) -> str:
        return self.verdict()._repr_html_()

    @property
    def study(self) -> Study:
        """The first task's study; all have the same seeds and question."""
        return next(iter(self.tasks.values())).study

    def verdict(self) -> "View[StudyVerdict]":
        """Compare each arm with the reference over all tasks, and on each.

        Raises:
            StudyError: the tasks differ in their arms, reference, seeds, measure or margin.
        """
        from fairtrial.report.views import View  # noqa: PLC0415
        from fairtrial.stats.comparison import compare  # noqa: PLC0415
        from fairtrial.stats.contrasts import Contrasts  # noqa: PLC0415
        from fairtrial.stats.questions import Answer  # noqa: PLC0415
        from fairtrial.stats.tasks import over_tasks  # noqa: PLC0415

        mains = {task: compare(one.study, one.results, history=one.history) for task, one in self.tasks.items()}
        contrasts = {task: Contrasts(one.study, one.results, mains[task]) for task, one in self.tasks.items()}
        alpha = next(iter(contrasts.values())).evidence.alpha
        overall = over_tasks(contrasts, self.name, alpha)
        each = [replace(main, tasks=(task,)) for task, main in mains.items()]
        return View(overall, answers=[Answer("tasks", alpha, tuple(each))])

    def plot(self) -> "Figure":
        """Draw the verdict plot over all tasks, and on each.

        Raises:
            StudyError: the tasks differ in their arms, reference, seeds, measure or margin.
            ReportError: on some task no arm has a pair with a result.
        """
        from fairtrial.report.charts.differences import difference_data  # noqa: PLC0415  (loads Altair)
        from fairtrial.report.task_plot import draw_tasks  # noqa: PLC0415

        each = {task: difference_data(one.study, one.results, history=one.history) for task, one in self.tasks.items()}
        return draw_tasks(self.verdict().data, each, self.study.measure(self.study.evidence.metric).label)


def load_tasks(source: str | Path, overrides: Sequence[str] = ()) -> dict[str, Study]:
    """Load the study of each task of a file; empty if the file has no tasks.

    Raises:
        StudyError: as `fairtrial.load` does.
    """
    names = loading.task_names_of(source, overrides)
    return {name: loading.load(source, [*overrides, f"task={json.dumps(name, ensure_ascii=False)}"]) for name in names}


def open_tasks(
    source: str | Path, overrides: Sequence[str] = (), *, store: str | Path | Store = DEFAULT_STORE
) -> TaskResults | None:
    """Read the results of a file's tasks from a store; None if it has no tasks.

    Raises:
        StudyError: as `fairtrial.open_results` does; every task must have been run.
    """
    studies = load_tasks(source, overrides)
    if not studies:
        return None
    return of_studies({task: open_results(study, store=store) for task, study in studies.items()})


def of_studies(results: Mapping[str, StudyResults]) -> TaskResults:
    """Join the results of the tasks' studies, which are named ``NAME.TASK``."""
    task, first = next(iter(results.items()))
    return TaskResults(first.study.name.removesuffix(f".{task}"), results)
