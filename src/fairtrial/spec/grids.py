"""Grids of settings: section ``[grid]`` makes an arm of each combination of values, or of one value at a time.

A grid is a short way to write arms, and no more than that: a study with a grid is the study with its arms written out,
with the same hash. Every arm of it is as the reference in all but the settings of the grid.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.registry import did_you_mean
from fairtrial.spec.hashing import content, digest
from fairtrial.spec.limits import MOST_GRID_ARMS, name_problem
from fairtrial.spec.messages import show, validate
from fairtrial.spec.numbers import Count
from fairtrial.spec.overrides import Table, merge
from fairtrial.spec.sections import Section
from fairtrial.spec.settings import Settings

#: What a grid may be: all combinations, or each setting alone with the others as in the reference.
DESIGNS = ("full", "one_at_a_time")

#: The names of Adam's two betas in a grid, and their places in the list ``betas``.
BETAS = {"beta1": 0, "beta2": 1}

#: Significant digits of values between the two ends, so that names are short and the same on every machine.
DIGITS = 6

#: Keys that hold a path relative to the study file, which only an arm of its own can state.
_PATHS = frozenset({"data.path", "model.weights", "model.weights_sha256"})


def _end(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("end", "must be a finite number")
    return value


#: Stays an integer if it is one.
End = Annotated[int | float, PlainValidator(_end)]


class Spacing(Section):
    """Values from one end to the other, at equal ratios (``log``) or at equal distances (``linear``)."""

    log: tuple[End, End] | None = None
    linear: tuple[End, End] | None = None
    points: Count

    def values(self, where: str) -> list[int | float]:
        """List the values, both ends included; integers if both ends are.

        Raises:
            StudyError: not exactly one kind of spacing, ends out of order, or not so many different values.

        Example:
            >>> Spacing(log=(1e-10, 1e-6), points=5).values("grid.optimizer.eps")
            [1e-10, 1e-09, 1e-08, 1e-07, 1e-06]
            >>> Spacing(linear=(0.9, 0.99), points=4).values("grid.optimizer.beta2")
            [0.9, 0.93, 0.96, 0.99]
        """
        ends = self.log or self.linear
        if ends is None or (self.log and self.linear):
            raise StudyError(f"{where}: needs either log or linear, such as {{log = [1e-10, 1e-4], points = 7}}")
        low, high = ends
        if not low < high or (self.log and low <= 0):
            kind, least = ("log", ", both above 0") if self.log else ("linear", "")
            raise StudyError(f"{where}.{kind} = {show(ends)}: must be the lower and the upper end{least}")
        if not 2 <= self.points <= MOST_GRID_ARMS:
            raise StudyError(f"{where}.points = {self.points}: must be in [2, {MOST_GRID_ARMS}]")
        inner = (self._at(low, high, step / (self.points - 1)) for step in range(1, self.points - 1))
        whole = isinstance(low, int) and isinstance(high, int)
        values = [low, *(round(value) if whole else float(f"{value:.{DIGITS}g}") for value in inner), high]
        if len({*values}) < len(values):
            why = "integers" if whole else f"numbers of {DIGITS} digits"
            raise StudyError(f"{where}.points = {self.points}: there are not so many {why} between the ends")
        return values

    def _at(self, low: float, high: float, part: float) -> float:
        return math.exp((1 - part) * math.log(low) + part * math.log(high)) if self.log else low + part * (high - low)


@dataclass(frozen=True)
class Axis:
    """One setting of a grid and its values."""

    section: str
    key: str
    values: tuple[Any, ...]
    short: str  # what names and labels call it: the key, with its section if another setting has the same

    @property
    def name(self) -> str:
        """The dotted key."""
        return f"{self.section}.{self.key}"


def expand(table: Table) -> Table:
    """Write a study's grid out as arms, after those written by hand; a table without ``[grid]`` is returned as it is.

    The arm of a point is named by its values, ``eps_1e-8`` or ``lr_3e-4_beta2_0p99``, whatever else is in the grid, so
    that a grid which grows shares all trials with what it was. A point that an arm written by hand has already, with
    the same settings, is left to that arm.

    Raises:
        StudyError: naming the key and what is allowed.

    Example:
        >>> rates = {"optimizer": {"lr": [1e-3, 3e-3]}}
        >>> list(expand({"name": "rates", "reference": "default", "arms": {"default": {}}, "grid": rates})["arms"])
        ['default', 'lr_3e-3']
    """
    if "grid" not in table:
        return table
    rest = {key: value for key, value in table.items() if key != "grid"}
    design, axes = _read(table["grid"])
    own = {key: rest[key] for key in Settings.model_fields if key in rest}
    validate(Settings, own)  # so that its errors name it, and not the grid
    arms, reference = rest.get("arms", {}), rest.get("reference")
    if not isinstance(arms, Mapping) or not all(isinstance(changes, Mapping) for changes in arms.values()):
        return rest  # an error that the study itself reports
    if design == "one_at_a_time" and reference not in arms:
        raise StudyError(
            f'grid.design = "one_at_a_time": the reference must be an arm of its own, such as [arms.default]; '
            f"reference = {show(reference)} is none"
        )
    base = _without_label(arms.get(reference, {}))
    written = {name: identity(own, changes, f"arms.{name}") for name, changes in arms.items()}
    made = {}
    for point in _points(axes, design):
        name, label = _name(point), _label(point)
        changes = _changes(own, base, point)
        same = identity(own, changes, "grid")
        if written.get(name, same) != same:
            raise StudyError(f"arms.{name}: the grid makes an arm of that name with other settings; rename yours")
        if name in made:
            raise StudyError(f"grid: two of its arms would be called {name}; write them as arms of their own")
        if same not in written.values():
            made[name] = {"label": label, **changes}
    return {**rest, "arms": {**arms, **made}}


def _read(grid: object) -> tuple[str, list[Axis]]:
    """Read the table ``[grid]``: its design and its axes, in the order of the file."""
    if not isinstance(grid, Mapping):
        raise StudyError(
            f"grid = {show(grid)}: must be a table, such as [grid] and optimizer.lr = [1e-4, 1e-3] below it"
        )
    design = grid.get("design", "full")
    if design not in DESIGNS:
        raise StudyError(f"grid.design = {show(design)}: must be {' or '.join(map(show, DESIGNS))}")
    found: list[tuple[str, str, tuple[Any, ...]]] = []
    for section, keys in grid.items():
        if section == "design":
            continue
        if section not in Settings.model_fields:
            raise StudyError(
                f"unknown key `{section}` in [grid]: {did_you_mean(section, ['design', *Settings.model_fields])}"
            )
        if not isinstance(keys, Mapping):
            raise StudyError(f"grid.{section} = {show(keys)}: must be a table of settings with their values")
        found += [(section, key, _values(f"grid.{section}.{key}", given)) for key, given in keys.items()]
    if not found:
        raise StudyError("grid: names no setting; write one below [grid], such as optimizer.lr = [1e-4, 1e-3]")
    optimizer = {key for section, key, _ in found if section == "optimizer"}
    if "betas" in optimizer and (both := sorted(optimizer & {*BETAS})):
        raise StudyError(f"grid.optimizer: has betas as well as {both[0]}, which is one of them; write one of the two")
    _check_number([len(values) for _, _, values in found], design)
    keys = [_key(section, key) for section, key, _ in found]
    return design, [
        Axis(section, key, values, short if keys.count(short) == 1 else f"{section}_{key}")
        for (section, key, values), short in zip(found, keys, strict=True)
    ]


def _key(section: str, key: str) -> str:
    return section if key == "name" and section != "params" else key


def _values(where: str, given: object) -> tuple[Any, ...]:
    """Read the values of one setting."""
    if where.removeprefix("grid.") in _PATHS:
        raise StudyError(f"{where}: can't be in a grid; write an arm for each, such as [arms.mine]")
    if isinstance(given, Mapping):
        return tuple(validate(Spacing, given, where).values(where))
    if not isinstance(given, list | tuple) or len(given) < 2:
        raise StudyError(
            f"{where} = {show(given)}: must be a list of two values or more, or a table such as "
            "{log = [1e-10, 1e-4], points = 7}"
        )
    texts = [value_text(value) for value in given]
    for text in texts:
        if texts.count(text) > 1:
            raise StudyError(f"{where} = {show(given)}: has {text} twice")
    return tuple(given)


def _check_number(sizes: Sequence[int], design: str) -> None:
    number = math.prod(sizes) if design == "full" else sum(sizes)
    if number > MOST_GRID_ARMS:
        raise StudyError(f"grid: makes {number:,} arms; at most {MOST_GRID_ARMS:,} are allowed")


def _points(axes: Sequence[Axis], design: str) -> Iterator[list[tuple[Axis, Any]]]:
    if design == "full":
        for values in product(*(axis.values for axis in axes)):
            yield list(zip(axes, values, strict=True))
    else:
        for axis in axes:
            yield from ([(axis, value)] for value in axis.values)


def _changes(own: Table, base: Table, point: Sequence[tuple[Axis, Any]]) -> dict[str, Any]:
    """The changes of an arm of the grid: the reference's, and the values of the point."""
    betas = [(axis, value) for axis, value in point if axis.section == "optimizer" and axis.key in BETAS]
    plain: dict[str, dict[str, Any]] = {}
    for axis, value in point:
        if (axis, value) not in betas:
            plain.setdefault(axis.section, {})[axis.key] = value
    changes = merge(base, plain, where="grid.")
    for axis, value in betas:
        changes = merge(changes, {"optimizer": _with_beta(own, changes, axis, value)})
    return changes


