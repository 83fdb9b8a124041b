"""Hugging Face's ``trainer_state.json``: its trainer writes one into each checkpoint, with a run's log so far."""

import json
import re
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from fairtrial.errors import RunsError
from fairtrial.files import read_bounded
from fairtrial.importers.base import Given, Importer, Source, path_of
from fairtrial.importers.folders import files_in, has_files, labels_of, naturally
from fairtrial.importers.tracked import Run, Steps, merge, note_on_repeats, number, source_of, step_of
from fairtrial.registry import IMPORTERS
from fairtrial.spec.messages import brief

_NAME = "trainer_state.json"
_LARGEST = 2**27
#: What a state says of the settings; the others are in a pickle, which is not opened.
_SETTINGS = ("num_train_epochs", "train_batch_size", "max_steps")


def is_trainer_folder(given: Given) -> bool:
    """Tell whether a folder has such files, or one is given."""
    path = path_of(given)
    return path is not None and (path.name == _NAME or has_files(given, lambda file: file.name == _NAME))


def open_trainer_states(given: Given) -> Source:
    """Open a folder of runs, each with checkpoints in it; a run is called by the path of its folder.

    Raises:
        RunsError: a file is damaged, or there is none.
    """
    path = Path(given)
    root = path.parent if path.name == _NAME else path
    newest: dict[Path, Path] = {}
    for file in sorted([path] if root != path else files_in(root, lambda name: name == _NAME), key=_age):
        is_checkpoint = re.fullmatch(r"checkpoint-\d+", file.parent.name) and file.parent != root
        newest[file.parent.parent if is_checkpoint else file.parent] = file
    if not newest:
        raise RunsError(f"{brief(str(root), 200)}: has no {_NAME}")
    repeats: set[str] = set()
    runs = [_run(root, folder, newest[folder], repeats) for folder in sorted(newest, key=naturally)]
    notes = [
        f"{_NAME} has few of the settings of training; others are known from the folders' names only.",
        *note_on_repeats(repeats),
    ]
    return source_of(root.name or str(root), runs, notes=notes)


def _age(path: Path) -> tuple[bool, int, str]:
    """Sort checkpoints by their step, and what `Trainer.save_state` wrote at the end behind them."""
    step = re.fullmatch(r"checkpoint-(\d{1,18})", path.parent.name)
    return step is None, int(step[1]) if step else 0, str(path)


def _run(root: Path, folder: Path, file: Path, repeats: set[str]) -> Run:
    state = _load(file)
    settings, labels = labels_of(folder.relative_to(root))
    trial = state.get("trial_params")
    settings |= {name: state[name] for name in _SETTINGS if name in state} | (trial if isinstance(trial, dict) else {})
    if state.get("trial_name"):
        labels["trial"] = str(state["trial_name"])
    steps = _steps(file, state, repeats)
    names = dict.fromkeys(name for values in steps.values() for name in values)
    is_whole = _is_stopped(state) or (number(state.get("global_step")) or 0) >= (number(state.get("max_steps")) or 1)
    place = folder.relative_to(root)
    name = str(place) if place.parts else root.resolve().name
    return Run(name, list(names), partial(_read, file), settings, labels, "finished" if is_whole else "running")


def _load(file: Path) -> dict[str, Any]:
    try:
        state = json.loads(read_bounded(file, _LARGEST))
    except OSError as error:
        raise RunsError(f"{brief(str(file), 200)}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RunsError(f"{brief(str(file), 200)}: is no JSON file, or a damaged one") from error
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise RunsError(f"{brief(str(file), 200)}: has no log_history, as a trainer of Hugging Face writes it")
    return state


def _is_stopped(state: dict[str, Any]) -> bool:
    """Whether a callback ended training, as early stopping does; of versions from 4.42 on."""
    found: Any = state
    for key in ("stateful_callbacks", "TrainerControl", "args", "should_training_stop"):
        found = found.get(key) if isinstance(found, dict) else None
    return found is True


def _read(file: Path, metrics: Collection[str]) -> Steps:
    steps = _steps(file, _load(file))
    kept = {step: {name: values[name] for name in metrics if name in values} for step, values in steps.items()}
    return {step: values for step, values in kept.items() if values}


def _steps(file: Path, state: dict[str, Any], repeats: set[str] | None = None) -> Steps:
    steps: dict[int, dict[str, float]] = {}
    for entry in state["log_history"]:
        step = step_of(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            raise RunsError(f"{brief(str(file), 200)}: log_history has an entry without a step")
        values = {str(key): one for key, value in entry.items() if key != "step" and (one := number(value)) is not None}
        changed = merge(steps.setdefault(step, {}), values)
        if repeats is not None:
            repeats |= changed
    return steps


IMPORTERS.register("trainer_state")(Importer(f"a folder with {_NAME}", is_trainer_folder, open_trainer_states))
