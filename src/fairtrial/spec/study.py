"""The study: arms under comparison, one of them the reference, over the same seeds."""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self, TypeAlias

import tomli_w
from pydantic import ValidationError

from fairtrial.errors import StudyError
from fairtrial.spec.explain import did_you_mean, explain, settings_keys, show
from fairtrial.spec.sections import DEFAULT_KIND, KINDS, Section, Settings

#: What a TOML table holds.
Table: TypeAlias = Mapping[str, Any]

#: Raise it whenever the same settings come to mean another training run, so that no old trial is taken for a new one.
FORMAT = 1

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: An arm's name has no dot, so that a dotted key can name its settings.
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Arm(Section):
    """One configuration under comparison.

    Attributes:
        name: what the tables call it.
        changes: dotted keys in which the study says that it differs from the study's own settings.
        settings: the full configuration, the study's own settings with the changes applied.
    """

    name: str
    changes: tuple[str, ...]
    settings: Settings


class Study(Section):
    """One controlled comparison: frozen, with a content hash. Build it with `from_dict` or `from_toml`.

    Attributes:
        name: what the store and the tables call it.
        reference: name of the arm that the others are compared with.
        seeds: number of replicates; every arm is trained with the seeds 0 to ``seeds - 1``.
        settings: what all arms share, unless an arm says otherwise.
        arms: the configurations under comparison, in the order of the file.

    Example:
        >>> study = Study.from_dict({
        ...     "name": "beta2", "reference": "default", "seeds": 3,
        ...     "arms": {"default": {}, "low": {"optimizer": {"betas": [0.9, 0.95]}}},
        ... })
        >>> study.arm("low").settings.optimizer.betas
        (0.9, 0.95)
    """

    name: str
    reference: str
    seeds: int
    settings: Settings
    arms: tuple[Arm, ...]

    @classmethod
    def from_dict(cls, table: Table) -> Self:
        """Build a study from nested tables, as they stand in a TOML file.

        Raises:
            StudyError: naming the key, its place and what is allowed.
        """
        head = _head(table)
        own = {key: table[key] for key in Settings.model_fields if key in table}
        settings = _settings(own, prefix="")
        arms = tuple(
            Arm(name=name, changes=tuple(_dotted(changes)), settings=_arm_settings(own, name, changes))
            for name, changes in _arms(table).items()
        )
        study = cls(settings=settings, arms=arms, **head)
        study._check_arms()
        return study

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Build a study from the text of a TOML file; errors as `from_dict`'s, and those of TOML itself."""
        return cls.from_dict(parse_toml(text))

    def to_dict(self) -> dict[str, Any]:
        """Write the study as nested tables that `from_dict` reads back to an equal study."""
        head = {"name": self.name, "reference": self.reference, "seeds": self.seeds}
        arms = {arm.name: _pick(arm.settings, arm.changes) for arm in self.arms}
        return head | _plain(self.settings) | {"arms": arms}

    def to_toml(self) -> str:
        """Write the study as TOML, every default spelt out."""
        return tomli_w.dumps(self.to_dict())

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of all that the study says, with every arm fully resolved."""
        return digest(
            {
                "format": FORMAT,
                "name": self.name,
                "reference": self.reference,
                "seeds": self.seeds,
                "arms": {arm.name: content(arm.settings) for arm in self.arms},
            }
        )

    @property
    def label(self) -> str:
        """The study's name with the head of its hash: ``paper@1f2e3d4c``."""
        return f"{self.name}@{self.hash[:8]}"

    def arm(self, name: str) -> Arm:
        """Look an arm up by its name.

        Raises:
            StudyError: no arm has that name.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise StudyError(f"{self.name} has no arm `{name}`: {did_you_mean(name, [a.name for a in self.arms])}")

    def _check_arms(self) -> None:
        names = [arm.name for arm in self.arms]
        if self.reference not in names:
            hint = did_you_mean(self.reference, names)
            raise StudyError(f'reference = "{self.reference}": no arm has that name; {hint}')
        seen: dict[str, str] = {}
        for arm in self.arms:
            same = seen.setdefault(digest(content(arm.settings)), arm.name)
            if same != arm.name:
                raise StudyError(f"arms.{arm.name}: has the same settings as arms.{same}; arms must differ")


def content(settings: Settings) -> dict[str, Any]:
    """Everything in settings that decides a training run: all but the places where files happen to lie."""
    table = settings.model_dump(mode="json")
    del table["data"]["path"]
    if table["model"]["weights_sha256"]:
        del table["model"]["weights"]
    return table


def digest(table: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a table written as JSON with sorted keys and no spaces."""
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


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
        result = _merge(result, changes, where="--set ")
    return result


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _head(table: Table) -> dict[str, Any]:
    """Check the keys that are no settings: name, reference and seeds."""
    known = ["name", "reference", "seeds", *Settings.model_fields, "arms"]
    for key in table:
        if key not in known:
            raise StudyError(f"unknown key `{key}`: {did_you_mean(key, known, else_try=settings_keys())}")
    for key in ("name", "reference", "arms"):
        if key not in table:
            raise StudyError(f"{key}: is missing")
    for key in ("name", "reference"):
        if not isinstance(table[key], str) or not NAME.fullmatch(table[key]):
            raise StudyError(f"{key} = {show(table[key])}: must be a name of letters, digits, `_`, `-` and `.`")
    seeds = table.get("seeds", 1)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise StudyError(f"seeds = {show(seeds)}: must be a whole number from 1")
    return {"name": table["name"], "reference": table["reference"], "seeds": seeds}


def _arms(table: Table) -> dict[str, Table]:
    arms = table["arms"]
    if not isinstance(arms, Mapping) or not arms:
        raise StudyError("arms: must be a table with at least one arm, such as [arms.baseline]")
    for name, changes in arms.items():
        if not ARM_NAME.fullmatch(name):
            raise StudyError(f"arms.{show(name)}: an arm's name is made of letters, digits, `_` and `-`")
        if not isinstance(changes, Mapping):
            raise StudyError(f"arms.{name} = {show(changes)}: must be a table of settings")
    return dict(arms)


def _settings(table: Table, prefix: str) -> Settings:
    try:
        return Settings.model_validate(dict(table))
    except ValidationError as error:
        raise StudyError(explain(error, prefix)) from error


def _arm_settings(own: Table, name: str, changes: Table) -> Settings:
    return _settings(_merge(own, changes, where=f"arms.{name}."), prefix=f"arms.{name}")


def _merge(base: Table, changes: Table, where: str = "") -> dict[str, Any]:
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
        result[key] = _merge(below, value, where=f"{where}{key}.")
    return result


def _copy(table: Table) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _dotted(table: Table, prefix: str = "") -> list[str]:
    """List a nested table's keys as dotted paths."""
    keys: list[str] = []
    for key, value in table.items():
        keys += _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [f"{prefix}{key}"]
    return keys


def _plain(settings: Settings) -> dict[str, Any]:
    """Write settings as TOML can: no nulls, lists for tuples."""
    table = settings.model_dump(mode="json")
    return {key: {k: v for k, v in section.items() if v is not None} for key, section in table.items() if section}


def _pick(settings: Settings, keys: Sequence[str]) -> dict[str, Any]:
    """The named keys of settings as a nested table."""
    plain, result = _plain(settings), dict[str, Any]()
    for key in keys:
        section, _, name = key.partition(".")
        result.setdefault(section, {})[name] = plain[section][name]
    return result
