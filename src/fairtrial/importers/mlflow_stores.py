"""Where MLflow keeps runs on this machine: folders and databases, each read by its documented layout."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fairtrial.errors import RunsError
from fairtrial.files import read_bounded
from fairtrial.importers.sqlite_files import read_only
from fairtrial.importers.tracked import MOST_RUNS, Steps, number, step_of
from fairtrial.importers.yaml_files import load_yaml
from fairtrial.spec.messages import brief, show

#: Bytes of a file of one parameter or metric.
_LARGEST_PARAM, _LARGEST_METRIC = 2**20, 2**28
_TIMEOUT_SECONDS = 20
#: Statuses in an ``mlruns`` folder, which has the numbers of MLflow's protocol.
_STATUS_NUMBERS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}
#: What a database has for infinity.
_LARGEST_FLOAT = 1.7976931348623157e308


@dataclass(frozen=True)
class Experiment:
    """An experiment, by MLflow's number and its name."""

    id: str
    name: str


@dataclass(frozen=True)
class StoredRun:
    """A run as a store has it; `metrics` are names."""

    id: str
    name: str
    status: str
    is_deleted: bool
    params: Mapping[str, str] = field(compare=False)
    metrics: Collection[str] = field(compare=False)
    parent: str | None = None


class Store(Protocol):
    """Where runs are; every method raises `RunsError` if it can't be read."""

    name: str

    def experiments(self) -> list[Experiment]:
        """Those that were not deleted."""
        ...

    def has_runs(self, experiment: Experiment) -> bool:
        """Whether it has any that were not deleted."""
        ...

    def runs(self, experiment: Experiment) -> list[StoredRun]:
        """All runs, deleted ones too."""
        ...

    def repeated(self, experiment: Experiment) -> set[str]:
        """Metrics of which some run has several values at a step, as far as the store knows without reading all."""
        ...

    def read(self, run: StoredRun, metrics: Collection[str]) -> Steps:
        """Values by step and metric; the latest, by time, of each step."""
        ...


