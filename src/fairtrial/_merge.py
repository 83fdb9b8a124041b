"""Adapters to today's runner, executors and reports.  # merge: delete this file; use the contracts' names."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairtrial import runner
from fairtrial.callbacks import Callback
from fairtrial.errors import ReportError, StudyError
from fairtrial.executors.inline import InlineExecutor as _Inline
from fairtrial.executors.slots import Slots
from fairtrial.provenance import git_commit
from fairtrial.spec import Study
from fairtrial.store.base import Store
from fairtrial.trial import TrialResult


@dataclass
class InlineExecutor:
    """Runs trials in this process."""

    checkpoints: str | None = None


@dataclass
class LocalExecutor:
    """Runs trials in worker processes on this machine."""

    workers: int | None = None
    threads: int | None = None
    checkpoints: str | None = None
    time_limit: float | None = None
    memory_limit: int | None = None


@dataclass
class RayExecutor(LocalExecutor):
    """Runs trials as Ray tasks."""

    address: str | None = None


class _Executors:
    _all: Mapping[str, Any] = {"inline": InlineExecutor, "local": LocalExecutor, "ray": RayExecutor}

    def names(self) -> list[str]:
        """List the names."""
        return list(self._all)

    def get(self, name: str) -> Any:
        """Get an entry."""
        if name not in self._all:
            raise StudyError(f"{name}: no such executor; known are {', '.join(self._all)}")
        return self._all[name]


EXECUTORS = _Executors()


def _inline(study: Study, _trials: Any, _asked_for: Any, watcher: Callback, **options: Any) -> Any:
    from fairtrial.training import machine, prepare  # noqa: PLC0415

    prepare.prepare(study, progress=watcher.fetching)
    return _Inline(prepare.run, machine.describe_process, checkpoints=options["checkpoints"]), Slots(1, 1, 1)


class _All:
    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = callbacks

    def __getattr__(self, name: str) -> Callable[..., None]:
        def tell(*args: Any, **kwargs: Any) -> None:
            for callback in self._callbacks:
                getattr(callback, name)(*args, **kwargs)

        return tell


def run_study(
    study: Study,
    *,
    store: Store,
    executor: Any = None,
    callbacks: Sequence[Callback] = (),
    retry_failed: bool = False,
    force: bool = False,
) -> int:
    """Run a study."""
    options: dict[str, Any] = dict(vars(executor)) if isinstance(executor, InlineExecutor | LocalExecutor) else {}
    if isinstance(executor, RayExecutor):
        from fairtrial.staff import on_ray  # noqa: PLC0415

        options["staff"] = on_ray(options.pop("address"))
    if isinstance(executor, InlineExecutor):
        options["staff"] = _inline
    if executor is not None and not options:
        options["executor"] = executor

    def settled(study: Study, results: Sequence[TrialResult]) -> frozenset[str]:
        from fairtrial.stats.comparison import stops  # noqa: PLC0415

        found = stops(study, results)
        for callback in callbacks:
            getattr(callback, "_reasons", {}).update(found)
        return frozenset(found)

    return runner.run(
        study,
        store=store,
        watcher=_All(callbacks),  # type: ignore[arg-type]
        retry_failed=retry_failed,
        force=force,
        source=study.origin.source,
        assignments=study.origin.overrides,
        git_commit=git_commit(study.origin.folder) if study.origin.folder else None,
        settled=settled if study.sequential else None,
        **options,
    ).trained


class View:
    """Results that show themselves."""

    def __init__(self, data: Any, noise: Sequence[Any] = ()) -> None:
        self.data, self._noise = data, noise

    def write(self, form: str = "text", *, width: int = 80, color: bool = False) -> str:
        """Write in a format."""
        from fairtrial.report import tables, verdicts  # noqa: PLC0415
        from fairtrial.stats.summary import StudySummary  # noqa: PLC0415

        if isinstance(self.data, StudySummary):
            return tables.table(self.data, form, width=width, color=color)  # type: ignore[arg-type]
        return verdicts.describe(self.data, form, noise=self._noise, width=width, color=color)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        return self.write().rstrip("\n")

    def _repr_html_(self) -> str:
        return f"<table><tr><td><pre>{html.escape(self.write())}</pre></td></tr></table>"


def draw(names: Iterable[str], study: Study, results: Sequence[TrialResult]) -> tuple[Any, ...]:
    """Draw charts."""
    from fairtrial.report import charts  # noqa: PLC0415

    drawn = charts.figures(study, results)
    known = {figure.name: figure for figure in drawn}
    for name in names:
        if name not in known:
            raise ReportError(f"{name}: no such chart; known are {', '.join(known)}")
    return tuple(known[name] for name in names) or drawn


def write(figure: Any, folder: Path) -> list[Path]:
    """Write a chart's files."""
    from fairtrial.report import charts  # noqa: PLC0415

    return charts.write(figure, folder)
