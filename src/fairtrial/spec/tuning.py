"""How the settings of each arm are tuned before arms are compared: which, over what ranges, on what budget."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.spec.evidence import Finite, Noise
from fairtrial.spec.limits import LONGEST_NAME, MOST_TRIALS
from fairtrial.spec.measures import find_measure
from fairtrial.spec.messages import show, validate
from fairtrial.spec.metrics import Direction
from fairtrial.spec.numbers import Count, CountOrZero, at_most
from fairtrial.spec.overrides import Table, merge
from fairtrial.spec.sections import Section
from fairtrial.spec.seeds import SeedRange, as_range
from fairtrial.spec.settings import BUILT_IN, Settings

#: The first seed of tuning trials: far above those of comparisons, so that a study can get more seeds later.
FIRST_SEED = 100_000
#: Seeds of tuning trials are below this, because those of A/A arms are above.
LAST_SEED = 1_000_000
#: Tuning trials of an arm, and values of one key.
MOST_TUNING_TRIALS = 10_000

#: A value of a key: a number, text, true or false, or a list of these.
Value: TypeAlias = Any
#: Values by dotted key, such as ``optimizer.lr``.
Values: TypeAlias = Mapping[str, Value]


class Range(Section):
    """The values among which a key is tuned: between two ends, on a logarithmic or a linear scale, or listed.

    Attributes:
        log: both ends of a range on a logarithmic scale.
        linear: both ends of a range on a linear scale.
        values: the values themselves.
        integer: whether a range has integers only.
    """

    log: tuple[Finite, Finite] | None = None
    linear: tuple[Finite, Finite] | None = None
    values: Annotated[tuple[Value, ...], Field(max_length=MOST_TUNING_TRIALS)] | None = None
    integer: StrictBool = False

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of a range; not of listed values."""
        ends = self.log or self.linear
        assert ends is not None
        return ends

    @property
    def samples(self) -> tuple[Value, ...]:
        """Values that a study checks beforehand: the ends, or all that are listed."""
        if self.values is not None:
            return self.values
        return tuple(int(end) if self.integer else end for end in self.ends)

    def at_edge(self, value: Value) -> bool:
        """Whether a value is within 5% of an end of the range, in its scale, or is an end of a list of numbers.

        Example:
            >>> Range(log=(1e-5, 1e-1)).at_edge(0.09), Range(log=(1e-5, 1e-1)).at_edge(0.03)
            (True, False)
            >>> Range(values=(0.1, 0.2, 0.3)).at_edge(0.3), Range(values=("a", "b")).at_edge("b")
            (True, False)
        """
        if self.values is not None:
            numbers = [one for one in self.values if isinstance(one, int | float) and not isinstance(one, bool)]
            return len(numbers) == len(self.values) > 1 and value in {min(numbers), max(numbers)}
        scale = math.log if self.log else float
        low, high, at = (scale(one) for one in (*self.ends, value))
        return min(at - low, high - at) <= 0.05 * (high - low)

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if sum(one is not None for one in (self.log, self.linear, self.values)) != 1:
            raise PydanticCustomError("range", "must have one of log, linear and values")
        if self.values is not None:
            if not self.values or any(self.values.count(one) > 1 for one in self.values):
                raise PydanticCustomError("range", "must list values that differ")
            return self
        low, high = self.ends
        if low >= high:
            raise PydanticCustomError("range", "the first end must be below the second")
        if self.log and low <= 0:
            raise PydanticCustomError("range", "a logarithmic range must be above 0")
        if self.integer and not (low.is_integer() and high.is_integer()):
            raise PydanticCustomError("range", "the ends of a range of integers must be integers")
        return self


#: What a range may be written as.
_EXAMPLES = "a list of values, {log = [1e-5, 1e-1]} or {linear = [0.0, 0.5]}"


def _as_space(space: object) -> object:
    """Read nested tables of ranges by dotted keys."""
    if not isinstance(space, Mapping):
        return space
    return dict(_ranges(space, ""))


def _ranges(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, list | tuple):
            yield f"{prefix}{key}", {"values": value}
        elif isinstance(value, Range) or (isinstance(value, Mapping) and {*value} & {*Range.model_fields}):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping):
            yield from _ranges(value, f"{prefix}{key}.")
        else:
            raise PydanticCustomError(
                "range",
                "{key} = {value}: must be {examples}",
                {"key": f"{prefix}{key}", "value": show(value), "examples": _EXAMPLES},
            )


Space = Annotated[dict[str, Range], BeforeValidator(_as_space)]


