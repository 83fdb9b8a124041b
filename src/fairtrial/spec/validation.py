"""Checks what pydantic can't: keys of a study that depend on its arms and on what its trials record."""

from collections.abc import Collection, Mapping, Sequence
from typing import Self, TypeVar

from pydantic import TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.registry import MEASURES, UnknownNameError, did_you_mean
from fairtrial.spec.evidence import ALL_OTHERS, Claim, Evidence, Finite, Noise, Target
from fairtrial.spec.measures import better, find_measure, measures_of
from fairtrial.spec.messages import explain, show
from fairtrial.spec.metrics import METRICS, Direction, may_be_metric, recorded_metrics
from fairtrial.spec.numbers import Count
from fairtrial.spec.overrides import Table
from fairtrial.spec.sections import BUILT_IN, Section, Settings

AnySection = TypeVar("AnySection", bound=Section)


class SeedRange(Section):
    """Least and greatest number of seeds of a sequential study."""

    min: Count
    max: Count

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise PydanticCustomError("seeds", "min must not exceed max")
        return self


#: What a paper gives for each measure of each arm.
_REPORTED = TypeAdapter(dict[str, dict[str, Finite]])


class Vocabulary:
    """The metrics and measures that the trials of a study can have.

    Args:
        arms: the settings of every arm.
    """

    def __init__(self, arms: Sequence[Settings]) -> None:
        self._known = all(arm.training.loop == BUILT_IN for arm in arms)
        self._metrics = recorded_metrics(validation=any(arm.data.validation for arm in arms))

    def check_measure(self, name: str, where: str) -> None:
        """Raise a `StudyError` for a name that no measure of this study has."""
        try:
            found = find_measure(name)
        except UnknownNameError as error:  # of module:Name
            raise StudyError(f"{where} = {show(name)}: {error.hint}") from error
        known = list(measures_of(self._metrics)) if self._known else MEASURES.names()
        self._check(name, where, found.metrics if found else None, known)

    def check_target(self, target: Target | None, where: str) -> None:
        """Raise a `StudyError` for a target of a metric that no epoch of this study records."""
        if target is not None:
            name = target.metric
            self._check(name, f"{where}.metric", (name,) if may_be_metric(name) else None, self._metrics)
            _check_direction(name, target.direction, where)

    def _check(self, name: str, where: str, needed: Collection[str] | None, known: Collection[str]) -> None:
        """Check a name by the metrics that it needs (None: no such name), against the names that are known."""
        if needed is None or (self._known and not set(needed) <= set(METRICS)):
            more = "" if self._known else "; NAME is a metric that the training loop yields, K a number of epochs"
            raise StudyError(f"{where} = {show(name)}: {did_you_mean(name, known)}{more}")
        if self._known and not set(needed) <= set(self._metrics):
            raise StudyError(f"{where} = {show(name)}: needs images that are held out; set data.validation")


def read_noise(table: Table) -> Noise:
    """Read ``[noise]``."""
    return _section(Noise, table.get("noise", {}), "noise")


def read_seeds(table: Table, noise: Noise) -> tuple[int, int]:
    """Read ``seeds``: least and greatest number of seeds, equal unless the study is sequential.

    Raises:
        StudyError: neither an integer of at least 1 nor a range, or not the number that a crossed design has.
    """
    seeds = table.get("seeds", noise.crossed or 1)
    if isinstance(seeds, Mapping):
        wanted = _section(SeedRange, seeds, "seeds")
    elif isinstance(seeds, int) and not isinstance(seeds, bool) and seeds >= 1:
        wanted = SeedRange(min=seeds, max=seeds)
    else:
        raise StudyError(
            f"seeds = {show(seeds)}: must be an integer of at least 1, or a range such as {{min = 3, max = 12}}"
        )
    if noise.crossed is not None and not wanted.min == wanted.max == noise.crossed:
        raise StudyError(
            f"seeds = {show(seeds)}: the crossed design in [noise] has {noise.initial_weights} times "
            f"{noise.batch_orders} = {noise.crossed} seeds; leave seeds out"
        )
    return wanted.min, wanted.max


