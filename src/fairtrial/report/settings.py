"""Which settings a table shows, and how it writes them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairtrial.spec import flatten
from fairtrial.spec.sections import REGISTRIES
from fairtrial.stats.summary import StudySummary

#: Stands where an arm has no such setting, or where nothing was measured.
NOTHING = "-"

#: Columns of an Adam-like optimizer, in the paper's order.
ADAM = ("beta1", "beta2", "eps")

#: Settings whose null says something.
_NULLS = {"data.train": "all", "data.test": "all"}


#: The sections, those that studies compare most often first.
_SECTIONS = ("optimizer", "schedule", "training", "params", "model", "data")


@dataclass(frozen=True)
class SettingColumn:
    """One setting over all arms.

    Attributes:
        key: ``"beta1"``, ``"beta2"``, ``"eps"``, or the setting's place, such as ``"optimizer.lr"``.
        title: what the head of a table calls it.
        values: a plain value an arm, in the study's order; None where the arm has no such setting.
    """

    key: str
    title: str
    values: tuple[Any, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The values as people read them."""
        return tuple(_NULLS.get(self.key, NOTHING) if value is None else self._cell(value) for value in self.values)

    def _cell(self, value: object) -> str:
        return str(value)[:8] if self.key == "model.weights_sha256" else write(value)


def adam_columns(summary: StudySummary) -> tuple[SettingColumn, ...]:
    """The three settings of the paper's table: beta1, beta2, epsilon; None for an optimizer that has them not."""
    optimizers = [arm.settings["optimizer"] for arm in summary.arms]
    values = [(*optimizer.get("betas", (None, None)), optimizer.get("eps")) for optimizer in optimizers]
    titles = dict(zip(ADAM, ("beta1", "beta2", "epsilon"), strict=True))
    return tuple(
        SettingColumn(key, titles[key], column) for key, column in zip(ADAM, zip(*values, strict=True), strict=True)
    )


def differing_columns(summary: StudySummary) -> tuple[SettingColumn, ...]:
    """The other settings in which the arms differ, the optimizer's first."""
    flat = [dict(flatten(arm.settings)) for arm in summary.arms]
    keys = list(dict.fromkeys(key for section in _SECTIONS for key in _keys(flat, section)))
    wanted = [key for key in keys if key not in {"optimizer.betas", "optimizer.eps"} and _differ(flat, key)]
    short = Counter(_title(key) for key in wanted)
    titles = {key: _title(key) if short[_title(key)] == 1 else key for key in wanted}
    return tuple(SettingColumn(key, titles[key], tuple(arm.get(key) for arm in flat)) for key in wanted)


def write(value: object) -> str:
    """Write a setting as short as it is exact: ``1e-8``, ``0.9``, ``1``, ``true``, ``[5, 8]``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        digits = repr(value).removesuffix(".0")
        return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), digits)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(write(item) for item in value) + "]"
    return str(value)


def _keys(flat: Sequence[Mapping[str, Any]], section: str) -> list[str]:
    return [key for arm in flat for key in arm if key.startswith(f"{section}.")]


def _differ(flat: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Tell whether arms differ in a setting.

    An arm whose kind of optimizer or schedule has no such setting differs only from a value that someone chose: no
    column for ``nesterov = false`` because one arm has SGD.
    """
    having = [arm for arm in flat if key in arm]
    first = having[0]
    if any(arm[key] != first[key] for arm in having):
        return True
    return len(having) < len(flat) and first[key] != _default(first, key)


def _default(arm: Mapping[str, Any], key: str) -> object:
    section, _, name = key.partition(".")
    if section not in REGISTRIES:
        return None
    kind = REGISTRIES[section].get(arm[f"{section}.name"])
    fields = {kind.other_spellings.get(key, key): field for key, field in kind.model_fields.items()}
    return fields[name].default


def _title(key: str) -> str:
    section, _, name = key.partition(".")
    if name == "name" and section != "params":
        return section
    if name == "weights_sha256":
        return "weights"
    return key if section == "data" else name
