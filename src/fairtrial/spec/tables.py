"""Nested tables as TOML has them: read, overridden from the command line, laid over each other."""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from fairtrial.errors import StudyError
from fairtrial.spec.sections import DEFAULT_KIND, KINDS

#: What a TOML table holds.
Table: TypeAlias = Mapping[str, Any]


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML.

    Raises:
        StudyError: it does not parse; the message has line and column.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"not valid TOML: {error}") from error


def override(table: Table, assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``KEY=VALUE`` assignments, as the command line takes them, to a study's table.

    Args:
        table: a study as nested tables; it is left as it is.
        assignments: such as ``"training.epochs=3"``; the value is read as TOML, and as a plain string if it
            is not TOML.

    Raises:
        StudyError: no equals sign, or a key that runs through something that is no table.
    """
    result = _copy(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise StudyError(f"--set {assignment}: must be KEY=VALUE, for example training.epochs=3")
        changes: Any = _value(text.strip())
        for part in reversed(parts):
            changes = {part: changes}
        if isinstance(changes.get("seeds"), Mapping) and not isinstance(result.get("seeds", 1), Mapping):
            result["seeds"] = dict.fromkeys(("min", "max"), result.get("seeds", 1))  # seeds = 3, and then seeds.max=5
        result = merge(result, changes, where="--set ")
    return result


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merge(base: Table, changes: Table, where: str = "") -> dict[str, Any]:
    """Lay changes over a table, key by key.

    A section that changes its kind (``optimizer.name``, ``schedule.name``) inherits nothing: Adam's betas mean nothing
    to SGD, and a learning rate taken over from another optimizer would be an accident.
    """
    result = _copy(base)
    for key, value in changes.items():
        if not isinstance(value, Mapping):
            result[key] = value
            continue
        below = result.get(key, {})
        if not isinstance(below, Mapping):
            raise StudyError(f"{where}{key}: is no table, so nothing can be set below it")
        if key in KINDS and "name" in value and value["name"] != below.get("name", DEFAULT_KIND[key]):
            below = {}
        result[key] = merge(below, value, where=f"{where}{key}.")
    return result


def _copy(table: Table) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def dotted(table: Table, prefix: str = "") -> list[str]:
    """List a nested table's keys as dotted paths."""
    keys: list[str] = []
    for key, value in table.items():
        keys += dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys
