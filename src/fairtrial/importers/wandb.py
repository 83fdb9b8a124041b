"""Weights & Biases: run folders on this machine, projects of a server, and exports of its table of runs."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairtrial.errors import RunsError
from fairtrial.importers import tables
from fairtrial.importers.base import Given, Importer, Source, path_of
from fairtrial.importers.folders import files_in, naturally
from fairtrial.importers.tracked import SUMMARY, Run, Steps, note_on_repeats, number, source_of
from fairtrial.importers.wandb_files import RunFile, numbers
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief

if TYPE_CHECKING:
    import pyarrow as pa

#: How runs of W&B end. "Crashed" is what the server calls a run that it no longer hears from.
_STATES = {"finished": "finished", "failed": "failed", "crashed": "failed", "killed": "failed", "preempted": "failed"}
#: Columns that an export of the table of runs has, whatever the project logs.
_EXPORTED = {"Name", "State", "Created"}
_TIMEOUT_SECONDS = 20


def is_wandb(given: Given) -> bool:
    """Tell whether it is a folder of W&B's, one of its run files, or an export."""
    if (path := path_of(given)) is None:
        return False
    try:
        if path.suffix == ".csv":
            return path.is_file() and _is_export(_head(path))
        return path.suffix == ".wandb" or any(any(path.glob(f"{depth}run-*.wandb")) for depth in ("", "*run-*/"))
    except OSError:
        return False


def open_wandb(given: Given) -> Source:
    """Open runs of W&B: a folder ``wandb``, a run file, an export, or ``ENTITY/PROJECT`` of a server.

    Raises:
        RunsError: a file is damaged, there are no runs, or the server does not answer.
    """
    path = Path(given)
    if path.exists():
        return _open_export(path) if path.suffix == ".csv" else _open_folder(path)
    if re.fullmatch(r"[^/\s]+/[^/\s]+", str(given)):
        return _open_project(str(given))
    raise RunsError(f"wandb:{brief(str(given), 200)}: no such folder; a project is written wandb:ENTITY/PROJECT")


def _open_folder(path: Path) -> Source:
    files = [path] if path.is_file() else sorted(files_in(path, lambda name: name.endswith(".wandb")), key=naturally)
    if not files:
        raise RunsError(f"{brief(str(path), 200)}: has no run files (run-*.wandb)")
    by_run: dict[str, list[Path]] = {}
    for file in files:  # of one run that was resumed: the folders' names begin with the time of the start
        by_run.setdefault(file.stem.removeprefix("run-"), []).append(file)
    scans = {name: _scan(files) for name, files in by_run.items()}
    scans = {name: scan for name, scan in scans.items() if scan.labels.get("job_type") != SUMMARY}
    notes = note_on_repeats({name for scan in scans.values() for name in scan.repeated})
    if killed := sum(scan.status == "running" for scan in scans.values()):
        notes.append(f"{killed} of {len(scans)} runs have no end: they were killed, or are still running.")
    runs = [
        Run(
            name,
            list(dict.fromkeys([*scan.names, *scan.summary])),
            partial(_read_files, by_run[name]),
            scan.settings,
            scan.labels,
            scan.status,
        )
        for name, scan in scans.items()
    ]
    return source_of(path.name or str(path), runs, notes=notes)


def _scan(files: Sequence[Path]) -> RunFile:
    """Read the files of a run once, and keep the names only of what is in its history."""
    run = RunFile()
    for file in files:
        run.add_file(file, None)
    run.history = {}
    return run


def _read_files(files: Sequence[Path], metrics: Collection[str]) -> Steps:
    run = RunFile()
    for file in files:
        run.add_file(file, metrics)
    return _with_summary(run.history, run.summary, metrics)


def _with_summary(history: dict[int, dict[str, float]], summary: dict[str, float], metrics: Collection[str]) -> Steps:
    """Add what is in the summary alone, at the last step."""
    logged = {name for values in history.values() for name in values}
    if only := {name: summary[name] for name in metrics if name in summary and name not in logged}:
        history.setdefault(max(history, default=0), {}).update(only)
    return {step: values for step, values in history.items() if values}


