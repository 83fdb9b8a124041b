"""The seeds of a study: how many, a range of how many, from which on, or a list of them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.spec.evidence import Noise
from fairtrial.spec.limits import LARGEST_SEED
from fairtrial.spec.messages import show
from fairtrial.spec.numbers import Count, CountOrZero, at_most
from fairtrial.spec.sections import Section

#: A seed of initial weights and of the order of batches.
Seed = Annotated[CountOrZero, at_most(LARGEST_SEED)]


def as_range(seeds: object) -> object:
    """Read any form of seeds as the table of a `SeedRange`."""
    if type(seeds) is int and seeds >= 1:
        return {"min": seeds, "max": seeds}
    if isinstance(seeds, list | tuple) and seeds:
        return {"min": len(seeds), "max": len(seeds), "listed": seeds}
    if not isinstance(seeds, Mapping) or "listed" in seeds:
        raise PydanticCustomError(
            "seeds",
            "must be an integer of at least 1, a range such as {min = 3, max = 12} or {first = 100, count = 5}, or a "
            "list such as [3, 17, 42]",
        )
    if "count" not in seeds:
        return seeds
    if "min" in seeds or "max" in seeds:
        raise PydanticCustomError("seeds", "has count as well as min and max; write one of the two")
    return {key: value for key, value in seeds.items() if key != "count"} | dict.fromkeys(
        ("min", "max"), seeds["count"]
    )


def _different(seeds: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if seeds is not None and len({*seeds}) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise PydanticCustomError("seeds", "seed {seed} is listed twice", {"seed": twice})
    return seeds


class SeedRange(Section):
    """Least and greatest number of seeds, equal unless the study is sequential, and which seeds they are.

    Attributes:
        min: every arm gets so many.
        max: an arm that is not settled gets up to so many.
        first: the first of them; 0 by default.
        listed: all of them, if they don't follow each other.
    """

    min: Count
    max: Count
    first: Seed | None = None
    listed: Annotated[tuple[Annotated[Seed, Field(strict=True)], ...] | None, AfterValidator(_different)] = None

    @model_validator(mode="after")
    def _in_order(self) -> "SeedRange":
        if self.min > self.max:
            raise PydanticCustomError(
                "seeds",
                "min = {min} must not exceed max = {max}; give both, such as {example}",
                {"min": self.min, "max": self.max, "example": "{min = 3, max = 12}"},
            )
        if self.first is not None and self.first + self.max > LARGEST_SEED:
            raise PydanticCustomError("seeds", f"must be at most {LARGEST_SEED:,}")
        return self

    @property
    def written(self) -> int | list[int] | dict[str, int]:
        """The seeds as a study file has them."""
        if self.listed is not None:
            return list(self.listed)
        first = {} if self.first is None else {"first": self.first}
        if self.min < self.max:
            return {**first, "min": self.min, "max": self.max}
        return {**first, "count": self.max} if first else self.max

    def noise(self, noise: Noise) -> Noise:
        """What varies with the seed, given ``[noise]``, which may say itself with which seed it begins.

        Raises:
            StudyError: both say it, or the design of ``[noise]`` has seeds of its own.
        """
        if self.first is None and self.listed is None:
            return noise
        if noise.first_seed is not None:
            raise StudyError("noise.first_seed: seeds already says which they are; leave one of the two out")
        if self.listed is None:
            return noise.model_copy(update={"first_seed": self.first or None})
        if noise.designed:
            listed = show(list(self.listed))
            raise StudyError(f"seeds = {listed}: a design in [noise] has seeds of its own; write a number")
        start = self.listed[0]
        if self.listed == tuple(range(start, start + len(self.listed))):
            return noise.model_copy(update={"first_seed": start or None})
        return noise.model_copy(update={"listed": self.listed})


#: The key ``seeds`` of a study.
Seeds = Annotated[SeedRange | None, BeforeValidator(as_range)]


def overridden(seeds: Any, changes: Any) -> Any:
    """Apply an override to the seeds of a table: another number of them leaves the first as it is.

    Example:
        >>> overridden({"first": 100, "count": 5}, 8), overridden(3, {"max": 5})
        ({'first': 100, 'count': 8}, {'min': 3, 'max': 5})
        >>> overridden({"first": 100, "count": 5}, {"min": 3, "max": 9})
        {'first': 100, 'min': 3, 'max': 9}
    """
    first = {"first": seeds["first"]} if isinstance(seeds, Mapping) and "first" in seeds else {}
    if not isinstance(changes, Mapping):
        return {**first, "count": changes} if first and type(changes) is int else changes
    if isinstance(seeds, Mapping):
        known = dict(seeds)
    else:
        known = {} if isinstance(seeds, list) else dict.fromkeys(("min", "max"), seeds)
    if "count" in changes:
        known = first
    elif {"min", "max"} & {*changes} and "count" in known:
        known = {**first, **dict.fromkeys(("min", "max"), known["count"])}
    elif "first" in changes and not isinstance(seeds, Mapping) and known:
        known = {"count": seeds}
    return {**known, **changes}