class FolderStore:
    """An ``mlruns`` folder: a folder for each experiment, in it one for each run, in it a file for each value."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name or str(path)
        self._folders: dict[str, Path] = {}

    def experiments(self) -> list[Experiment]:
        """Those that were not deleted; a deleted one is in ``.trash``."""
        found = []
        for meta in sorted(self.path.glob("*/meta.yaml")):
            table = load_yaml(meta)
            if "experiment_id" in table and table.get("lifecycle_stage") != "deleted":
                found.append(Experiment(meta.parent.name, str(table.get("name", meta.parent.name))))
        if not found:
            raise RunsError(f"{brief(str(self.path), 200)}: has no experiments of MLflow")
        return found

    def has_runs(self, experiment: Experiment) -> bool:
        """Whether it has any that were not deleted."""
        return any(table.get("lifecycle_stage") != "deleted" for _, table in self._metas(experiment))

    def runs(self, experiment: Experiment) -> list[StoredRun]:
        """All runs, by the time of their start."""
        found = sorted(self._metas(experiment), key=lambda one: (number(one[1].get("start_time")) or 0, one[0].name))
        return [self._run(folder, table) for folder, table in found]

    def repeated(self, experiment: Experiment) -> set[str]:
        """Metrics of which some run has several values at a step."""
        found: set[str] = set()
        for run in self.runs(experiment):
            for metric in () if run.is_deleted else run.metrics:
                if metric not in found:
                    steps = [step for _, step, _ in self._lines(self._folders[run.id], metric)]
                    found |= {metric} if len(set(steps)) < len(steps) else set()
        return found

    def read(self, run: StoredRun, metrics: Collection[str]) -> Steps:
        """Values by step and metric."""
        steps: dict[int, dict[str, float]] = {}
        for metric in metrics:
            if metric in run.metrics:
                for _, step, value in sorted(self._lines(self._folders[run.id], metric), key=lambda line: line[0]):
                    steps.setdefault(step, {})[metric] = value
        return steps

    def _metas(self, experiment: Experiment) -> Iterator[tuple[Path, dict[str, Any]]]:
        for meta in sorted((self.path / experiment.id).glob("*/meta.yaml")):
            table = load_yaml(meta)
            if "run_id" in table or "run_uuid" in table:  # a logged model has neither
                yield meta.parent, table

    def _run(self, folder: Path, table: dict[str, Any]) -> StoredRun:
        identity = str(table.get("run_id", table.get("run_uuid")))
        self._folders[identity] = folder
        params = {name: _text(folder / "params" / name) for name in _names(folder / "params")}
        tags = {name: _text(folder / "tags" / name) for name in _names(folder / "tags") if name.startswith("mlflow.")}
        return StoredRun(
            identity,
            str(table.get("run_name") or table.get("name") or tags.get("mlflow.runName", "")),
            _STATUS_NUMBERS.get(table.get("status", 0), str(table.get("status"))),
            table.get("lifecycle_stage") == "deleted",
            params,
            _names(folder / "metrics"),
            tags.get("mlflow.parentRunId"),
        )

    @staticmethod
    def _lines(folder: Path, metric: str) -> Iterator[tuple[float, int, float]]:
        """Time, step and value of each line; those of MLflow before 1.0 have no step."""
        path = folder / "metrics" / metric
        for line in _text(path, _LARGEST_METRIC).splitlines():
            parts = line.split()
            time, value = (number(part) for part in parts[:2]) if len(parts) > 1 else (None, None)
            step = step_of(parts[2]) if len(parts) > 2 else 0
            if time is None or value is None or step is None:
                raise RunsError(f"{brief(str(path), 200)}: a line is damaged: {brief(line)}")
            yield time, step, value


class DatabaseStore:
    """A database; of SQLite it is opened to be read only."""

    def __init__(self, url: str) -> None:
        import sqlalchemy as sa  # noqa: PLC0415

        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError as error:
            raise RunsError(f"mlflow:{brief(url.partition('://')[0])}://...: is no URL of a database") from error
        self.name = parsed.render_as_string(hide_password=True)
        if parsed.get_backend_name() == "sqlite":
            path = Path(parsed.database or "")
            self.name = path.name
            if not path.is_file():
                raise RunsError(f"{brief(str(path), 200)}: no such file")
            parsed = sa.make_url(f"sqlite:///{read_only(path)}&uri=true")
        connect = {"connect_timeout": _TIMEOUT_SECONDS} if parsed.get_backend_name() == "postgresql" else {}
        try:
            self._engine = sa.create_engine(parsed, connect_args=connect, poolclass=sa.pool.NullPool)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise RunsError(f"{brief(self.name, 200)}: {brief(' '.join(str(error).split()), 200)}") from error

    def experiments(self) -> list[Experiment]:
        """Those that were not deleted."""
        rows = self._rows("SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active' ORDER BY 1")
        return [Experiment(str(identity), str(name)) for identity, name in rows]

    def has_runs(self, experiment: Experiment) -> bool:
        """Whether it has any that were not deleted."""
        query = "SELECT 1 FROM runs WHERE experiment_id = :e AND lifecycle_stage = 'active' LIMIT 1"
        return bool(self._rows(query, e=int(experiment.id)))

    def runs(self, experiment: Experiment) -> list[StoredRun]:
        """All runs, by the time of their start."""
        e = int(experiment.id)
        join = "JOIN runs r ON r.run_uuid = x.run_uuid WHERE r.experiment_id = :e"
        params, tags, metrics = self._tables(join, e)
        query = (
            "SELECT run_uuid, name, status, lifecycle_stage FROM runs WHERE experiment_id = :e "
            "ORDER BY start_time, run_uuid LIMIT :most"
        )
        return [
            StoredRun(
                identity,
                str(name or tags.get(identity, {}).get("mlflow.runName", "")),
                str(status),
                stage == "deleted",
                params.get(identity, {}),
                list(metrics.get(identity, {})),
                tags.get(identity, {}).get("mlflow.parentRunId"),
            )
            for identity, name, status, stage in self._rows(query, e=e, most=MOST_RUNS + 1)
        ]

    def repeated(self, experiment: Experiment) -> set[str]:
        """Metrics of which some run has several values at a step."""
        query = (
            "SELECT DISTINCT x.key FROM metrics x JOIN runs r ON r.run_uuid = x.run_uuid WHERE r.experiment_id = :e "
            "AND r.lifecycle_stage = 'active' GROUP BY x.run_uuid, x.key, x.step HAVING COUNT(*) > 1"
        )
        return {str(key) for (key,) in self._rows(query, e=int(experiment.id))}

    def read(self, run: StoredRun, metrics: Collection[str]) -> Steps:
        """Values by step and metric."""
        steps: dict[int, dict[str, float]] = {}
        for metric in metrics:
            query = (
                "SELECT x.step, x.value, x.is_nan FROM metrics x WHERE x.run_uuid = :r AND x.key = :k "
                "ORDER BY x.step, x.timestamp, x.value"
            )
            for step, value, is_nan in self._rows(query, r=run.id, k=metric):
                at, found = step_of(step), math.nan if is_nan else number(value)
                if at is None or found is None:
                    raise RunsError(f"{brief(self.name, 200)}: {show(metric)} of run {brief(run.id)} is damaged")
                steps.setdefault(at, {})[metric] = _with_infinity(found)
        return steps

    def _tables(self, join: str, e: int) -> list[dict[str, dict[str, str]]]:
        """Parameters, tags and the names of metrics, of each run."""
        found = []
        for columns in ("x.key, x.value FROM params", "x.key, x.value FROM tags", "x.key, '' FROM latest_metrics"):
            by_run: dict[str, dict[str, str]] = {}
            for identity, key, value in self._rows(f"SELECT x.run_uuid, {columns} x {join}", e=e):
                by_run.setdefault(identity, {})[str(key)] = str(value)
            found.append(by_run)
        return found

    def _rows(self, query: str, **values: object) -> list[Any]:
        import sqlalchemy as sa  # noqa: PLC0415

        try:
            with self._engine.connect() as connection:
                return list(connection.execute(sa.text(query), values))
        except (sa.exc.SQLAlchemyError, ValueError, TypeError) as error:
            reason = str(getattr(error, "orig", None) or error)
            text = brief(" ".join(reason.split()), 200)
            raise RunsError(f"{brief(self.name, 200)}: can't be read as a database of MLflow: {text}") from error


def _with_infinity(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST_FLOAT else value


def _names(folder: Path) -> list[str]:
    """The names of files in a folder; a name with slashes is in folders of its own."""
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


def _text(path: Path, limit: int = _LARGEST_PARAM) -> str:
    try:
        return read_bounded(path, limit).decode("utf-8", "replace")
    except OSError as error:
        raise RunsError(f"{brief(str(path), 200)}: {error.strerror or error}") from error
