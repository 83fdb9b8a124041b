"""From pydantic's account of an error to one line that names the key, its place and what is allowed."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fairtrial.registry import did_you_mean
from fairtrial.spec.sections import REGISTRIES, Settings

#: At most this many problems of one file are told at once.
MOST = 3

_TYPES = {
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "finite_number": "must be finite",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "missing": "is missing",
}


def explain(
    error: ValidationError, table: Mapping[str, Any], prefix: str = "", root: type[BaseModel] = Settings
) -> str:
    """Tell what is wrong with a table in one line.

    Args:
        error: what pydantic found.
        table: what it was to read.
        prefix: where the table stands in the study, such as ``"arms.high_beta1"``.
        root: what the table was to become.

    Returns:
        ``"optimizer.betas[1] = 1.2: must be in [0, 1)"`` and the like; several problems are joined by
        semicolons.
    """
    lines = [_line(details, table, prefix, root) for details in error.errors(include_url=False)]
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


def _line(details: ErrorDetails, table: Mapping[str, Any], prefix: str, root: type[BaseModel]) -> str:
    kind, parts, value = details["type"], details["loc"], details["input"]
    where = place(parts, prefix)
    if kind == "extra_forbidden":
        above = place(parts[:-1], prefix)
        elsewhere = settings_keys() if len(parts) == 1 and root is Settings else None
        hint = did_you_mean(str(parts[-1]), _known_keys(parts[:-1], table, root), elsewhere)
        return f"unknown key `{parts[-1]}`" + (f" in [{above}]" if above else "") + f": {hint}"
    if kind == "unknown_name" and isinstance(value, Mapping):
        return f"{where}.name = {show(value.get('name'))}: {details['msg']}"
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


def settings_keys() -> dict[str, str]:
    """Every key of every section, with the name of the section that has it."""
    return {key: section for section in Settings.model_fields for key in _known_keys([section], {}, Settings)}


def _known_keys(parts: Sequence[str | int], table: Mapping[str, Any], root: type[BaseModel]) -> list[str]:
    """List the keys that a table may have.

    Args:
        parts: the table's place within the root, such as ``("optimizer",)``.
        table: the whole, which names the kinds of its sections.
        root: what the whole is.
    """
    if not parts:
        return list(root.model_fields)
    section = str(parts[-1])
    if section in REGISTRIES:
        registry = REGISTRIES[section]
        given = table.get(section)
        name = given.get("name", registry.default) if isinstance(given, Mapping) else registry.default
        return list(registry.get(name).model_fields)
    annotation = root.model_fields[section].annotation
    kinds = get_args(annotation) or (annotation,)  # an optional section is a union with None
    models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return [key for model in models for key in model.model_fields]
