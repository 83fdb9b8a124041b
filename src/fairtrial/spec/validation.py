"""The keys of a study file, and the checks that depend on its arms and on what its trials record."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from fairtrial.errors import StudyError
from fairtrial.registry import MEASURES, UnknownNameError, did_you_mean
from fairtrial.spec.evidence import (
    ALL_OTHERS,
    AlsoMeasure,
    Claim,
    Evidence,
    Finite,
    JointClaim,
    MetricSettings,
    Name,
    Noise,
    Target,
)
from fairtrial.spec.imported import Imported
from fairtrial.spec.measures import better, find_measure, measures_of
from fairtrial.spec.messages import show
from fairtrial.spec.metrics import PERCENT, UNITS, Direction, Metric, Unit, may_be_metric, own_unit, settings_needed
from fairtrial.spec.numbers import Count
from fairtrial.spec.seeds import SeedRange, Seeds
from fairtrial.spec.settings import BUILT_IN, Settings
from fairtrial.spec.tuning import Tuning, check_round

if TYPE_CHECKING:  # study imports this module
    from fairtrial.spec.study import Study


Asks = TypeVar("Asks", Evidence, AlsoMeasure, Target)
HasTarget = TypeVar("HasTarget", Evidence, Claim)


class StudyFile(Settings):
    """A study file as it is written: the settings that all arms share, and everything else."""

    name: Name
    reference: Name
    arms: Any
    seeds: Seeds = None
    noise: Noise = Noise()
    metrics: Mapping[str, MetricSettings] = {}
    evidence: Evidence = Evidence()
    reported: Mapping[str, dict[str, Finite]] = {}
    claims: tuple[Claim, ...] = ()
    joint_claims: tuple[JointClaim, ...] = ()
    imported: Imported | None = None
    tuning: Tuning | None = None
    tuning_round: Count | None = None

    @field_validator("claims", mode="before")
    @classmethod
    def _default_metric(cls, claims: Any, info: ValidationInfo) -> Any:
        if not isinstance(claims, list):
            raise PydanticCustomError("claims", "must be a list of tables, each under [[claims]]")
        metric = info.data.get("evidence", Evidence()).metric
        return [{"metric": metric, **claim} if isinstance(claim, Mapping) else claim for claim in claims]

    @property
    def seed_range(self) -> SeedRange:
        """The seeds of the study.

        Raises:
            StudyError: not the number of a crossed design.
        """
        if self.noise.listed is not None:
            raise StudyError(f"noise.listed: write seeds = {show(list(self.noise.listed))}, beside the study's name")
        crossed = self.noise.crossed
        seeds = self.seeds or SeedRange(min=crossed or 1, max=crossed or 1)
        if crossed is not None and not seeds.min == seeds.max == crossed:
            stated = seeds.min if seeds.min == seeds.max else {"min": seeds.min, "max": seeds.max}
            raise StudyError(
                f"seeds = {show(stated)}: the crossed design in [noise] has {self.noise.initial_weights} times "
                f"{self.noise.batch_orders} = {crossed} seeds; leave seeds out"
            )
        return seeds

    @cached_property
    def declared(self) -> Mapping[str, Metric]:
        """The metrics that the study declares, by name."""
        return {name: metric.of(name) for name, metric in self.metrics.items()}

    def with_directions(self) -> Self:
        """Copy it, with the better direction of evidence and targets filled in where [metrics] has it."""

        def directed(section: Asks) -> Asks:
            missing = section.direction is None and better(section.metric) is None
            return section.model_copy(update={"direction": better(section.metric, self.declared)} if missing else {})

        def with_target(section: HasTarget) -> HasTarget:
            return section.model_copy(update={"target": section.target and directed(section.target)})

        claims = tuple(map(with_target, self.claims))
        evidence = with_target(directed(self.evidence))
        also = evidence.also and tuple(map(directed, evidence.also))
        return self.model_copy(update={"evidence": evidence.model_copy(update={"also": also}), "claims": claims})

    def check_questions(self, arms: Mapping[str, Settings]) -> None:
        """Check metrics, evidence, claims and reported figures against the study's arms.

        Raises:
            StudyError: naming the key and what is allowed.
        """
        words = Vocabulary(list(arms.values()), self.declared)
        for name in self.metrics:
            words.check_metric(name, self.metrics[name])
        self._check_tuning(words)
        evidence = self.evidence
        words.check_measure(evidence.metric, "evidence.metric")
        words.check_direction(evidence.metric, evidence.direction, "evidence")
        words.check_target(evidence.target, "evidence.target")
        _check_has_target(evidence.metric, evidence.target, "evidence")
        _check_size(evidence.metric, evidence.margin, "evidence.margin", self.declared)
        _check_size(evidence.metric, evidence.not_worse_than, "evidence.not_worse_than", self.declared)
        _check_one_sided(evidence)
        self._check_further_questions(words, len(arms))
        self._check_unpaired()
        _check_floor(self.with_directions().evidence, self.declared)
        built_in = [arm.data for arm in arms.values() if arm.training.loop == BUILT_IN]
        if evidence.lost_below == "chance" and not all(data.class_count for data in built_in):
            raise StudyError('evidence.lost_below = "chance": needs data.classes, the number of classes')
        if evidence.against is not None:
            found = find_measure(evidence.metric, declared=self.declared)
            _check_level(found.unit if found else None, evidence.against.value, "evidence.against")
        ids: set[str] = set()
        opponents = [*arms, ALL_OTHERS]
        for index, claim in enumerate(self.claims):
            where = f"claims[{index}]"
            if claim.id in ids:
                raise StudyError(f'{where}.id = "{claim.id}": another claim has that id')
            ids.add(claim.id)
            check_arm(claim.arm, arms, f"{where}.arm = {show(claim.arm)}")
            check_arm(claim.against, opponents, f"{where}.against = {show(claim.against)}")
            words.check_measure(claim.metric, f"{where}.metric")
            words.check_target(claim.target, f"{where}.target")
            _check_has_target(claim.metric, claim.target or evidence.target, where)
            for key in ("at_least", "within") if not claim.relative else ():
                _check_size(claim.metric, getattr(claim, key), f"{where}.{key}", self.declared)
        known = {claim.id: None for claim in self.claims}
        for index, joint in enumerate(self.joint_claims):
            where = f"joint_claims[{index}]"
            if joint.id in ids:
                raise StudyError(f'{where}.id = "{joint.id}": another claim has that id')
            for part in joint.all:
                if part not in known:
                    raise StudyError(f'{where}.all: no claim has the id "{part}"; {did_you_mean(part, known)}')
            ids.add(joint.id)
        for arm, figures in self.reported.items():
            check_arm(arm, arms, f"reported.{arm}")
            for measure in figures:
                words.check_measure(measure, f"reported.{arm}: key")

    def _check_tuning(self, words: "Vocabulary") -> None:
        if self.tuning is not None:
            words.check_measure(self.tuning.metric, "tuning.metric")
            words.check_direction(self.tuning.metric, self.tuning.direction, "tuning")
        if self.tuning_round is not None:
            check_round(self.evidence.metric)

    def _check_unpaired(self) -> None:
        """Check that a study of unpaired runs asks for nothing that only paired ones can answer."""
        if not self.evidence.unpaired:
            return
        seeds, asked = self.seed_range, self.evidence
        if seeds.min < seeds.max:
            fixed = f"write a fixed number, such as seeds = {seeds.max}"
            raise StudyError(f"evidence.paired = false: has one look; instead of a range of seeds, {fixed}")
        if self.noise.crossed:
            raise StudyError(
                "evidence.paired = false: a crossed design in [noise] is made of shared seeds; leave one out"
            )
        if asked.final is False:
            raise StudyError("evidence.paired = false: its one look spends all of alpha; leave out final = false")
        paired_only = {key: getattr(asked, key) for key in ("also", "against", "pairs", "best", "pooling")}
        found = [f"evidence.{key}" for key, value in paired_only.items() if value]
        for key in [*found, *(["[[claims]]"] if self.claims else [])]:
            raise StudyError(
                f"evidence.paired = false: {key} needs runs that are paired by seed; leave out one of the two"
            )

    def _check_further_questions(self, words: "Vocabulary", arms: int) -> None:
        evidence, known = self.evidence, {self.evidence.metric}
        for index, also in enumerate(evidence.also or ()):
            where = f"evidence.also[{index}]"
            words.check_measure(also.metric, f"{where}.metric")
            words.check_direction(also.metric, also.direction, where)
            _check_has_target(also.metric, evidence.target, "evidence")
            _check_size(also.metric, also.margin, f"{where}.margin", self.declared)
            if also.metric in known:
                raise StudyError(f'{where}.metric = "{also.metric}": is named twice in [evidence]')
            known.add(also.metric)
        if evidence.against is not None and min(self.noise.initial_weights or 1, self.noise.batch_orders or 1) > 1:
            raise StudyError(
                "evidence.against: seeds of a crossed design share initial weights and batch orders, so that their "
                "mean has no interval; leave [noise] out"
            )
        if evidence.against is not None and arms == 1 and self.seed_range.min < self.seed_range.max:
            raise StudyError("evidence.against: a study of one arm needs a fixed number, such as seeds = 12")
        least = {"also": (evidence.also, 2), "pairs": (evidence.pairs, 3), "best": (evidence.best, 2)}
        for key, (asked, number) in least.items():
            if asked and arms < number:
                raise StudyError(f"evidence.{key}: needs at least {number} arms; the study has {arms}")


class Vocabulary:
    """The metrics and measures that the trials of a study, with these settings of its arms, can have."""

    def __init__(self, arms: Sequence[Settings], declared: Mapping[str, Metric]) -> None:
        self._declared = declared
        self._known = all(arm.training.loop == BUILT_IN for arm in arms)
        self._metrics = tuple(dict.fromkeys(name for arm in arms for name in arm.recorded))
        self._epochs = min(arm.training.epochs for arm in arms)

    @classmethod
    def of(cls, study: "Study") -> Self:
        """The vocabulary of a study."""
        return cls([arm.settings for arm in study.arms], {name: study.metric(name) for name in study.metrics})

    def check_metric(self, name: str, settings: MetricSettings) -> None:
        """Raise a `StudyError` for a declared metric that no epoch records, or that has another unit or direction."""
        self._check(name, "metrics: key", (name,) if may_be_metric(name) else None, self._metrics)
        own, declared = own_unit(name), self._declared[name]
        if own and settings.unit and UNITS[settings.unit] != own:
            raise StudyError(
                f'metrics.{name}.unit = "{settings.unit}": fairtrial\'s own metric of that name has another; leave it '
                "out, or yield the number under another name"
            )
        if settings.direction not in {None, declared.direction}:
            where = f'metrics.{name}.direction = "{settings.direction}"'
            raise StudyError(f"{where}: {name} is better {declared.direction}; leave it out")

    def check_measure(self, name: str, where: str) -> None:
        """Raise a `StudyError` for a name that no measure of this study has."""
        try:
            found = find_measure(name)
        except UnknownNameError as error:  # of module:Name
            raise StudyError(f"{where} = {show(name)}: {error.hint}") from error
        known = list(measures_of(self._metrics)) if self._known else MEASURES.names()
        self._check(name, where, found.metrics if found else None, known)
        if found and found.epochs > self._epochs:
            raise StudyError(f"{where} = {show(name)}: needs {found.epochs} epochs; training.epochs = {self._epochs}")

    def check_target(self, target: Target | None, where: str) -> None:
        """Raise a `StudyError` for a target of a metric that no epoch of this study records."""
        if target is not None:
            name = target.metric
            self._check(name, f"{where}.metric", (name,) if may_be_metric(name) else None, self._metrics)
            self.check_direction(name, target.direction, where)
            _check_level((self._declared.get(name) or Metric.named(name)).unit, target.value, f"{where}.value")

    def check_direction(self, name: str, direction: Direction | None, where: str) -> None:
        """Check that the better direction is known, and doesn't contradict the metric's name or [metrics]."""
        known = better(name, self._declared)
        if known is None and direction is None:
            raise StudyError(f'{where}.direction: is missing; say whether {name} is better "higher" or "lower"')
        if known is not None and direction not in {None, known}:
            raise StudyError(f'{where}.direction = "{direction}": {name} is better {known}; leave it out')

    def _check(self, name: str, where: str, needed: Collection[str] | None, known: Collection[str]) -> None:
        """Check a name by the metrics that it needs (None: no such name), against the names that are known."""
        missing = [one for one in needed or () if self._known and one not in self._metrics]
        if any(one.endswith("_acc") for one in missing) and "test_r2" in self._metrics:
            advice = 'write "final_test_loss" or "final_test_r2"'
            raise StudyError(f"{where} = {show(name)}: the task is regression, which has no accuracy; {advice}")
        settings = list(dict.fromkeys(key for one in missing for key in settings_needed(one)))
        within = [own for one in missing if (own := one.removeprefix("eval1_")) != one and own in self._metrics]
        if within and not settings:
            raise StudyError(f"{where} = {show(name)}: {within[0]} is not evaluated within an epoch")
        if needed is None or (missing and not settings):
            raise StudyError(f"{where} = {show(name)}: {self._suggestion(name, known)}")
        if missing:
            raise StudyError(f"{where} = {show(name)}: is recorded only with {' and '.join(settings)}")

    def _suggestion(self, name: str, known: Collection[str]) -> str:
        """Suggest a name; of patterns, say what stands for what."""
        respelt = re.sub(r"^mean_last_(\d+)_", r"mean_last\1_", name)
        found = find_measure(respelt) if respelt != name else None
        if found and (not self._known or set(found.metrics) <= set(self._metrics)):
            return f"did you mean `{respelt}`?"
        hint = did_you_mean(name, known)
        if self._known or "NAME" not in hint:
            return hint
        link = " " if hint.endswith("?") else "; "
        return f"{hint}{link}NAME is a metric that the training loop yields, K a number of epochs"


def check_arm(name: str, known: Collection[str], where: str) -> None:
    """Raise a `StudyError` for a name that no arm has."""
    if name not in known:
        raise StudyError(f"{where}: no arm has that name; {did_you_mean(name, known)}")


def _check_size(measure: str, size: float | None, where: str, declared: Mapping[str, Metric]) -> None:
    """Check that a difference fits between the limits of the measure's unit; of fractions it may be meant as points."""
    found = find_measure(measure, declared=declared)
    if size is None or found is None or abs(size) < found.unit.limits[1]:
        return
    if found.unit != PERCENT:
        raise StudyError(f"{where} = {size:g}: must be below {found.unit.limits[1]:g}, the most that {measure} can be")
    raise StudyError(
        f"{where} = {size:g}: must be below 1: {measure} is a fraction; write {size / 100:g} for {size:g} "
        f"point{'' if abs(size) == 1 else 's'}"
    )