def read_evidence(table: Table, words: Vocabulary) -> Evidence:
    """Read ``[evidence]``.

    Raises:
        StudyError: naming the key, its place and what is allowed.
    """
    evidence = _section(Evidence, table.get("evidence", {}), "evidence")
    words.check_measure(evidence.metric, "evidence.metric")
    _check_direction(evidence.metric, evidence.direction, "evidence")
    words.check_target(evidence.target, "evidence.target")
    _check_has_target(evidence.metric, evidence.target, "evidence")
    return evidence


def read_claims(table: Table, arms: Sequence[str], evidence: Evidence, words: Vocabulary) -> tuple[Claim, ...]:
    """Read every ``[[claims]]``; one that names no metric is about the evidence's.

    Raises:
        StudyError: naming the key, its place and what is allowed.
    """
    tables = table.get("claims", [])
    if not isinstance(tables, list) or not all(isinstance(one, Mapping) for one in tables):
        raise StudyError("claims: must be a list of tables, each under [[claims]]")
    claims: list[Claim] = []
    for index, one in enumerate(tables):
        where = f"claims[{index}]"
        claim = _section(Claim, {"metric": evidence.metric, **one}, where)
        if claim.id in {other.id for other in claims}:
            raise StudyError(f'{where}.id = "{claim.id}": another claim has that id')
        _check_arm(claim.arm, arms, f"{where}.arm")
        if claim.against != ALL_OTHERS:
            _check_arm(claim.against, [*arms, ALL_OTHERS], f"{where}.against")
        words.check_measure(claim.metric, f"{where}.metric")
        words.check_target(claim.target, f"{where}.target")
        _check_has_target(claim.metric, claim.target or evidence.target, where)
        claims.append(claim)
    return tuple(claims)


def read_reported(table: Table, arms: Sequence[str], words: Vocabulary) -> dict[str, dict[str, float]]:
    """Read ``[reported.ARM]``: what a paper gives for each measure of each arm.

    Raises:
        StudyError: naming the key, its place and what is allowed.
    """
    try:
        reported = _REPORTED.validate_python(table.get("reported", {}))
    except ValidationError as error:
        raise StudyError(explain(error, {}, "reported")) from error
    for arm, figures in reported.items():
        _check_arm(arm, arms, "reported", key=True)
        for measure in figures:
            words.check_measure(measure, f"reported.{arm}: key")
    return reported


def _section(kind: type[AnySection], table: object, where: str) -> AnySection:
    if not isinstance(table, Mapping):
        raise StudyError(f"{where} = {show(table)}: must be a table")
    try:
        return kind.model_validate(dict(table))
    except ValidationError as error:
        raise StudyError(explain(error, table, where, kind)) from error


def _check_direction(name: str, direction: Direction | None, where: str) -> None:
    """See to it that one knows which way is better, and that nobody says the contrary of a metric's name."""
    known = better(name)
    if known is None and direction is None:
        raise StudyError(f'{where}.direction: is missing; say whether {name} is better "higher" or "lower"')
    if known is not None and direction not in {None, known}:
        raise StudyError(f'{where}.direction = "{direction}": {name} is better {known}; leave it out')


def _check_has_target(measure: str, target: Target | None, where: str) -> None:
    found = find_measure(measure)
    if found and found.needs_target and target is None:
        raise StudyError(
            f'{where}.target: is missing; {measure} needs one, such as {{metric = "test_acc", value = 0.6}}'
        )


def _check_arm(name: str, known: Sequence[str], where: str, *, key: bool = False) -> None:
    if name not in known:
        what = f"{where}.{name}" if key else f"{where} = {show(name)}"
        raise StudyError(f"{what}: no arm has that name; {did_you_mean(name, known)}")
