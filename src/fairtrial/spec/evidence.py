"""What is compared, what is claimed, and what varies with the seed; docs/studies.md explains the keys."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AllowInfNan, BeforeValidator, Field, StrictBool, StrictFloat, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.spec.limits import LARGEST_SEED, LONGEST_NAME
from fairtrial.spec.measures import better
from fairtrial.spec.metrics import UNITS, Direction, Metric
from fairtrial.spec.numbers import Count, Interval, Positive, at_most
from fairtrial.spec.sections import Section

#: What a claim is against if not against one arm.
ALL_OTHERS = "all others"

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)]
Finite = Annotated[StrictFloat, AllowInfNan(False)]


def _as_floor(value: object) -> object:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value is None or value == "chance" or number:
        return value
    raise PydanticCustomError("floor", 'must be a number, or "chance"')


Floor = Annotated[float | Literal["chance"], BeforeValidator(_as_floor)]
Probability = Annotated[StrictFloat, AfterValidator(Interval("(0, 1)"))]


class MetricSettings(Section):
    """What a study declares of a metric that its training loop records.

    Attributes:
        unit: ``"fraction"`` (in [0, 1], shown in percent), ``"percent"`` (recorded as such), ``"seconds"`` or
            ``"plain"``; by default what fairtrial's own metric of that name has, or else a plain number.
        direction: which way is better, for a name that does not imply it.
        sparse: whether epochs may lack it, the first one too.
    """

    unit: Literal["fraction", "percent", "seconds", "plain"] | None = None
    direction: Direction | None = None
    sparse: StrictBool = False

    def of(self, name: str) -> Metric:
        """The declared metric."""
        return Metric.named(name, self.direction, self.unit and UNITS[self.unit])


class Target(Section):
    """A value that a metric of the epochs is to reach: at least the value if higher is better, else at most."""

    metric: str
    value: Finite
    direction: Direction | None = None

    @property
    def larger_is_better(self) -> bool:
        """Whether the metric is to rise to the value."""
        return (self.direction or better(self.metric)) == "higher"


class AlsoMeasure(Section):
    """A further measure on which the study compares its arms, with a margin in its own unit."""

    metric: str
    direction: Direction | None = None
    margin: Positive | None = None


def _as_measures(also: object) -> object:
    return [{"metric": item} if isinstance(item, str) else item for item in also] if isinstance(also, list) else also


class Constant(Section):
    """A value that every arm's mean is compared with; one-sided if only "better" is of interest."""

    value: Finite
    one_sided: StrictBool | None = None


def _as_constant(against: object) -> object:
    if isinstance(against, int | float) and not isinstance(against, bool):
        return {"value": against}
    if against is None or isinstance(against, Mapping | Constant):
        return against
    raise PydanticCustomError("constant", "must be a number, or a table such as { value = 0.9 }")


class Evidence(Section):
    """What arms are compared on, and by what standard. Set before the first run; a part of the study's hash.

    The margin is in the measure's own unit; alpha is the probability, over all arms, looks and questions together, of
    any false verdict. With `not_worse_than` the question is whether arms are worse than the reference by that margin or
    more, and alpha is the probability of each of the two wrong answers; see `fairtrial.gate`.

    Further questions are `also`, `against`, `pairs` and `best`; each gets an equal part of alpha. With `aa`, an arm may
    have the settings of another, and gets other seeds of noise. With `paired = false`, means of runs are compared, as
    of runs that share no seeds.
    """

    metric: str = "best_test_acc"
    direction: Direction | None = None
    margin: Positive | None = None
    not_worse_than: Positive | None = None
    alpha: Probability = 0.05
    target: Target | None = None
    #: A run whose measure is below, or above, did not learn and counts as lost.
    lost_below: Floor | None = None
    lost_above: Finite | None = None
    pooling: Literal["guarded", "pooled", "own"] | None = None  # None for "guarded"
    #: Whether a fixed number of seeds spends all of alpha; otherwise some is kept for seeds that are added later.
    final: StrictBool | None = None
    aa: StrictBool | None = None
    paired: StrictBool | None = None  # None for true
    also: Annotated[tuple[AlsoMeasure, ...] | None, BeforeValidator(_as_measures)] = None
    against: Annotated[Constant | None, BeforeValidator(_as_constant)] = None
    pairs: Literal["all"] | None = None
    best: StrictBool | None = None

    @property
    def larger_is_better(self) -> bool:
        """Whether a higher measure is better."""
        return (self.direction or better(self.metric)) == "higher"

    @property
    def bound(self) -> float | None:
        """The margin: on both sides of zero, or with `not_worse_than` on the worse one alone."""
        return self.margin if self.not_worse_than is None else self.not_worse_than

    @property
    def one_sided(self) -> bool:
        """Whether the margin counts on the worse side alone."""
        return self.not_worse_than is not None

    @property
    def unpaired(self) -> bool:
        """Whether runs are compared without regard to their seeds; such a study has one look, for all of alpha."""
        return self.paired is False

    @property
    def directions(self) -> dict[str, Direction | None]:
        """The better direction of each measure, where the study states it."""
        return {self.metric: self.direction} | {also.metric: also.direction for also in self.also or ()}

    @property
    def further_questions(self) -> int:
        """How many questions there are besides that of the arms and the reference."""
        return len(self.also or ()) + (self.against is not None) + (self.pairs is not None) + bool(self.best)


