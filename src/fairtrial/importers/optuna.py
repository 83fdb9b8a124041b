"""Optuna's studies: each trial that was started is a run, with its parameters as settings."""

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fairtrial.errors import RunsError
from fairtrial.files import read_bounded
from fairtrial.importers.base import Given, Importer, Source, path_of
from fairtrial.importers.sqlite_files import has_tables, read_only
from fairtrial.importers.tracked import Run, Steps, source_of
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief, show

_TABLES = {"studies", "trials", "trial_values", "trial_params"}
_STATES = {"COMPLETE": "finished", "FAIL": "failed", "PRUNED": "failed", "RUNNING": "running"}
_INTERMEDIATE = "intermediate"
_LARGEST_JOURNAL = 2**30
#: What Optuna raises for storages of other versions, and where a storage is not what it wrote.
_DAMAGE = (RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError)


def is_optuna(given: Given) -> bool:
    """Tell whether it is a database of Optuna's."""
    path = path_of(given)
    try:
        return path is not None and has_tables(Path(_split(str(given))[0]), _TABLES)
    except (OSError, ValueError):
        return False


def open_optuna(given: Given) -> Source:
    """Open a study: ``study.db``, ``sqlite:///study.db``, another database's URL, or a journal's file, with ``#NAME``.

    Raises:
        RunsError: Optuna is not installed, the storage can't be read, or it has several studies and none is named.
    """
    place, wanted = _split(str(given))
    try:
        import optuna  # noqa: PLC0415
    except ImportError as error:
        raise RunsError(f"{_public(place)}: needs Optuna: pip install 'fairtrial[optuna]'") from error
    import sqlalchemy as sa  # noqa: PLC0415

    try:
        study = _choose(_storage(place), wanted, _public(place))
        trials = study.get_trials(deepcopy=False)
        directions = [direction.name.lower() for direction in study.directions]
        with warnings.catch_warnings(action="ignore"):  # names of metrics are experimental
            names = study.metric_names or (["value"] if len(directions) == 1 else _numbered(directions))
    except (
        sa.exc.SQLAlchemyError,
        optuna.exceptions.OptunaError,
        OSError,
        *_DAMAGE,
    ) as error:
        reason = brief(" ".join(str(getattr(error, "orig", None) or error).split()) or type(error).__name__, 200)
        raise RunsError(f"{_public(place)}: can't be read as a storage of Optuna: {reason}") from error
    started = [trial for trial in trials if trial.state.name in _STATES]
    runs = [_run(trial, names) for trial in started]
    return source_of(f"{_public(place)}#{study.study_name}", runs, notes=_notes(names, directions, started, trials))


def _split(text: str) -> tuple[str, str]:
    """Split off the study's name."""
    place, _, name = text.rpartition("#")
    return (place, name) if place and not Path(text).exists() else (text, "")


def _public(place: str) -> str:
    """The storage without a password, as messages show it."""
    return brief(re.sub(r"://[^@/]*@", "://***@", place).removeprefix("sqlite:///"), 200)


def _storage(place: str) -> Any:
    """Open a storage that exists: Optuna would make one."""
    import optuna  # noqa: PLC0415

    url = place if "://" in place else f"sqlite:///{place}"
    path = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///"):
        return _server_storage(url)
    if not path.is_file():
        raise RunsError(f"{brief(str(path), 200)}: no such file")
    if has_tables(path, _TABLES):
        return optuna.storages.RDBStorage(f"sqlite:///{read_only(path)}&uri=true")
    with path.open("rb") as file:
        if file.read(1) != b"{":
            raise RunsError(f"{brief(str(path), 200)}: is no storage of Optuna, neither a database nor a journal")
    return optuna.storages.JournalStorage(_ReadOnlyJournal(path))  # type: ignore[arg-type]  # it can read, not write


def _server_storage(url: str) -> Any:
    """Open a database on a server."""
    import optuna  # noqa: PLC0415
    import sqlalchemy as sa  # noqa: PLC0415

    connect = {"connect_timeout": 20} if url.startswith(("postgresql", "mysql")) else {}
    engine = sa.create_engine(url, connect_args=connect, poolclass=sa.pool.NullPool)
    if not set(sa.inspect(engine).get_table_names()) >= _TABLES:
        raise RunsError(f"{_public(url)}: is no storage of Optuna: it lacks its tables")
    return optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": connect})


def _choose(storage: Any, wanted: str, place: str) -> Any:
    import optuna  # noqa: PLC0415

    names = sorted(optuna.get_all_study_names(storage))
    shown = ", ".join(map(show, names[:10])) + (", ..." if len(names) > 10 else "") if names else "none"
    if wanted and wanted not in names:
        raise RunsError(f"{place}: has no study {show(wanted)}; it has {shown}")
    if not wanted and len(names) != 1:
        raise RunsError(f"{place}: has {len(names)} studies; name one: {place}#NAME, of {shown}")
    return optuna.load_study(study_name=wanted or names[0], storage=storage)


class _ReadOnlyJournal:
    """A journal's file: a line of JSON for each change. Optuna's own backend would lock it, and wait for the lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """The changes from a number on; a line at the end that is still being written is left out."""
        lines = read_bounded(self._path, _LARGEST_JOURNAL).splitlines(keepends=True)[log_number_from:]
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:  # noqa: ARG002
        """Nothing is ever written."""
        raise RuntimeError("the journal is only read")


def _numbered(directions: Sequence[str]) -> list[str]:
    return [f"value{index}" for index in range(len(directions))]


def _run(trial: Any, names: Sequence[str]) -> Run:
    values = dict(zip(names, trial.values or (), strict=False))
    metrics = [*values, *([_INTERMEDIATE] if trial.intermediate_values else [])]
    return Run(
        str(trial.number),
        metrics,
        partial(_read, values, trial.intermediate_values),
        trial.params,
        {name: value for name, value in trial.user_attrs.items() if isinstance(value, str | int | float)},
        _STATES[trial.state.name],
    )


def _read(values: dict[str, float], intermediate: dict[int, float], metrics: Collection[str]) -> Steps:
    """The values of the end are those of the last step."""
    steps: dict[int, dict[str, float]] = {}
    if _INTERMEDIATE in metrics:
        steps = {step: {_INTERMEDIATE: value} for step, value in intermediate.items() if not math.isnan(value)}
    if last := {name: value for name, value in values.items() if name in metrics}:
        steps.setdefault(max(intermediate, default=0), {}).update(last)
    return steps


def _notes(names: Sequence[str], directions: Sequence[str], started: Sequence[Any], trials: Sequence[Any]) -> list[str]:
    aims = " and ".join(f"{direction}s {show(name)[1:-1]}" for name, direction in zip(names, directions, strict=False))
    notes = [f"The study {aims}."]
    if not all("grid_id" in trial.system_attrs for trial in started):
        notes.append(
            "Optuna may have chosen trials by earlier results; then those of an arm are not independent of each other."
        )
    states = Counter(trial.state.name for trial in trials)
    if pruned := states["PRUNED"]:
        notes.append(f"{pruned} of {len(started)} trials were pruned for their bad results; they count as failed.")
    if waiting := states["WAITING"]:
        notes.append(f"{waiting} {'trials' if waiting > 1 else 'trial'} never started left out.")
    return notes


IMPORTERS.register("optuna")(Importer("a database of Optuna or optuna:URL#STUDY", is_optuna, open_optuna))
