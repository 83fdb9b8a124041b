"""Validates tables with pydantic and words its errors: the key, where it is, what is allowed."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fairtrial.errors import StudyError
from fairtrial.registry import did_you_mean
from fairtrial.spec.settings import REGISTRIES, Settings
from fairtrial.text import one_line

AnyModel = TypeVar("AnyModel", bound=BaseModel)

#: At most this many problems of one file are shown at once.
MOST = 3

_MESSAGES = {
    "int_type": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "finite_number": "must be finite",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "string_pattern_mismatch": "must be a name of letters, digits, `_`, `-` and `.`",
}


def validate(model: type[AnyModel], table: Mapping[str, Any], prefix: str = "") -> AnyModel:
    """Build a model from a table, whose path in the study is the prefix, such as ``"arms.high_beta1"``.

    Raises:
        StudyError: ``"optimizer.betas[1] = 1.2: must be in [0, 1)"`` and the like; semicolons join several problems.
    """
    try:
        return model.model_validate(dict(table))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_line(details, table, prefix, model) for details in problems[:MOST]]
        more = f"; and {len(problems) - MOST} more" if len(problems) > MOST else ""
        raise StudyError("; ".join(lines) + more) from error


def show(value: object) -> str:
    """Write a value as TOML would, shortened to fit a line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to write thousands of digits
        return f"an integer of {value.bit_length():,} bits"
    if isinstance(value, str):
        text = f'"{brief(value)}"'
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in value) + "]"
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key} = {show(item)}" for key, item in value.items()) + "}"
    else:
        text = str(value)
    return brief(text)


def brief(text: str, most: int = 60) -> str:
    """Shorten text to fit a line, and make it safe to print.

    Example:
        >>> brief("a" * 1000)[55:]
        'aa...'
    """
    return one_line(text if len(text) <= most else text[: most - 3] + "...")


def describe_error(error: Exception) -> str:
    """Write an error of somebody's code in one line, with the last place that is not torch's own."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    own = [(frame, line) for frame, line in frames if frame.f_globals.get("__name__", "").split(".")[0] != "torch"]
    place = f" ({Path(own[-1][0].f_code.co_filename).name}, line {own[-1][1]})" if own else ""
    return f"{type(error).__name__}: {brief(' '.join(str(error).split()), 200)}{place}"


def refusal(error: Exception) -> str:
    """Write in one line why somebody's code could not be called: its own words if it refuses, else where it broke."""
    refuses = isinstance(error, ValueError | ImportError)
    return brief(" ".join(str(error).split()), 200) if refuses else describe_error(error)


def settings_keys() -> dict[str, str]:
    """Map every key of every section to the name of the section."""
    return {key: section for section in Settings.model_fields for key in _known_keys([section], {}, Settings)}


def _line(details: ErrorDetails, table: Mapping[str, Any], prefix: str, model: type[BaseModel]) -> str:
    kind, parts, value = details["type"], details["loc"], details["input"]
    where, message = _path(parts, prefix), _MESSAGES.get(kind, details["msg"])
    if kind == "extra_forbidden":
        table_path = _path(parts[:-1], prefix)
        elsewhere = settings_keys() if len(parts) == 1 else None
        hint = did_you_mean(str(parts[-1]), _known_keys(parts[:-1], table, model), elsewhere)
        return f"unknown key `{parts[-1]}`" + (f" in [{table_path}]" if table_path else "") + f": {hint}"
    if kind == "unknown_name" and isinstance(value, Mapping):
        return f"{where}.name = {show(value.get('name'))}: {message}"
    if kind == "string_too_long":
        return f"{where} = {show(value)}: must be at most {details['ctx']['max_length']} characters"
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "literal_error":
        message = "must be " + details["ctx"]["expected"].replace("'", '"')
    elif kind in {"too_long", "too_short"}:
        wanted = details["ctx"].get("max_length", details["ctx"].get("min_length"))
        message = f"must have {wanted} entries"
    elif isinstance(value, BaseModel | Mapping) and kind not in _MESSAGES:  # a rule about several keys of one table
        return f"{where}: {message}" if where else message
    return f"{where} = {show(value)}: {message}"


def _path(parts: Sequence[str | int], prefix: str) -> str:
    """Write the path of a key: ``arms.high_beta1.optimizer.betas[1]``."""
    path = prefix
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")


def _known_keys(parts: Sequence[str | int], table: Mapping[str, Any], model: type[BaseModel]) -> list[str]:
    """List the keys that a table within a model may have."""
    fields = model.model_fields
    for part in (part for part in parts if isinstance(part, str)):
        if part in REGISTRIES:
            registry, given = REGISTRIES[part], table.get(part)
            name = given.get("name", registry.default) if isinstance(given, Mapping) else registry.default
            fields = registry.get(name).model_fields
        else:
            if part not in fields:  # a name of the user's own, within a table of tables
                continue
            models = _models(fields[part].annotation)
            fields = {key: field for found in models for key, field in found.model_fields.items()}
    return list(fields)


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    """Find the sections in an annotation: itself, or those of a list or of an optional section."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
