"""Folders of CSV files, a run each: Lightning's ``metrics.csv`` with its ``hparams.yaml``, and Keras's `CSVLogger`."""

import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

from fairtrial.errors import RunsError
from fairtrial.files import open_regular
from fairtrial.importers import tables
from fairtrial.importers.base import Given, Importer, Source
from fairtrial.importers.folders import files_in, has_files, labels_of, naturally
from fairtrial.importers.tracked import Run, Steps, merge, note_on_repeats, number, source_of, step_of
from fairtrial.importers.yaml_files import load_yaml
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief

#: Columns that count a run's rows, the best first.
_COUNTS = ("step", "epoch")
#: Steps that are kept to see whether one is repeated.
_MOST_STEPS = 100_000


def is_csv_folder(given: Given) -> bool:
    """Tell whether a folder has CSV files of loggers."""
    return has_files(given, lambda path: _is_csv(path.name) and _counts(path))


def open_csv_folder(given: Given) -> Source:
    """Open a folder of CSV files; each is a run, called by its path, or that of its folder for a ``metrics.csv``.

    Raises:
        RunsError: a file is damaged, or there is none with a column ``epoch`` or ``step``.
    """
    root = Path(given)
    files = sorted(files_in(root, _is_csv), key=naturally)
    logs = [(path, log) for path in files if set(_COUNTS) & set((log := tables.open_table(path)).columns)]
    if not logs:
        raise RunsError(
            f'{brief(str(root), 200)}: has no CSV file with a column "epoch" or "step", as loggers write them'
        )
    count = next(count for count in _COUNTS if all(count in log.columns for _, log in logs) or count == "epoch")
    if without := [path for path, log in logs if count not in log.columns]:
        raise RunsError(f"{brief(str(without[0]), 200)}: has no column {count}, which other files of the folder have")
    repeats: set[str] = set()
    runs = [_run(root, path, log, count, repeats) for path, log in logs]
    notes = ["CSV logs don't say how a run ended; one that was cut off counts as it stands.", *note_on_repeats(repeats)]
    return source_of(root.name or str(root), runs, epoch=count, notes=notes)


def _is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".tsv"))


def _counts(path: Path) -> bool:
    """Tell whether the first line of a file names a step or an epoch."""
    try:
        with open_regular(path, follow=True) as file:
            names = re.split(r"[,;\t]", file.readline(2**16).decode("utf-8-sig", "replace"))
    except OSError:
        return False
    return any(name.strip().strip('"') in _COUNTS for name in names)


def _run(root: Path, path: Path, log: Source, count: str, repeats: set[str]) -> Run:
    lightning = path.name == "metrics.csv"
    place = (path.parent if lightning else path.with_suffix("")).relative_to(root)
    settings, labels = labels_of(place)
    hparams = path.with_name("hparams.yaml")
    if lightning and hparams.exists():
        settings |= load_yaml(hparams)
    metrics = [column for column in log.columns if column != count]
    _read(log, count, metrics, repeats)
    return Run(str(place) if place.parts else root.name, metrics, partial(_read, log, count), settings, labels)


def _read(log: Source, count: str, metrics: Collection[str], repeats: set[str] | None = None) -> Steps:
    """Read metrics by step: rows of one step are joined, since Lightning writes training and evaluation in two."""
    steps: dict[int, dict[str, float]] = {}
    for batch in log.read([count, *metrics]):
        columns = [column.to_pylist() for column in batch.columns]
        for at, *cells in zip(*columns, strict=True):
            if (step := step_of(at)) is None:
                continue
            numbers = zip(metrics, map(number, cells), strict=True)
            values = {name: value for name, value in numbers if value is not None}
            changed = merge(steps.setdefault(step, {}), values)
            if repeats is not None:
                repeats |= changed
                if len(steps) > _MOST_STEPS:
                    steps.clear()
    return steps


IMPORTERS.register("csv_logs")(
    Importer(
        "a folder of CSV logs (lightning_logs or of Keras)",
        is_csv_folder,
        open_csv_folder,
        general=True,
    )
)