def both_sides(alpha: float, arms: int) -> float:
    """The two-sided error rate of intervals whose sides each err with probability alpha, over so many arms.

    Of one arm the two sides can't both be wrong: the first to be passes or fails it. Of several, one may pass wrongly
    while another fails wrongly, with a probability of at most about alpha squared.

    Example:
        >>> both_sides(0.05, 1), round(both_sides(0.05, 4), 4)
        (0.1, 0.0975)
    """
    return 2 * alpha if arms == 1 else 1 - (1 - alpha) ** 2


class Claim(Section):
    """A statement, a paper's for example, as a range for one difference: the arm's measure minus the other's.

    If it is `relative`, differences are fractions of the other arm's value at the same seed.
    """

    id: Name
    text: Annotated[str, Field(min_length=1)]
    arm: str
    against: str
    metric: str
    direction: Direction | None = None
    at_least: Finite | None = None
    within: Positive | None = None
    relative: bool = False
    target: Target | None = None

    @property
    def region(self) -> tuple[float, float]:
        """The range of the difference if the claim is true; ends may be infinite.

        Example:
            >>> Claim(id="1", text="b is close behind a", arm="b", against="a", metric="best_test_acc",
            ...       direction="lower", within=0.01).region
            (-0.01, 0.0)
        """
        most = math.inf if self.within is None else self.within
        if self.direction is None:
            return -most, most
        least = self.at_least or 0.0
        return (least, most) if self.direction == "higher" else (-most, 0.0 - least)  # never -0.0

    @model_validator(mode="after")
    def _claims_something(self) -> Self:
        if self.direction is None and self.within is None:
            raise PydanticCustomError("claim", 'needs direction = "higher" or "lower", or within = ...')
        if self.direction is None and self.at_least is not None:
            raise PydanticCustomError("claim", "at_least needs a direction")
        if self.within is not None and (self.at_least or 0.0) >= self.within:
            raise PydanticCustomError("claim", "at_least must be below within")
        if self.arm == self.against:
            raise PydanticCustomError("claim", "arm and against are the same")
        return self


class JointClaim(Section):
    """A statement that holds if several claims of the study hold, which it names by their ids.

    It is supported if all of them are supported, and contradicted if one is contradicted.
    """

    id: Name
    text: Annotated[str, Field(min_length=1)]
    all: tuple[Name, ...]

    @model_validator(mode="after")
    def _joins_several(self) -> Self:
        if len(set(self.all)) < 2:
            raise PydanticCustomError("joint_claim", "all must name at least two claims by their ids")
        return self


class Noise(Section):
    """Which sources of noise vary with the seed. By default both do: seed s has weights s and order s.

    Two numbers make a crossed design, in which every set of weights meets every order; its first seeds are those of the
    default. A single number can only be 1: that source is fixed at what it is for seed 0, and the other varies. Dropout
    goes with the order of batches. With `first_seed` all of it begins with another seed than 0: fresh seeds, to confirm
    what another study found.
    """

    initial_weights: Count | None = None
    batch_orders: Count | None = None
    first_seed: Annotated[Count, at_most(LARGEST_SEED)] | None = None
    #: The seeds of a study that lists them; its file has them under ``seeds``.
    listed: tuple[int, ...] | None = None

    @property
    def crossed(self) -> int | None:
        """Number of seeds of a crossed design; None for any other."""
        if self.initial_weights is None or self.batch_orders is None:
            return None
        return self.initial_weights * self.batch_orders

    def of(self, seed: int) -> tuple[int, int]:
        """Which initial weights and which order of batches a seed has.

        Example:
            >>> [Noise(initial_weights=2, batch_orders=2).of(seed) for seed in range(4)]
            [(0, 0), (1, 1), (0, 1), (1, 0)]
            >>> Noise(first_seed=1000).of(2)
            (1002, 1002)
        """
        if self.listed is not None:
            return self.listed[seed], self.listed[seed]
        first, weights, orders = self.first_seed or 0, self.initial_weights, self.batch_orders
        if weights is None or orders is None:
            return first + (0 if weights else seed), first + (0 if orders else seed)
        # Along the diagonals of the grid: one meets a pair again only after lcm steps, and then goes to the next.
        return first + seed % weights, first + (seed + seed // math.lcm(weights, orders)) % orders

    @property
    def designed(self) -> bool:
        """Whether the sources vary otherwise than by default."""
        return self.initial_weights is not None or self.batch_orders is not None

    @model_validator(mode="after")
    def _is_a_design(self) -> Self:
        if self.crossed == 1:
            raise PydanticCustomError("noise", "initial_weights = 1 and batch_orders = 1 leave nothing that varies")
        sources = {"initial_weights": self.initial_weights, "batch_orders": self.batch_orders}
        for (name, number), other in zip(sources.items(), reversed(sources), strict=True):
            if self.crossed is None and number not in {None, 1}:
                raise PydanticCustomError(
                    "noise",
                    "{name} = {number}: needs {other} too, for a crossed design; 1 fixes it at that of seed 0",
                    {"name": name, "number": number, "other": other},
                )
        return self