class Tuning(Section):
    """How each arm's settings are tuned; docs/tuning.md explains the keys.

    Attributes:
        space: what is tuned, by dotted key, over which range.
        arms: other ranges, or further keys, of single arms.
        trials: tuning trials of each arm, a tuning trial being values of the keys at all seeds; of a grid all points.
        metric: a measure of the validation split, by which the best values are chosen.
        direction: which way it is better, where its name does not say.
        sampler: what proposes values: Optuna's ``"tpe"``, ``"random"`` and ``"qmc"``, or ``"grid"``.
        sampler_seed: the sampler's own seed; each arm has a sampler with this seed.
        at_once: how many values of each arm TPE proposes before it learns their results, after the first ten.
        seeds: the seeds of tuning trials, which the comparison must not use.
        of: the hash of the study that was tuned, in the study that compares arms with tuned settings.
        found: the best values by arm, in that study.
        lost: how many tuning trials of an arm gave no value, if any, in that study.
        mixed: versions, files of code and the like in which tuning trials differed, in that study.
    """

    space: Annotated[Space, Field(min_length=1)]
    arms: Mapping[str, Space] = {}
    trials: Annotated[Count, at_most(MOST_TUNING_TRIALS)] | None = None
    metric: str = "final_val_acc"
    direction: Direction | None = None
    sampler: Literal["tpe", "random", "qmc", "grid"] = "tpe"
    sampler_seed: Annotated[CountOrZero, at_most(2**32 - 1)] = 0
    at_once: Annotated[Count, at_most(MOST_TUNING_TRIALS)] = 5
    seeds: Annotated[SeedRange, BeforeValidator(as_range), PlainSerializer(lambda seeds: seeds.written)] = SeedRange(
        min=1, max=1
    )
    of: Annotated[str, Field(strict=True, max_length=LONGEST_NAME)] | None = None
    found: Mapping[str, Mapping[str, Value]] | None = None
    lost: Mapping[str, Count] = {}
    mixed: tuple[str, ...] = ()

    @property
    def noise(self) -> Noise:
        """The seeds of tuning trials."""
        known = self.seeds.first is not None or self.seeds.listed is not None
        seeds = self.seeds if known else self.seeds.model_copy(update={"first": FIRST_SEED})
        return seeds.noise(Noise())

    def space_of(self, arm: str) -> Mapping[str, Range]:
        """What is tuned of an arm."""
        return {**self.space, **self.arms.get(arm, {})}

    def budget(self, arm: str) -> int:
        """How many values are tried of an arm, each at all seeds."""
        points = math.prod(len(one.values or ()) for one in self.space_of(arm).values())
        return points if self.sampler == "grid" else self.trials or 0

    def rounds(self, budget: int) -> Iterator[int]:
        """How many values are proposed at once, one round after the other.

        A round's proposals depend on the results of the rounds before it alone, whatever the number of workers.
        """
        first, later = {"tpe": (10, self.at_once), "qmc": (1, budget)}.get(self.sampler, (budget, budget))
        size = first
        while budget > 0:
            yield min(size, budget)
            budget -= size
            size = later

    def under(self, labels: Mapping[str, str]) -> Self:
        """Copy it, with other names of the arms."""
        tables = {key: getattr(self, key) for key in ("arms", "found", "lost") if getattr(self, key)}
        renamed = {
            key: {labels[arm]: one for arm, one in table.items() if arm in labels} for key, table in tables.items()
        }
        return self.model_copy(update=renamed)

    @model_validator(mode="after")
    def _has_a_budget(self) -> Self:
        if self.sampler == "grid":
            ranges = [(key, one) for space in (self.space, *self.arms.values()) for key, one in space.items()]
            unlisted = next((key for key, one in ranges if one.values is None), None)
            if unlisted:
                raise PydanticCustomError("grid", "space.{key}: of a grid, list the values", {"key": unlisted})
        elif self.trials is None:
            raise PydanticCustomError("trials", "trials: is missing; say how many each arm gets, such as 20")
        if self.seeds.min != self.seeds.max:
            raise PydanticCustomError("seeds", "seeds: must be a fixed number, such as 1 or {first = 500, count = 2}")
        return self


def nested(values: Values) -> dict[str, Any]:
    """Write values by dotted key as the nested tables of a study.

    Example:
        >>> nested({"optimizer.lr": 0.1, "optimizer.eps": 1e-8})
        {'optimizer': {'lr': 0.1, 'eps': 1e-08}}
    """
    table: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        table.setdefault(section, {})[name] = value
    return table


