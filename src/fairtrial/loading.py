"""Loads a study from a file, a name or a hash."""

import codecs
import errno
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

from fairtrial.errors import StudyError, StudyNotFoundError
from fairtrial.files import read_bounded
from fairtrial.registry import names_from, on_path
from fairtrial.spec import LoopName, Origin, Study, override, parse_toml
from fairtrial.spec.hashing import is_name
from fairtrial.spec.limits import LARGEST_FILE, LONGEST_TEXT
from fairtrial.spec.messages import brief, show
from fairtrial.spec.tasks import of_task, task_names
from fairtrial.store.base import StoredStudy

_LABEL = re.compile(r"(?P<name>[^@]+)@(?P<hash>[0-9a-f]{4,64})")


def shipped_studies() -> list[str]:
    """List the studies that ship with the package."""
    files = resources.files("fairtrial.studies").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load(source: str | Path, overrides: Sequence[str] = (), stored: Sequence[StoredStudy] = ()) -> Study:
    """Load a study to run it.

    A name that ships with the package means the study as it ships, whatever was run under that name before. Any other
    name means the last study of that name in the store.

    Args:
        source: a TOML file, the name of a study that ships with the package, or NAME or NAME@HASH of a stored one.
        overrides: ``KEY=VALUE`` overrides, such as ``["training.epochs=3"]``.
        stored: the studies in the store, the one that ran last first.

    Raises:
        StudyError: no such study, or not a valid one; the message begins with the file's name.
    """
    if _is_file(source):
        return _load_file(Path(source), overrides)
    if source in shipped_studies():
        text = resources.files("fairtrial.studies").joinpath(f"{source}.toml").read_text(encoding="utf-8")
        return _build(text, str(source), Origin(str(source), tuple(overrides)))
    return _load_stored(str(source), overrides, stored)


def load_recorded(source: str | Path, overrides: Sequence[str], stored: Sequence[StoredStudy]) -> Study:
    """Load a study to read its results.

    A name without overrides means the last study of that name in the store; anything else means what `load` means.

    Raises:
        StudyError: no such study, or it has not been run in this store.
    """
    named = [study for study in stored if study.name == source]
    if named and not overrides and not _is_file(source):
        return rebuild(named[0])
    study = load(source, overrides, stored)
    if study.untuned:
        return found_tuned(study, stored)
    if any(study.hash == known.hash for known in stored):
        return study
    same_name = ", ".join(known.label for known in stored if known.name == study.name)
    hint = f"; this store has {same_name}" if same_name else ""
    raise StudyNotFoundError(f"{study.label} has not been run in this store{hint}")


def found_tuned(study: Study, stored: Sequence[StoredStudy]) -> Study:
    """What tuning made of a study; raises a `StudyNotFoundError` where it has not been tuned."""
    found = find_tuned(study, stored)
    if found is None:
        raise StudyNotFoundError(f"{study.label} has not been tuned to the end in this store: run it first")
    return found


def find_tuned(study: Study, stored: Sequence[StoredStudy]) -> Study | None:
    """Find what tuning made of a study, among the studies of a store; None if it has not been tuned there."""
    for one in stored:
        if one.name == study.name and study.hash in one.toml:
            tuning = parse_toml(one.toml).get("tuning", {})
            if tuning.get("of") == study.hash and "found" in tuning:
                return made_of(study, Study.from_toml(one.toml), {arm.name: arm.name for arm in study.arms})
    return None


def made_of(study: Study, made: Study, arms: Mapping[str, str]) -> Study:
    """Give a study that was made of another one's table what no table has: its origin, and loops that are functions.

    ``arms`` names for each arm the one of the other study that it was made of.
    """
    loops = {name: study.arm(arm).settings.training.loop for name, arm in arms.items()}
    if any(isinstance(loop, LoopName) for loop in loops.values()):
        own = []
        for arm in made.arms:
            training = arm.settings.training.model_copy(update={"loop": loops[arm.name]})
            own.append(arm.model_copy(update={"settings": arm.settings.model_copy(update={"training": training})}))
        made = made.model_copy(update={"arms": tuple(own)})
    return made.with_origin(study.origin)


@contextmanager
def importable(study: Study) -> Iterator[None]:
    """Find modules beside a study's file, after all others, if the study names something of the user's own."""
    names = [name for arm in study.arms for name in arm.settings.entries]
    names += [] if study.tuning is None else [study.tuning.metric]
    names += [study.evidence.metric, *(also.metric for also in study.evidence.also or ())]
    names += [claim.metric for claim in study.claims]
    users = any(":" in name and not name.startswith("fairtrial.") for name in names)
    with on_path(study.origin.folder or Path.cwd()) if users else nullcontext():
        yield


def _is_file(source: str | Path) -> bool:
    """Whether a source is a path: it ends in .toml or has a separator, which no study's name has."""
    if not isinstance(source, str | Path):
        raise StudyError(f"load({show(source)}): needs a file, or the name of a study")
    if len(str(source)) > LONGEST_TEXT:
        raise StudyError(f"{brief(str(source))}: no study or file has a name of {len(str(source)):,} characters")
    return isinstance(source, Path) or source.endswith(".toml") or "/" in source or "\\" in source


