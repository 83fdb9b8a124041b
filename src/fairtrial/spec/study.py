"""The study: arms under comparison, one of them the reference, over the same seeds."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel, ValidationError

from fairtrial.errors import StudyError
from fairtrial.registry import did_you_mean
from fairtrial.spec.evidence import Claim, Evidence, Noise
from fairtrial.spec.measures import find_measure
from fairtrial.spec.messages import explain, settings_keys, show
from fairtrial.spec.overrides import Table, flatten, merge, parse_toml
from fairtrial.spec.sections import Section, Settings
from fairtrial.spec.validation import Vocabulary, read_claims, read_evidence, read_noise, read_reported, read_seeds

#: Raise it whenever the same settings come to mean another training run, so that no old trial is taken for a new one.
FORMAT = 1

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: An arm's name has no dot, so that a dotted key can name its settings.
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Origin:
    """Where a study comes from; no part of what it is.

    Attributes:
        source: the file's full path, or the name under which it ships; None if it was built in Python.
        overrides: the ``KEY=VALUE`` overrides that it was read with.
        folder: the folder that holds the file.
    """

    source: str | None = None
    overrides: tuple[str, ...] = ()
    folder: Path | None = None


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
    """One controlled comparison: frozen, with a content hash.

    It is built from what stands in a study file, by keyword, and checked as a file is. Sections may be tables or
    objects.

    Raises:
        StudyError: naming the key, its place and what is allowed.

    Attributes:
        name: what the store and the tables call it.
        reference: name of the arm that the others are compared with.
        seeds: number of replicates, at most; they are the seeds 0 to ``seeds - 1``.
        min_seeds: every arm is trained with this many seeds at least. Fewer than ``seeds`` make a sequential study: an
            arm whose verdict is settled gets no more.
        settings: what all arms share, unless an arm says otherwise.
        arms: the configurations under comparison, in the order of the file.
        evidence: what arms are compared on, and by what standard.
        claims: statements that the study tests.
        reported: what a paper gives, by arm and measure; see `figure`.
        noise: which sources of noise vary with the seed.

    Example:
        >>> study = Study(
        ...     name="beta2",
        ...     reference="default",
        ...     seeds=3,
        ...     arms={"default": {}, "low": {"optimizer": {"betas": [0.9, 0.95]}}},
        ... )
        >>> study.arm("low").settings.optimizer.betas
        (0.9, 0.95)
    """

    name: str
    reference: str
    seeds: int
    min_seeds: int
    settings: Settings
    arms: tuple[Arm, ...]
    evidence: Evidence = Evidence()
    claims: tuple[Claim, ...] = ()
    reported: Mapping[str, Mapping[str, float]] = {}
    noise: Noise = Noise()

    def __init__(self, **table: Any) -> None:
        plain = _as_tables(table)
        head = _head(plain)
        own = {key: plain[key] for key in Settings.model_fields if key in plain}
        settings = _settings(own, prefix="")
        arms = tuple(
            Arm(
                name=name,
                changes=tuple(key for key, value in flatten(merge({}, changes)) if not isinstance(value, Mapping)),
                settings=_settings(merge(own, changes, where=f"arms.{name}."), prefix=f"arms.{name}"),
            )
            for name, changes in _arms(plain).items()
        )
        _check_arms(head["reference"], arms)
        fields: dict[str, Any] = {"settings": settings, "arms": arms, **head, **_questions(plain, arms)}
        super().__init__(**fields)

    @classmethod
    def from_dict(cls, table: Table) -> Self:
        """Build a study from nested tables, as they stand in a TOML file; errors as the constructor's."""
        return cls(**table)

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Build a study from the text of a TOML file; errors as `from_dict`'s, and those of TOML itself."""
        return cls.from_dict(parse_toml(text))

    def to_dict(self) -> dict[str, Any]:
        """Write the study as nested tables that `from_dict` reads back to an equal study."""
        head: dict[str, Any] = {"name": self.name, "reference": self.reference}
        if self.noise.crossed is None:  # else they follow from [noise], also where that is overridden later
            head["seeds"] = self._seeds
        arms = {arm.name: _pick(arm.settings, arm.changes) for arm in self.arms}
        asked = {key: value for key, value in self._asked.items() if value}
        return head | _plain(self.settings) | {"arms": arms} | asked

    def to_toml(self) -> str:
        """Write the study as TOML, every default spelt out."""
        return tomli_w.dumps(self.to_dict())

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of all that the study says, with every arm fully resolved.

        What is asked is a part of it: a margin that is changed after the data were seen makes another study, though its
        trials are the same.
        """
        return digest(
            {
                "format": FORMAT,
                "name": self.name,
                "reference": self.reference,
                "seeds": self._seeds,
                "arms": {arm.name: content(arm.settings) for arm in self.arms},
                **self._asked,
            }
        )

    @cached_property
    def origin(self) -> Origin:
        """Where the study comes from: outside equality and hash, as all cached properties are."""
        return Origin()

    def with_origin(self, origin: Origin) -> Self:
        """Copy the study, with another origin."""
        copy = self.model_copy()
        copy.__dict__["origin"] = origin
        return copy

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

    @property
    def sequential(self) -> bool:
        """Whether the number of seeds depends on what they show."""
        return self.min_seeds < self.seeds

    def figure(self, arm: str, measure: str) -> float | None:
        """Look up what a paper reports of an arm; None if it does not.

        A generalization gap that is not reported follows from the two accuracies, if they are.
        """
        measure = _name(measure)
        figures = {_name(key): value for key, value in self.reported.get(arm, {}).items()}
        accuracies = [figures[name] for name in ("best_train_acc", "best_test_acc") if name in figures]
        if measure == "generalization_gap" and measure not in figures and len(accuracies) == 2:
            return accuracies[0] - accuracies[1]
        return figures.get(measure)

    @property
    def _seeds(self) -> int | dict[str, int]:
        return {"min": self.min_seeds, "max": self.seeds} if self.sequential else self.seeds

    @property
    def _asked(self) -> dict[str, Any]:
        """What the study asks of the records, as TOML can write it."""
        return {
            "noise": self.noise.model_dump(mode="json", exclude_none=True),
            "evidence": self.evidence.model_dump(mode="json", exclude_none=True),
            "reported": {arm: dict(figures) for arm, figures in self.reported.items()},
            "claims": [claim.model_dump(mode="json", exclude_none=True) for claim in self.claims],
        }


def _name(measure: str) -> str:
    """The name of a measure that a study may call by another."""
    found = find_measure(measure)
    return found.name if found else measure


def content(settings: Settings) -> dict[str, Any]:
    """Everything in settings that decides a training run: all but the places where files happen to lie."""
    table = settings.model_dump(mode="json")
    del table["data"]["path"]
    if table["model"].get("weights_sha256"):
        del table["model"]["weights"]
    return table


def digest(table: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of a table written as JSON with sorted keys and no spaces."""
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_tables(value: Any) -> Any:
    """Write sections that are given as objects as the tables that they were read from."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _as_tables(item) for key, item in value.items()}
    return [_as_tables(item) for item in value] if isinstance(value, list | tuple) else value


def _head(table: Table) -> dict[str, Any]:
    """Check the keys of the study as a whole, and read its name and reference."""
    known = ["name", "reference", "seeds", "noise", *Settings.model_fields, "arms", "evidence", "reported", "claims"]
    for key in table:
        if key not in known:
            raise StudyError(f"unknown key `{key}`: {did_you_mean(key, known, else_try=settings_keys())}")
    for key in ("name", "reference", "arms"):
        if key not in table:
            raise StudyError(f"{key}: is missing")
    for key in ("name", "reference"):
        if not isinstance(table[key], str) or not NAME.fullmatch(table[key]):
            raise StudyError(f"{key} = {show(table[key])}: must be a name of letters, digits, `_`, `-` and `.`")
    return {"name": table["name"], "reference": table["reference"]}


def _questions(table: Table, arms: Sequence[Arm]) -> dict[str, Any]:
    """Read seeds, noise, evidence, claims and reported figures."""
    names, words = [arm.name for arm in arms], Vocabulary([arm.settings for arm in arms])
    noise = read_noise(table)
    least, most = read_seeds(table, noise)
    evidence = read_evidence(table, words)
    return {
        "min_seeds": least,
        "seeds": most,
        "noise": noise,
        "evidence": evidence,
        "claims": read_claims(table, names, evidence, words),
        "reported": read_reported(table, names, words),
    }


def _check_arms(reference: str, arms: Sequence[Arm]) -> None:
    names = [arm.name for arm in arms]
    if reference not in names:
        raise StudyError(f'reference = "{reference}": no arm has that name; {did_you_mean(reference, names)}')
    seen: dict[str, str] = {}
    for arm in arms:
        same = seen.setdefault(digest(content(arm.settings)), arm.name)
        if same != arm.name:
            raise StudyError(f"arms.{arm.name}: has the same settings as arms.{same}; arms must differ")


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
        raise StudyError(explain(error, table, prefix)) from error


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