def _head(path: Path) -> Sequence[str]:
    try:
        return tables.open_table(path).columns
    except RunsError:
        return ()


def _is_export(columns: Sequence[str]) -> bool:
    return set(columns) >= _EXPORTED or _is_chart(columns)


def _is_chart(columns: Sequence[str]) -> bool:
    """An export of a chart has a column for each run, and two for the ends of its band."""
    return len(columns) > 3 and any(f"{one}__MIN" in columns and f"{one}__MAX" in columns for one in columns)


def _open_export(path: Path) -> Source:
    table = tables.open_table(path)
    if _is_chart(table.columns):
        raise RunsError(
            f"{brief(str(path), 200)}: is the export of a chart of W&B, which lacks the settings of runs; export the "
            "table of runs instead, or write wandb:ENTITY/PROJECT"
        )
    if "State" not in table.columns:
        return table
    notes = ("An export of W&B's table has the last value of each metric only.",)
    return replace(table, read=partial(_read_export, table), status="State", notes=notes)


def _read_export(table: Source, columns: Sequence[str]) -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa  # noqa: PLC0415

    for batch in table.read(columns):
        if "State" in columns:
            states = [_STATES.get(str(state).lower(), "running") for state in batch.column("State").to_pylist()]
            batch = batch.set_column(columns.index("State"), "State", pa.array(states))  # noqa: PLW2901
        yield batch


def _open_project(name: str) -> Source:
    try:
        import wandb  # noqa: PLC0415
    except ImportError as error:
        raise RunsError(f"wandb:{brief(name)}: needs W&B's library: pip install 'fairtrial[wandb]'") from error
    try:
        found = wandb.Api(timeout=_TIMEOUT_SECONDS).runs(name)
        runs = [_server_run(run) for run in found if getattr(run, "job_type", None) != SUMMARY]
    except (wandb.Error, OSError, ValueError, TypeError, AttributeError) as error:
        raise RunsError(f"wandb:{brief(name)}: {_reason(error)}") from error
    return source_of(f"wandb:{name}", runs)


def _server_run(run: Any) -> Run:
    own = dict(getattr(run, "summary_metrics", None) or run.summary)
    summary = {name: one for key, value in own.items() for name, one in numbers([key], value)}
    names = [name for name in summary if not name.startswith("_")]
    settings = {name: value for name, value in dict(run.config).items() if name != "_wandb"}
    kept = {name: label for name in ("name", "group", "job_type") if (label := getattr(run, name, None))}
    return Run(run.id, names, _Downloads(run, summary), settings, kept, _STATES.get(run.state, "running"))


class _Downloads:
    """Reads a run's history from the server, each metric once."""

    def __init__(self, run: Any, summary: dict[str, float]) -> None:
        self._run, self._summary = run, summary
        self._known: dict[str, dict[int, float]] = {}

    def __call__(self, metrics: Collection[str]) -> Steps:
        import wandb  # noqa: PLC0415

        history: dict[int, dict[str, float]] = {}
        try:
            for name in metrics:
                if name not in self._known:
                    rows = self._run.scan_history(keys=["_step", name])  # rows that have both
                    pairs = ((int(row["_step"]), number(row.get(name))) for row in rows)
                    self._known[name] = {step: value for step, value in pairs if value is not None}
                for step, value in self._known[name].items():
                    history.setdefault(step, {})[name] = value
        except (wandb.Error, OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise RunsError(f"run {brief(str(self._run.id))} of W&B: {_reason(error)}") from error
        return _with_summary(history, self._summary, metrics)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if "api_key" in text.lower() or "api key" in text.lower():
        return "W&B's library has no key; set WANDB_API_KEY or run `wandb login`"
    return brief(text or type(error).__name__, 300)


IMPORTERS.register("wandb")(Importer("a wandb folder or wandb:ENTITY/PROJECT", is_wandb, open_wandb))