def task_names_of(source: str | Path, overrides: Sequence[str]) -> tuple[str, ...]:
    """Name the tasks of a file; none if it has no tasks, or if the overrides name one."""
    if not _is_file(source):
        return ()
    try:
        table = override(parse_toml(_read(Path(source))), overrides)
        return () if "task" in table else task_names(table)
    except StudyNotFoundError:
        raise
    except StudyError as error:
        raise type(error)(f"{source}: {error}") from error


def _load_file(path: Path, overrides: Sequence[str]) -> Study:
    text = _read(path)
    full = path.resolve()
    return _build(text, str(path), Origin(str(full), tuple(overrides), full.parent))


def _read(path: Path) -> str:
    try:
        content = read_bounded(path, LARGEST_FILE)
        if b"\0" in content or content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise StudyNotFoundError(f"{path}: looks like UTF-16, or is no text; save it as UTF-8")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        if isinstance(error, OSError) and error.errno == errno.EINVAL:  # a pipe can't be read again
            reason = f"{reason}; write the study to one"
        raise StudyNotFoundError(f"{path}: {reason}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _load_stored(reference: str, overrides: Sequence[str], stored: Sequence[StoredStudy]) -> Study:
    if found := _named(reference, stored):
        study = rebuild(found[0])
        return _build(found[0].toml, found[0].label, Origin(None, tuple(overrides))) if overrides else study
    labels = "@" in reference
    known = dict.fromkeys([*shipped_studies(), *(study.label if labels else study.name for study in stored)])
    raise StudyNotFoundError(
        f"{reference}: no file, no study that ships with fairtrial and none in this store; known: {', '.join(known)}"
    )


def _named(reference: str, stored: Sequence[StoredStudy]) -> list[StoredStudy]:
    """The stored studies of a name, the one that ran last first, or the one of NAME@HASH."""
    label = _LABEL.fullmatch(reference)
    if label is None:
        return [study for study in stored if study.name == reference]
    found = [study for study in stored if study.name == label["name"] and study.hash.startswith(label["hash"])]
    if len(found) > 1:
        raise StudyError(f"{reference}: matches {len(found)} studies; write more of the hash")
    return found


def find_stored(reference: str, stored: Sequence[StoredStudy]) -> StoredStudy:
    """Find the one study in a store that NAME or NAME@HASH means.

    Raises:
        StudyError: there is none, or more than one.
    """
    found = _named(reference, stored)
    if not found:
        known = ", ".join(study.label for study in stored) or "none"
        raise StudyNotFoundError(f"{reference}: no study of this store; it has {known}")
    if len(found) > 1:
        labels = ", ".join(study.label for study in found)
        raise StudyError(f"{reference}: {len(found)} studies have this name; name one of {labels}")
    return found[0]


def rebuild(found: StoredStudy) -> Study:
    """Build a study from its record in a store.

    Raises:
        StudyError: another release has other defaults or trains differently, so its records are not this study's.
    """
    study = _build(found.toml, found.label, Origin())
    if study.hash != found.hash:
        raise StudyError(
            f"{found.label}: was run by a release with other defaults or another training procedure; this one would "
            f"run it as {study.label}. Read its results with that release"
        )
    return study


def _build(text: str, name: str, origin: Origin) -> Study:
    try:
        table = parse_toml(text)
        if origin.folder is not None:
            table = _resolve_table(table, origin.folder)
        with names_from(origin.folder or Path.cwd()):
            changed = override(table, _resolve_overrides(origin.overrides))
            return Study.from_dict(of_task(changed)).with_origin(origin)
    except StudyError as error:
        raise type(error)(f"{name}: {error}") from error


def _resolve_table(table: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths in a study file absolute."""
    result = dict(table)
    for key in ("arms", "tasks"):
        if isinstance(table.get(key), Mapping):
            inner = table[key].items()
            result[key] = {k: _resolve_table(v, folder) if isinstance(v, Mapping) else v for k, v in inner}
    data, model = table.get("data"), table.get("model")
    if isinstance(data, Mapping) and isinstance(data.get("path"), str):
        result["data"] = {**data, "path": str(_absolute(folder / data["path"], "data.path"))}
    if isinstance(model, Mapping) and isinstance(model.get("weights"), str) and not is_name(model["weights"]):
        path = _absolute(folder / model["weights"], "model.weights")
        result["model"] = {**model, "weights": str(path)}
    return result


def _resolve_overrides(overrides: Sequence[str]) -> list[str]:
    """Make the paths in overrides absolute, from the working folder."""
    resolved: list[str] = []
    for text in overrides:
        key, equals, value = (part.strip() for part in text.partition("="))
        name = value.strip("'\"")
        if not equals or not key.endswith(("data.path", "model.weights")) or is_name(name):
            resolved.append(text)
            continue
        path = _absolute(Path(name), f"--set {brief(key)}")
        resolved.append(f"{key}={json.dumps(str(path))}")
    return resolved


def _absolute(path: Path, key: str) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # no home folder, a loop of links, a NUL character
        raise StudyError(f"{key} = {show(str(path))}: {error}") from error
