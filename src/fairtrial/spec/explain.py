"""From pydantic's account of an error to one line that names the key, its place and what is allowed."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fairtrial.spec.sections import DEFAULT_KIND, KINDS, Settings

#: At most this many problems of one file are told at once.
MOST = 3

_TYPES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "missing": "is missing",
}


def explain(error: ValidationError, prefix: str = "", root: type[BaseModel] = Settings) -> str:
    """Tell what is wrong with a table in one line.

    Args:
        error: what pydantic found.
        prefix: where the table stands in the study, such as ``"arms.high_beta1"``.
        root: what the table was to become.

    Returns:
        ``"optimizer.betas[1] = 1.2: must lie in [0, 1)"`` and the like; several problems are joined by
        semicolons.
    """
    lines = [_line(details, prefix, root) for details in error.errors(include_url=False)]
    shown = "; ".join(lines[:MOST])
    return shown if len(lines) <= MOST else f"{shown}; and {len(lines) - MOST} more"


def place(parts: Sequence[str | int], prefix: str = "") -> str:
    """Write the place of a key as a path: ``arms.high_beta1.optimizer.betas[1]``."""
    path = prefix
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def did_you_mean(word: str, known: Iterable[str], else_try: Mapping[str, str] | None = None) -> str:
    """Suggest the nearest known word, or list all of them if none is near.

    Args:
        word: what was written.
        known: what could stand there.
        else_try: words that belong elsewhere, with the place of each.
    """
    names, elsewhere = list(known), else_try or {}
    if near := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return f"did you mean `{near[0]}`?"
    if near := difflib.get_close_matches(word, elsewhere, n=1, cutoff=0.6):
        return f"did you mean `{near[0]}` in [{elsewhere[near[0]]}]?"
    return "known: " + ", ".join(f"`{name}`" for name in names)


def show(value: object) -> str:
    """Write a value as TOML would, shortened to fit a line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        text = f'"{value}"'
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key} = {show(item)}" for key, item in value.items()) + "}"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _line(details: ErrorDetails, prefix: str, root: type[BaseModel]) -> str:
    kind, parts = details["type"], _without_tags(details["loc"])
    where, value = place(parts, prefix), details["input"]
    if kind == "extra_forbidden":
        unknown = str(parts[-1])
        table = place(parts[:-1], prefix)
        elsewhere = settings_keys() if len(parts) == 1 and root is Settings else None
        hint = did_you_mean(unknown, _known_keys(parts[:-1], details["loc"], root), elsewhere)
        return f"unknown key `{unknown}`" + (f" in [{table}]" if table else "") + f": {hint}"
    if kind == "kind":
        named = value.get("name", "") if isinstance(value, Mapping) else value
        if isinstance(named, str) and isinstance(value, Mapping):
            return f'{where}.name = "{named}": {did_you_mean(named, KINDS[str(parts[-1])])}'
        return f"{where} = {show(value)}: must be a table"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "literal_error":
        allowed = details["ctx"]["expected"].replace("'", '"')
        return f"{where} = {show(value)}: must be {allowed}"
    if kind in {"too_long", "too_short"} and isinstance(value, list | tuple):
        wanted = details["ctx"].get("max_length", details["ctx"].get("min_length"))
        return f"{where} = {show(value)}: must have {wanted} entries"
    if isinstance(value, BaseModel | Mapping) and kind not in _TYPES:  # a rule about several keys of one table
        return f"{where}: {details['msg']}" if where else details["msg"]
    return f"{where} = {show(value)}: {_TYPES.get(kind, details['msg'])}"


def _without_tags(parts: Sequence[str | int]) -> list[str | int]:
    """Leave out the name of the kind, which pydantic puts behind the section's name."""
    kept = list(parts)
    for index in range(len(kept) - 1, 0, -1):
        if kept[index - 1] in KINDS and kept[index] in KINDS[str(kept[index - 1])]:
            del kept[index]
    return kept


def settings_keys() -> dict[str, str]:
    """Every key of every section, with the name of the section that has it."""
    return {key: section for section in Settings.model_fields for key in _known_keys([section])}


def _known_keys(
    parts: Sequence[str | int], tagged: Sequence[str | int] = (), root: type[BaseModel] = Settings
) -> list[str]:
    """List the keys that a table may have.

    Args:
        parts: the table's place within the root, such as ``("optimizer",)``.
        tagged: the same place with the names of kinds left in, where pydantic gave it.
        root: what the whole is.
    """
    if not parts:
        return list(root.model_fields)
    section = str(parts[-1])
    if section in KINDS:
        named = [str(part) for part in tagged if part in KINDS[section]]
        return list(KINDS[section][named[0] if named else DEFAULT_KIND[section]].model_fields)
    annotation = root.model_fields[section].annotation
    kinds = get_args(annotation) or (annotation,)  # an optional section is a union with None
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [key for model in models for key in model.model_fields]