def _check_level(unit: Unit | None, value: object, where: str) -> None:
    """Check that a value which runs are to reach is one that this unit allows; a gap may be negative."""
    most = unit.limits[1] if unit else math.inf
    if not isinstance(value, int | float) or abs(value) <= most:
        return
    if most == 1.0 and abs(value) <= 100.0:
        raise StudyError(f"{where} = {show(value)}: accuracies are fractions; write {value / 100:g}")
    raise StudyError(f"{where} = {show(value)}: must be at most {most:g}")


def _check_floor(evidence: Evidence, declared: Mapping[str, Metric]) -> None:
    """Check that a floor is on the measure's worse side, and in its unit."""
    wrong, right = ("lost_above", "lost_below") if evidence.larger_is_better else ("lost_below", "lost_above")
    if (value := getattr(evidence, wrong)) is not None:
        better_way = "higher" if evidence.larger_is_better else "lower"
        raise StudyError(f"evidence.{wrong} = {show(value)}: {evidence.metric} is better {better_way}; write {right}")
    found, value = find_measure(evidence.metric, declared=declared), getattr(evidence, right)
    if value == "chance" and (found is None or found.unit != PERCENT):
        raise StudyError(f'evidence.lost_below = "chance": {evidence.metric} is no accuracy; write a number')
    _check_level(found.unit if found else None, value, f"evidence.{right}")


def _check_one_sided(evidence: Evidence) -> None:
    """Check that a study which asks whether arms are worse asks nothing else, and no more than even odds."""
    if not evidence.one_sided:
        return
    for key in ("margin", "also", "against", "pairs", "best"):
        if getattr(evidence, key):
            raise StudyError(f"evidence.not_worse_than: is the study's only question; leave out evidence.{key}")
    if evidence.alpha >= 0.5:
        raise StudyError(f"evidence.alpha = {evidence.alpha:g}: must be below 0.5 with evidence.not_worse_than")


def _check_has_target(measure: str, target: Target | None, where: str) -> None:
    found = find_measure(measure)
    if found and found.needs_target and target is None:
        raise StudyError(
            f'{where}.target: is missing; {measure} needs one, such as {{metric = "test_acc", value = 0.6}}'
        )