def check_tuning(
    tuning: Tuning, arms: Mapping[str, Table], tables: Mapping[str, Table], settings: Mapping[str, Settings]
) -> None:
    """Check [tuning] against a study's arms, given what each changes, its whole table, and its settings.

    Raises:
        StudyError: naming the key and what is allowed.
    """
    for name in tuning.arms:
        if name not in arms:
            raise StudyError(f"tuning.arms.{name}: no arm has that name; the study has {', '.join(arms)}")
    _check_measure(tuning, settings)
    budgets = {name: tuning.budget(name) for name in arms}
    if len({*budgets.values(), tuning.trials or next(iter(budgets.values()))}) > 1:
        asked = f"tuning.trials = {tuning.trials}, and " if tuning.trials else ""
        each = ", ".join(f"{name} {number}" for name, number in budgets.items())
        raise StudyError(f"{asked}a grid with these numbers of points: {each}; every arm must have the same budget")
    if (number := sum(budgets.values()) * tuning.seeds.max) > MOST_TRIALS:
        raise StudyError(f"tuning: {number:,} tuning trials; a study has at most {MOST_TRIALS:,}")
    for name, changes in arms.items():
        for key, one in tuning.space_of(name).items():
            _check_key(key, tuning, name, changes)
            for value in one.samples:
                try:
                    validate(Settings, merge(tables[name], nested({key: value})), f"arms.{name}")
                except StudyError as error:
                    raise StudyError(f"tuning.space: {error}") from error
    if tuning.found is not None:
        _check_found(tuning, settings)


def _check_key(key: str, tuning: Tuning, arm: str, changes: Table) -> None:
    section, _, name = key.partition(".")
    if section not in Settings.model_fields or not name or "." in name:
        raise StudyError(f"tuning.space.{key}: must be a section and a key, such as optimizer.lr")
    if section == "data" or name == "name" or key in {"training.loop", "training.code"}:
        raise StudyError(f"tuning.space.{key}: is what arms are compared on, and can't be tuned")
    if key in {"model.weights", "model.weights_sha256"}:
        raise StudyError(f"tuning.space.{key}: files can't be tuned; write an arm for each, such as [arms.mine]")
    if tuning.found is None and name in changes.get(section, {}):
        raise StudyError(
            f"arms.{arm}.{key}: is tuned, so the arm can't set it; leave it out, or give the arm a range of its own in "
            f"[tuning.arms.{arm}]"
        )


def _check_measure(tuning: Tuning, settings: Mapping[str, Settings]) -> None:
    """Check that the measure is one of the validation split: the test set must never choose."""
    found = find_measure(tuning.metric)
    where = f"tuning.metric = {show(tuning.metric)}"
    if found is None:
        raise StudyError(f"{where}: is no measure; write one of the validation split, such as final_val_acc")
    wrong = [name for name in found.metrics if not _of_validation(name)]
    if wrong or not found.metrics:
        what = f"{wrong[0]} is not of the validation split" if wrong else "does not say which metrics it needs"
        raise StudyError(f"{where}: {what}; the test set must not choose: write one such as final_val_acc")
    for name, one in settings.items():
        if one.training.loop == BUILT_IN and not one.data.validation:
            raise StudyError(
                f"tuning: {name} holds no images out to tune on; set data.validation, such as data.validation = 5000"
            )


def check_round(metric: str) -> None:
    """Check that a tuning round, whose looks don't count for the comparison, has a measure of the validation split.

    Raises:
        StudyError: it has another one.
    """
    found = find_measure(metric)
    if found is None or not found.metrics or not all(map(_of_validation, found.metrics)):
        raise StudyError(
            f"tuning_round: {metric} is not of the validation split; tuning rounds are made by [tuning], and no study "
            "of your own needs this key"
        )


def _of_validation(metric: str) -> bool:
    words = {*re.split(r"[^a-z]+", metric.lower())}
    return bool(words & {"val", "valid", "validation"}) and "test" not in words


def check_tuning_seeds(tuning: Tuning, noise: Noise, seeds: int) -> None:
    """Check that no seed of a tuning trial is one of the comparison's.

    Raises:
        StudyError: naming the seed.
    """
    used = {one for seed in range(seeds) for one in noise.of(seed)}
    tuned = {tuning.noise.of(seed)[0] for seed in range(tuning.seeds.max)}
    if both := sorted(used & tuned):
        raise StudyError(f"tuning.seeds: seed {both[0]} is one of the comparison's; tune on others")
    if max(tuned) >= LAST_SEED:
        raise StudyError(f"tuning.seeds: seed {max(tuned)}: must be below {LAST_SEED:,}")


def _check_found(tuning: Tuning, settings: Mapping[str, Settings]) -> None:
    """Check that the arms have the settings that were found for them."""
    for name, one in settings.items():
        found = (tuning.found or {}).get(name)
        if found is None or {*found} != {*tuning.space_of(name)}:
            raise StudyError(f"tuning.found.{name}: must have a value of each tuned key")
        table = one.model_dump(mode="json")
        for key, value in found.items():
            section, _, field = key.partition(".")
            has = table[section].get(field)
            if has != (list(value) if isinstance(value, tuple) else value):
                raise StudyError(
                    f"tuning.found.{name}: {key} = {show(value)}, but the arm has {show(has)}; to compare other "
                    "settings, leave [tuning] out"
                )
