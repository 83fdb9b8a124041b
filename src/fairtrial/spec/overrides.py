"""Nested tables as TOML has them: read, overridden from the command line, merged, flattened."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fairtrial.errors import StudyError
from fairtrial.registry import did_you_mean
from fairtrial.spec.limits import check_table
from fairtrial.spec.messages import brief
from fairtrial.spec.sections import DataSettings
from fairtrial.spec.seeds import overridden
from fairtrial.spec.settings import REGISTRIES

#: What a TOML table holds.
Table: TypeAlias = Mapping[str, Any]

#: A dot within a key, and how many there may be between two separators, where numbers and prose have few. For keys of
#: thousands of parts the parser takes hours.
_INNER_DOT, _MOST_DOTS = re.compile(r"[^\s.]\s*\.(?!\s*\.)"), 200

#: An integer in TOML, of any length.
_NUMBER = re.compile(r"[+-]?\d[\d_]*", re.ASCII)


def parse_toml(text: str) -> dict[str, Any]:
    """Read TOML, with or without a byte-order mark, and check it as `limits.check_table` does.

    Raises:
        StudyError: it does not parse; the message has line and column. Or a limit is exceeded.
    """
    try:
        table = _parse(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"not valid TOML: {error}{_hint(text, str(error))}") from error
    check_table(table)
    return table


def _parse(text: str) -> dict[str, Any]:
    """Read TOML; what makes the parser fail otherwise, or takes it more than linear time, is a TOMLDecodeError too."""
    for line in text.splitlines():
        if line.count(".") > _MOST_DOTS and any(len(_INNER_DOT.findall(part)) > _MOST_DOTS for part in _pieces(line)):
            raise tomllib.TOMLDecodeError(f"a key of more than {_MOST_DOTS} parts: {brief(line)}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError as error:
        raise tomllib.TOMLDecodeError("lists or tables are nested too deeply") from error
    except ValueError as error:
        digits = sys.get_int_max_str_digits()
        raise tomllib.TOMLDecodeError(f"an integer of more than {digits:,} digits") from error


def _pieces(line: str) -> list[str]:
    return re.split(r"[,=\[\]{}#]", line)


def override(table: Table, assignments: Sequence[str]) -> dict[str, Any]:
    """Apply ``KEY=VALUE`` assignments, as the command line takes them, to a copy of a study's table.

    A value is read as TOML, and as a plain string if it is not TOML and does not look like another value.

    Raises:
        StudyError: no equals sign, a key below something that is no table, no such arm, a value that is neither TOML
            nor a plain string, such as ``False`` or ``.5``, or one that exceeds a limit.
    """
    result = dict(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise StudyError(f"--set {brief(assignment)}: must be KEY=VALUE, for example training.epochs=3")
        changes: Any = _value(text.strip(), brief(assignment))
        for part in reversed(parts):
            changes = {part: changes}
        try:
            check_table(changes)
        except StudyError as error:
            raise StudyError(f"--set {brief(assignment)}: {error}") from error
        arms = table.get("arms")
        if parts[0] == "arms" and len(parts) > 1 and isinstance(arms, Mapping) and parts[1] not in arms:
            raise StudyError(f"--set {key.strip()}: no arm is named {parts[1]}; {did_you_mean(parts[1], arms)}")
        if "seeds" in changes:
            result["seeds"] = changes["seeds"] = overridden(result.get("seeds", 1), changes["seeds"])
        result = merge(result, changes, where="--set ")
    return result


def _value(text: str, assignment: str) -> Any:
    """Read a value as TOML, or as a plain string; refuse what looks like another value, misspelt."""
    try:
        return _parse(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if instead := instead_of(text):
            raise StudyError(f"--set {assignment}: {instead}, or '\"{text}\"' for text") from error
        if _NUMBER.fullmatch(text):  # valid TOML, if it were not for its length
            raise StudyError(f"--set {assignment}: {error}") from error
        if text.startswith(tuple("[{(\"'")):
            raise StudyError(f"--set {assignment}: the value is not valid TOML; quote text as '\"...\"'") from error
        return text


#: Characters of a value, and of a line, in which another language's spelling is looked for.
_LONGEST_VALUE, _LONGEST_LINE = 200, 2_000


def instead_of(text: str) -> str:
    """Say how TOML has a value that is spelt as Python or other languages do; empty for anything else.

    Example:
        >>> instead_of("False"), instead_of(".003"), instead_of("(0.9, 1.)"), instead_of("adam")
        ('write false', 'write 0.003', 'write [0.9, 1.0]', '')
    """
    if len(text) > _LONGEST_VALUE:  # what is no number takes long to find out
        return ""
    if text.lower().lstrip("+-") in {"true", "false", "nan", "inf"}:
        return f"write {text.lower()}"
    try:
        value = ast.literal_eval(re.sub(r"^([+-]?)0+(?=\d)", r"\1", text))  # 007
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""
    if value is None:
        return "leave the key out, for TOML has no null"
    written = _write(value)
    return f"write {written}" if written else ""


def _write(value: object) -> str:
    """Write a number, a truth value or a list of them; empty for anything else."""
    if isinstance(value, list | tuple):
        items = [_write(item) for item in value]
        return f"[{', '.join(items)}]" if all(items) else ""
    return str(value).lower() if isinstance(value, bool | int | float) else ""


def _hint(text: str, error: str) -> str:
    """Say what to write instead, where the line of an error in TOML has a value in the spelling of another language."""
    where = re.search(r"at line (\d+)", error)
    line = text.splitlines()[int(where[1]) - 1] if where and int(where[1]) <= len(text.splitlines()) else ""
    for word in re.findall(r"[^\s,=\[\]{}\"']+", line[:_LONGEST_LINE].partition("#")[0]):
        try:
            _parse(f"value = {word}")
        except tomllib.TOMLDecodeError:
            if instead := instead_of(word):
                return f"; in place of {word} {instead}"
    return ""


def merge(base: Table, changes: Table, where: str = "") -> dict[str, Any]:
    """Apply changes to a copy of a table, key by key.

    A section that changes its kind (``optimizer.name``, ``model.name``) inherits nothing: Adam's betas mean nothing
    to SGD, and another optimizer's learning rate would be an accident. Of data the counts stay, which every data set
    has. Other weights don't inherit the digest of the file that they replace.
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
            if key == "model" and new.get("weights", inherited.get("weights")) != inherited.get("weights"):
                inherited = {name: inherited[name] for name in inherited if name != "weights_sha256"}
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
