"""Nested tables as TOML has them: read, overridden from the command line, laid over each other."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fairtrial.errors import StudyError
from fairtrial.spec.sections import REGISTRIES, DataSettings

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

    A section that changes its kind (``optimizer.name``, ``model.name``) inherits nothing: Adam's betas mean nothing
    to SGD, and a learning rate taken over from another optimizer would be an accident. Of data the counts stay, which
    every data set has.
    """
    result = _copy(base)
    for key, value in changes.items():
        if not isinstance(value, Mapping):
            result[key] = value
            continue
        below = result.get(key, {})
        if not isinstance(below, Mapping):
            raise StudyError(f"{where}{key}: is no table, so nothing can be set below it")
        if key in REGISTRIES:
            kind = below.get("name", REGISTRIES[key].default)
            wanted = value.get("name", kind)
            if wanted != kind:
                below = {name: of for name, of in below.items() if key == "data" and name in DataSettings.model_fields}
            below, value = _as_kept(key, kind, below), _as_kept(key, wanted, value)  # noqa: PLW2901
        result[key] = merge(below, value, where=f"{where}{key}.")
    return result


def _as_kept(section: str, kind: object, table: Table) -> Table:
    """Write keys that have two spellings as they are kept, so that one of them can override the other."""
    registry = REGISTRIES[section]
    other = registry.get(str(kind)).other_spellings if kind in registry.names() else {}
    return {other.get(key, key): value for key, value in table.items()}


def _copy(table: Table) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def flatten(table: Table, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List a nested table's values by their dotted keys.

    Example:
        >>> dict(flatten({"optimizer": {"lr": 0.1}, "seeds": 3}))
        {'optimizer.lr': 0.1, 'seeds': 3}
    """
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
