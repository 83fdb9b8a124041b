"""MLflow: a tracking server, a database or an ``mlruns`` folder; ``#EXPERIMENT`` behind it chooses one of several.

All three are read as they are, without MLflow's library, which weighs a hundred megabytes, refuses databases of other
versions, and makes its tables in a database that has none.
"""

from collections.abc import Sequence
from pathlib import Path

from fairtrial.errors import RunsError
from fairtrial.importers.base import Given, Importer, Source, path_of
from fairtrial.importers.mlflow_server import ServerStore
from fairtrial.importers.mlflow_stores import DatabaseStore, Experiment, FolderStore, Store, StoredRun
from fairtrial.importers.sqlite_files import has_tables
from fairtrial.importers.tracked import Run, note_on_repeats, source_of
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief, show

_TABLES = {"experiments", "runs", "metrics", "latest_metrics", "params"}
_STATUSES = {
    "FINISHED": "finished",
    "FAILED": "failed",
    "KILLED": "failed",
    "RUNNING": "running",
    "SCHEDULED": "running",
}


def is_mlflow(given: Given) -> bool:
    """Tell whether it is a folder or a database of MLflow's."""
    if path_of(given) is None:
        return False
    place, _ = _split(str(given))
    try:
        path = Path(place)
        return any(path.glob("*/meta.yaml")) if path.is_dir() else has_tables(path, _TABLES)
    except (OSError, ValueError):
        return False


def open_mlflow(given: Given) -> Source:
    """Open an experiment: ``mlruns``, ``mlflow.db``, ``sqlite:///mlflow.db`` or ``http://HOST:PORT``, with ``#NAME``.

    Raises:
        RunsError: the server does not answer, the store is damaged, or it has several experiments and none is named.
    """
    place, wanted = _split(str(given))
    store = _store(place)
    experiment = _choose(store, wanted)
    found = store.runs(experiment)
    runs = [run for run in found if not run.is_deleted]
    parents = {run.parent for run in runs}
    containers = [run for run in runs if run.id in parents and not run.metrics]
    kept = [run for run in runs if run not in containers]
    notes = [*note_on_repeats(store.repeated(experiment))]
    if deleted := len(found) - len(runs):
        notes.append(f"{_count(deleted, 'deleted run')} left out.")
    if containers:
        notes.append(f"{_count(len(containers), 'run')} left out that only contained others.")
    if nested := sum(run.id in parents for run in kept):
        notes.append(f"{_count(nested, 'run')} with metrics contained others; each counts as a run of its own.")
    return source_of(f"{store.name}#{experiment.name}", [_run(store, run) for run in kept], notes=notes)


def _split(text: str) -> tuple[str, str]:
    """Split off the experiment; a path may have a # in it."""
    place, _, experiment = text.rpartition("#")
    return (place, experiment) if place and not Path(text).exists() else (text, "")


def _store(place: str) -> Store:
    if place.startswith(("http://", "https://")):
        return ServerStore(place)
    path = Path(place.removeprefix("file://"))
    if "://" in place and not place.startswith("file://"):
        return DatabaseStore(place)
    if path.is_dir():
        return FolderStore(path)
    if not path.exists():
        raise RunsError(f"{brief(place, 200)}: no such file or folder")
    return DatabaseStore(f"sqlite:///{path}")


def _choose(store: Store, wanted: str) -> Experiment:
    experiments, where = store.experiments(), brief(store.name, 200)
    if wanted:
        chosen = [one for one in experiments if one.name == wanted] or [one for one in experiments if one.id == wanted]
        if not chosen:
            raise RunsError(f"{where}: has no experiment {show(wanted)}; it has {_names(experiments)}")
        return chosen[0]
    filled = experiments if len(experiments) < 2 else [one for one in experiments if store.has_runs(one)]
    if not filled:
        raise RunsError(f"{where}: has no runs")
    if len(filled) > 1:
        raise RunsError(
            f"{where}: has {len(filled)} experiments with runs; name one: {where}#NAME, of {_names(filled)}"
        )
    return filled[0]


def _names(experiments: Sequence[Experiment]) -> str:
    shown = ", ".join(show(one.name) for one in experiments[:10]) + (", ..." if len(experiments) > 10 else "")
    return shown or "none"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{' is' if number == 1 else 's are'}".replace("run are", "runs are")


def _run(store: Store, run: StoredRun) -> Run:
    labels = {"name": run.name} if run.name else {}
    return Run(
        run.id,
        run.metrics,
        lambda names: store.read(run, names),
        run.params,
        labels,
        _STATUSES.get(run.status, "running"),
    )


IMPORTERS.register("mlflow")(
    Importer(
        "MLflow's mlruns or mlflow.db or mlflow:http://HOST#EXPERIMENT",
        is_mlflow,
        open_mlflow,
    )
)
