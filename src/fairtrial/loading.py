"""From what a user writes (a file, a name, NAME@HASH) to a study."""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fairtrial.errors import StudyError, StudyNotFoundError
from fairtrial.spec import Study, flatten, override, parse_toml
from fairtrial.store.base import StoredStudy

_LABEL = re.compile(r"(?P<name>[^@]+)@(?P<hash>[0-9a-f]{4,64})")


def shipped_studies() -> list[str]:
    """List the studies that ship with the package."""
    files = resources.files("fairtrial.studies").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(source: str | Path, assignments: Sequence[str] = ()) -> Study:
    """Read a study.

    Args:
        source: a TOML file, or the name of a study that ships with the package.
        assignments: ``KEY=VALUE`` overrides, such as ``["training.epochs=3"]``.

    Raises:
        StudyError: no such file, or not a study; the message begins with the file's name.
    """
    if source in shipped_studies():
        text = resources.files("fairtrial.studies").joinpath(f"{source}.toml").read_text(encoding="utf-8")
        return _build(text, assignments, str(source))
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise StudyNotFoundError(f"{path}: {reason}") from error
    return _build(text, assignments, str(path), folder=path.parent)


def find_to_run(reference: str, assignments: Sequence[str], stored: Sequence[StoredStudy]) -> Study:
    """Find the study that ``fairtrial run`` means.

    A name that ships with the package means the study as it ships, whatever was run under that name before; any other
    name means the one of that name that ran last.

    Args:
        reference: a TOML file, a name, or NAME@HASH.
        assignments: ``KEY=VALUE`` overrides.
        stored: the studies in the store, the one that ran last first.

    Raises:
        StudyError: no study answers to the reference, or it is not valid.
    """
    if _is_file(reference) or reference in shipped_studies():
        return load(reference, assignments)
    return _from_store(reference, assignments, stored)


def find_to_read(reference: str, assignments: Sequence[str], stored: Sequence[StoredStudy]) -> Study:
    """Find the study whose records a user wants to see.

    A bare name means the one of that name that ran last; with overrides it means what ``run`` with the same overrides
    means.

    Args:
        reference: a TOML file, a name, or NAME@HASH.
        assignments: ``KEY=VALUE`` overrides.
        stored: the studies in the store, the one that ran last first.

    Raises:
        StudyError: no study answers to the reference, or it has not been run in this store.
    """
    named = [study for study in stored if study.name == reference]
    if named and not assignments and not _is_file(reference):
        return _stored(named[0])
    study = find_to_run(reference, assignments, stored)
    if study.hash in {known.hash for known in stored}:
        return study
    same_name = [known.label for known in stored if known.name == study.name]
    hint = f"; this store has {', '.join(same_name)}" if same_name else ""
    raise StudyNotFoundError(f"{study.label} has not been run in this store{hint}")


def source_folder(reference: str) -> Path | None:
    """Name the folder that holds a study file; None for a study from the package or the store."""
    return Path(reference).resolve().parent if _is_file(reference) else None


def source(reference: str) -> str | None:
    """Name what a study is read from: a file's full path, or a name that ships; None for a study from the store."""
    if _is_file(reference):
        return str(Path(reference).resolve())
    return reference if reference in shipped_studies() else None


def _is_file(reference: str) -> bool:
    """Tell whether a reference is a path: it ends in .toml or has a separator in it, which no study's name has."""
    return reference.endswith(".toml") or "/" in reference or "\\" in reference


def _from_store(reference: str, assignments: Sequence[str], stored: Iterable[StoredStudy]) -> Study:
    label = _LABEL.fullmatch(reference)
    if label:
        found = [s for s in stored if s.name == label["name"] and s.hash.startswith(label["hash"])]
        if len(found) > 1:
            raise StudyError(f"{reference}: {len(found)} studies begin like this; write more of the hash")
    else:
        found = [s for s in stored if s.name == reference][:1]
    if found:
        study = _stored(found[0])
        return _build(found[0].toml, assignments, found[0].label) if assignments else study
    known = list(dict.fromkeys([*shipped_studies(), *(s.label if label else s.name for s in stored)]))
    raise StudyNotFoundError(
        f"{reference}: no file, no study that ships with fairtrial and none in this store; known: {', '.join(known)}"
    )


def _stored(found: StoredStudy) -> Study:
    """Build a study from the store, and make sure that it still means what it meant when it ran.

    Raises:
        StudyError: a release since has other defaults or trains otherwise, so its records are not this study's.
    """
    study = _build(found.toml, (), found.label)
    if study.hash != found.hash:
        raise StudyError(
            f"{found.label}: was run by a fairtrial with other settings or another way to train; this one would run "
            f"it as {study.label}. Its records stay in the store, for the release that made them"
        )
    return study


def _build(text: str, assignments: Sequence[str], source: str, folder: Path | None = None) -> Study:
    try:
        table = parse_toml(text)
        if folder is not None:
            table = _with_files(table, folder)
        table = override(table, _with_places(assignments))
        _make_importable(table, folder or Path.cwd())
        return Study.from_dict(table)
    except StudyError as error:
        raise type(error)(f"{source}: {error}") from error


def _make_importable(table: Mapping[str, Any], folder: Path) -> None:
    """Let classes that a study names as ``module:Name`` be found beside it; workers get this process's ``sys.path``."""
    names_code = any(key.endswith(".name") and ":" in str(value) for key, value in flatten(table))
    if names_code and str(folder.resolve()) not in sys.path:
        sys.path.insert(0, str(folder.resolve()))


def _with_files(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in a study file absolute, and pin each weights file by its digest unless the study states one."""
    result = dict(table)
    if isinstance(table.get("arms"), Mapping):
        arms = table["arms"].items()
        result["arms"] = {k: _with_files(v, folder) if isinstance(v, Mapping) else v for k, v in arms}
    data, model = table.get("data"), table.get("model")
    if isinstance(data, Mapping) and isinstance(data.get("path"), str):
        result["data"] = {**data, "path": str((folder / data["path"]).resolve())}
    if isinstance(model, Mapping) and isinstance(model.get("weights"), str):
        path = (folder / model["weights"]).resolve()
        result["model"] = {"weights_sha256": _sha256(path), **model} if "weights_sha256" not in model else dict(model)
        result["model"]["weights"] = str(path)
    return result


def _with_places(assignments: Sequence[str]) -> list[str]:
    """Make the paths in overrides absolute, from where the user stands, and pin each weights file by its digest."""
    placed: list[str] = []
    for assignment in assignments:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not key.endswith(("data.path", "model.weights")):
            placed.append(assignment)
            continue
        path = Path(text.strip("'\"")).expanduser().resolve()
        placed.append(f"{key}={json.dumps(str(path))}")
        if key.endswith("model.weights"):
            placed.append(f"{key}_sha256={json.dumps(_sha256(path))}")
    return placed


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f'model.weights = "{path}": {error.strerror}') from error