def _with_beta(own: Table, changes: Table, axis: Axis, value: object) -> dict[str, Any]:
    """Change one of an optimizer's betas, unless it has a key of that name."""
    optimizer = validate(Settings, merge(own, changes, where="grid."), "grid").optimizer.model_dump(mode="json")
    betas = optimizer.get("betas")
    if axis.key in optimizer:
        return {axis.key: value}
    if not isinstance(betas, list) or len(betas) <= BETAS[axis.key]:
        raise StudyError(f"grid.{axis.name}: {optimizer['name']} has no betas")
    return {"betas": [value if place == BETAS[axis.key] else beta for place, beta in enumerate(betas)]}


def identity(own: Table, changes: Table, where: str) -> str:
    """Digest the settings of an arm, given the study's own and what the arm changes; its label doesn't count."""
    return digest(content(validate(Settings, merge(own, _without_label(changes), where=f"{where}."), where)))


def _without_label(changes: Table) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key != "label"}


def _name(point: Sequence[tuple[Axis, Any]]) -> str:
    """Name a point in the characters that an arm's name may have: ``beta2_0p999``."""
    words = "_".join(f"{axis.short}_{value_text(value)}" for axis, value in point)
    name = re.sub(r"[^A-Za-z0-9-]+", "_", re.sub(r"(?<=\d)\.(?=\d)", "p", words)).strip("_")
    if problem := name_problem(name):
        raise StudyError(f"grid: the arm {show(name)} can't be named: {problem}; write it as an arm of its own")
    return name


def _label(point: Sequence[tuple[Axis, Any]]) -> str:
    """Label a point for people: ``lr = 3e-4, beta2 = 0.99``."""
    return ", ".join(f"{axis.short} = {value_text(value)}" for axis, value in point)


def value_text(value: object) -> str:
    """Write a value exactly, as people do: ``1e-8``, ``0.999``, ``64``, ``true``, ``cosine``, ``[0.9, 0.99]``."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return show(value) if isinstance(value, bool) else str(value)
    if value == 0 or 0.01 <= abs(value) < 1e6 or not math.isfinite(value):
        return repr(value).removesuffix(".0")
    written = next(text for digits in range(17) if float(text := f"{value:.{digits}e}") == value)
    mantissa, _, power = written.partition("e")
    return f"{mantissa}e{int(power)}"
