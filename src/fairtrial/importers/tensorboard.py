"""TensorBoard's event files: each folder that has some is a run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fairtrial.errors import RunsError
from fairtrial.importers.base import Given, Importer, Source
from fairtrial.importers.event_files import NO_RUN, EventLog
from fairtrial.importers.folders import files_in, has_files, labels_of, naturally
from fairtrial.importers.tracked import Run, Steps, note_on_repeats, source_of
from fairtrial.importers.yaml_files import load_yaml
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief

#: Folders for parts of one run: Keras writes training and validation in two, estimators evaluation in a third.
_PARTS = frozenset({"train", "training", "validation", "val", "eval", "test"})


@dataclass
class _Folder:
    """A folder with event files, and what is in them but for the values."""

    path: Path
    files: list[Path]
    log: EventLog
    repeats: set[str]
    #: Folders whose event files belong to the same run, by what their tags begin with.
    parts: dict[str, "_Folder"] = field(default_factory=dict)


def is_event_folder(given: Given) -> bool:
    """Tell whether a folder has event files."""
    return has_files(given, lambda path: _is_event_file(path.name))


def open_events(given: Given) -> Source:
    """Open a folder of runs; each is called by the path of its folder.

    Folders that one run leaves are taken as one: those of Keras for training and validation, and those that torch's
    ``add_hparams`` and ``add_scalars`` make.

    Raises:
        RunsError: a file is damaged, or there is none.
    """
    root = Path(given)
    by_folder: dict[Path, list[Path]] = {}
    for path in sorted(files_in(root, _is_event_file), key=naturally):
        by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        raise RunsError(f"{brief(str(root), 200)}: has no event files (their names contain .tfevents.)")
    folders = _joined(root, {path: _scan(path, files) for path, files in by_folder.items()})
    several = sum(bool(folder.repeats) for folder in folders)
    notes = ["Event files don't say how a run ended; one that was cut off counts as it stands."]
    notes += note_on_repeats({tag for folder in folders for tag in folder.log.repeated})
    if several:
        notes.append(
            f"{several} of {len(folders)} runs have several event files with the same steps, as resumed runs have; "
            "the later file counts."
        )
    runs = [_run(root, folder) for folder in folders]
    return source_of(root.name or str(root), runs, notes=notes)


def _is_event_file(name: str) -> bool:
    return ".tfevents." in name and not name.endswith(".profile-empty") and NO_RUN not in name


def _scan(path: Path, files: list[Path]) -> _Folder:
    """Read everything of a folder once; only the names are kept of the scalars."""
    log, repeats = _read_files(files)
    log.scalars = {tag: {} for tag in log.scalars}
    return _Folder(path, files, log, repeats)


def _read_files(files: Sequence[Path]) -> tuple[EventLog, set[str]]:
    log, repeats = EventLog(), set[str]()
    for path in files:
        repeats |= log.add_file(path)
    return log, repeats


def _joined(root: Path, folders: Mapping[Path, _Folder]) -> list[_Folder]:
    """Join folders that are parts of one run to the one that contains them."""
    runs = dict(folders)
    for path, folder in folders.items():
        if path == root:
            continue
        parent = folders.get(path.parent)
        if path.name.lower() in _PARTS:
            whole = runs.setdefault(path.parent, _Folder(path.parent, [], EventLog(), set()))
            whole.parts[f"{path.name}/"] = runs.pop(path)
        elif parent and (_is_of_add_scalars(folder) or _is_of_add_hparams(folder, parent, folders)):
            runs[path.parent].parts[f"{path.name}/" if _is_of_add_scalars(folder) else ""] = runs.pop(path)
    return [runs[path] for path in sorted(runs, key=naturally)]


def _is_of_add_scalars(folder: _Folder) -> bool:
    """The ``add_scalars("loss", {"train": ...})`` of torch makes a folder ``loss_train`` with the tag ``loss``."""
    tags = folder.log.scalars
    return bool(tags) and all(folder.path.name.startswith(tag.replace("/", "_") + "_") for tag in tags)


def _is_of_add_hparams(folder: _Folder, parent: _Folder, folders: Mapping[Path, _Folder]) -> bool:
    """The ``add_hparams`` of torch makes a folder in that of the run, which has no hyperparameters of its own."""
    return (
        bool(folder.log.settings)
        and not parent.log.settings
        and sum(bool(other.log.settings) for path, other in folders.items() if path.parent == parent.path) == 1
    )


def _run(root: Path, folder: _Folder) -> Run:
    place = folder.path.relative_to(root)
    settings, labels = labels_of(place)
    parts = [("", folder), *folder.parts.items()]
    metrics: dict[str, None] = {}
    files: list[tuple[str, list[Path]]] = []
    for prefix, part in parts:
        settings |= part.log.settings
        if (hparams := part.path / "hparams.yaml").is_file():
            settings |= load_yaml(hparams)
        metrics |= dict.fromkeys(f"{prefix}{tag}" for tag in part.log.scalars)
        files.append((prefix, part.files))
    statuses = {part.log.status for _, part in parts}
    status = next((one for one in ("failed", "running", "finished") if one in statuses), None)
    if any(part.log.is_cut_off for _, part in parts):
        status = "running"
    return Run(str(place) if place.parts else root.name, list(metrics), partial(_read, files), settings, labels, status)


def _read(files: Sequence[tuple[str, list[Path]]], metrics: Collection[str]) -> Steps:
    steps: dict[int, dict[str, float]] = {}
    for prefix, paths in files:
        log, _ = _read_files(paths)
        for tag, values in log.scalars.items():
            if f"{prefix}{tag}" in metrics:
                for step, value in values.items():
                    steps.setdefault(step, {})[f"{prefix}{tag}"] = value
    return steps


IMPORTERS.register("tensorboard")(
    Importer("a folder of TensorBoard's event files", is_event_folder, open_events, general=True)
)
