"""Which settings a table shows, and how it writes them."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairtrial.report.words import NOTHING, shortest
from fairtrial.spec import BUILT_IN, flatten
from fairtrial.spec.settings import REGISTRIES
from fairtrial.stats.summary import StudySummary
from fairtrial.text import one_line

#: Settings whose null has a meaning.
_NULLS = {"data.train": "all", "data.test": "all"}

#: The sections, those that studies compare most often first.
_SECTIONS = ("optimizer", "schedule", "training", "params", "model", "data")


@dataclass(frozen=True)
class SettingColumn:
    """One setting over all arms: its key, the head of its column, and each arm's value, None without the setting."""

    key: str  # "beta1", "beta2", "eps", or a full name such as "optimizer.lr"
    title: str
    values: tuple[Any, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The values as people read them; all digits of numbers that would read the same and are not."""
        shown = [_NULLS.get(self.key, NOTHING) if value is None else self._cell(value) for value in self.values]
        alike: dict[str, set[str]] = {}
        for text, value in zip(shown, self.values, strict=True):
            alike.setdefault(text, set()).add(repr(value))
        exact = [
            len(alike[text]) > 1 and isinstance(value, float) for text, value in zip(shown, self.values, strict=True)
        ]
        return tuple(repr(value) if full else text for text, value, full in zip(shown, self.values, exact, strict=True))

    def _cell(self, value: object) -> str:
        return str(value)[:8] if self.key in {"model.weights_sha256", "data.path_sha256"} else write(value)


def adam_columns(summary: StudySummary) -> tuple[SettingColumn, ...]:
    """Adam's settings in the paper's order: beta1, beta2, epsilon; None for an optimizer that lacks them.

    Nor are they known of a user's own training loop, unless its arms differ in the optimizer: it may use another.
    """
    optimizers = [arm.settings["optimizer"] for arm in summary.arms]
    own_loop = all(arm.settings["training"]["loop"] == BUILT_IN for arm in summary.arms)
    if not own_loop and all(optimizer == optimizers[0] for optimizer in optimizers):
        optimizers = [{} for _ in summary.arms]
    values = [(*(_pair(optimizer.get("betas")) or (None, None)), optimizer.get("eps")) for optimizer in optimizers]
    titles = {"beta1": "beta1", "beta2": "beta2", "eps": "epsilon"}
    return tuple(map(SettingColumn, titles.keys(), titles.values(), zip(*values, strict=True)))


def differing_columns(summary: StudySummary) -> tuple[SettingColumn, ...]:
    """List the other settings in which the arms differ, the optimizer's first."""
    tables = [arm.settings for arm in summary.arms]
    sections = [name for name in _SECTIONS if any(one.get(name) != tables[0].get(name) for one in tables)]
    flat = [dict(flatten({name: one[name] for name in sections if name in one})) for one in tables]
    for arm in flat:
        if _pair(arm.get("optimizer.betas")):  # has columns of its own
            del arm["optimizer.betas"]
    every = dict.fromkeys(key for section in sections for arm in flat for key in arm if key.startswith(f"{section}."))
    keys = [key for key in every if key != "optimizer.eps" and _differ(flat, key)]
    names = [_text(arm.arm) for arm in summary.arms]
    # An argument of the loop that names the arm, as imported runs and simulated ones have it, says nothing more.
    keys = [key for key in keys if not (key.startswith("params.") and [_text(arm.get(key)) for arm in flat] == names)]
    short = Counter(map(_title, keys))
    titles = [_title(key) if short[_title(key)] == 1 else key for key in keys]
    return tuple(
        SettingColumn(key, title, tuple(arm.get(key) for arm in flat)) for key, title in zip(keys, titles, strict=True)
    )


def _text(value: object) -> str:
    return one_line(str(value))


def _pair(betas: object) -> Sequence[object] | None:
    """The decay rates of two averages; None for those of any other number."""
    return betas if isinstance(betas, list | tuple) and len(betas) == 2 else None


def write(value: object) -> str:
    """Write a setting as short as is exact to twelve digits: ``1e-8``, ``0.9``, ``1``, ``true``, ``[5, 8]``.

    Example:
        >>> write(3 * 0.003)
        '0.009'
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return re.sub(r"e\+?(-?)0*", r"e\1", repr(shortest(value)).removesuffix(".0"))
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(write, value))}]"
    return str(value)


def _differ(flat: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Tell whether arms differ in a setting.

    Beside arms whose optimizer or schedule lacks the setting, only a value other than its default counts: no column
    for ``nesterov = false`` because one arm has SGD.
    """
    values = [arm[key] for arm in flat if key in arm]
    if any(value != values[0] for value in values):
        return True
    return len(values) < len(flat) and values[0] != _default(next(arm for arm in flat if key in arm), key)


def _default(arm: Mapping[str, Any], key: str) -> object:
    section, _, name = key.partition(".")
    if section not in REGISTRIES:
        return None
    kind = REGISTRIES[section].get(arm[f"{section}.name"])
    fields = {kind.other_spellings.get(key, key): field for key, field in kind.model_fields.items()}
    default = fields[name].default if name in fields else None  # a function may take any key
    return list(default) if isinstance(default, tuple) else default


def _title(key: str) -> str:
    section, _, name = key.partition(".")
    if name == "name" and section != "params":
        return section
    if name == "weights_sha256":
        return "weights"
    return key if section == "data" else name
