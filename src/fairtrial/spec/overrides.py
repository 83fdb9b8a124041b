"""Nested tables as TOML has them: read, overridden from the command line, merged, flattened."""

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
    """Apply ``KEY=VALUE`` assignments, as the command line takes them, to a copy of a study's table.

    A value is read as TOML, and as a plain string if it is not TOML.

    Raises:
        StudyError: no equals sign, or a key below something that is no table.
    """
    result = dict(table)
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
    """Apply changes to a copy of a table, key by key.

    A section that changes its kind (``optimizer.name``, ``model.name``) inherits nothing: Adam's betas mean nothing
    to SGD, and another optimizer's learning rate would be an accident. Of data the counts stay, which every data set
    has.
    """
    result = dict(base)
    for key, value in changes.items():
        if not isinstance(value, Mapping):
            result[key] = value
            continue
        inherited = result.get(key, {})
        if not isinstance(inherited, Mapping):
            raise StudyError(f"{where}{key}: is not a table, so it has no keys to set")
        new = value
        if key in REGISTRIES:
            kind = inherited.get("name", REGISTRIES[key].default)
            wanted = value.get("name", kind)
            if wanted != kind:
                shared = DataSettings.model_fields if key == "data" else ()
                inherited = {name: inherited[name] for name in inherited if name in shared}
            inherited, new = _canonical(key, kind, inherited), _canonical(key, wanted, value)
        result[key] = merge(inherited, new, where=f"{where}{key}.")
    return result


def _canonical(section: str, kind: object, table: Table) -> Table:
    """Rename keys that have two spellings, so that one can override the other."""
    registry = REGISTRIES[section]
    other = registry.get(str(kind)).other_spellings if kind in registry.names() else {}
    return {other.get(key, key): value for key, value in table.items()}


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
