"""The study: arms under comparison, one of them the reference, over the same seeds."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import BaseModel

from fairtrial import progress
from fairtrial.errors import StudyError
from fairtrial.registry import did_you_mean, import_name
from fairtrial.spec.evidence import Claim, Evidence, JointClaim, MetricSettings, Noise, both_sides
from fairtrial.spec.grids import expand
from fairtrial.spec.hashing import FORMAT, content, differing, digest
from fairtrial.spec.imported import Imported
from fairtrial.spec.labels import take_labels
from fairtrial.spec.limits import MOST_TRIALS, check_table
from fairtrial.spec.measures import Measure, find_measure
from fairtrial.spec.messages import show, validate
from fairtrial.spec.metrics import Metric
from fairtrial.spec.overrides import Table, flatten, merge, parse_toml
from fairtrial.spec.pinned import pinned
from fairtrial.spec.sections import Section
from fairtrial.spec.settings import Settings
from fairtrial.spec.tuning import Tuning, check_tuning, check_tuning_seeds
from fairtrial.spec.validation import StudyFile, check_arm

#: An arm's name has no dot, so that a dotted key can name its settings.
ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Origin:
    """Where a study comes from: the file's full path or the name under which it ships, overrides, the file's folder."""

    source: str | None = None
    overrides: tuple[str, ...] = ()
    folder: Path | None = None


class Arm(Section):
    """One configuration under comparison: dotted keys in which it differs from the study, and its full settings.

    The label is what reports call it; empty for its name.
    """

    name: str
    changes: tuple[str, ...]
    settings: Settings
    label: str = ""


class Study(Section):
    """One controlled comparison: frozen, with a content hash.

    The keyword arguments are the keys of a study file, checked as a file is. Sections may be tables or objects. A
    ``grid`` is written out as arms; see `fairtrial.spec.grids`.

    Raises:
        StudyError: naming the key, where it is and what is allowed.

    Attributes:
        name: what the store and the tables call it.
        reference: name of the arm that the others are compared with.
        seeds: number of replicates, at most, numbered from 0; ``noise`` has the seeds of each. The keyword also takes a
            range, such as ``{"first": 100, "count": 5}``, or a list of seeds.
        min_seeds: number of seeds that every arm is trained with. If it is below ``seeds`` the study is sequential: an
            arm whose verdict is settled gets no more.
        settings: what all arms share, unless an arm says otherwise.
        arms: the configurations under comparison, in the order of the file.
        metrics: what the study declares of metrics that a user's training loop records; see `measure`.
        evidence: what arms are compared on, and by what standard.
        claims: statements that the study tests.
        joint_claims: statements that hold if several of those hold.
        reported: what a paper reports, by arm and measure; see `figure`.
        noise: which sources of noise vary with the seed.
        imported: where its runs come from, if they were made elsewhere.
        tuning: how each arm is tuned before arms are compared; see `untuned`.
        tuning_round: of a study whose arms are candidates of such a tuning, the round's number.

    Example:
        >>> arms = {"default": {}, "low": {"optimizer": {"betas": [0.9, 0.95]}}}
        >>> study = Study(name="beta2", reference="default", seeds=3, arms=arms)
        >>> study.arm("low").settings.optimizer.betas
        (0.9, 0.95)
    """

    name: str
    reference: str
    seeds: int
    min_seeds: int
    settings: Settings
    arms: tuple[Arm, ...]
    metrics: Mapping[str, MetricSettings] = {}
    evidence: Evidence = Evidence()
    claims: tuple[Claim, ...] = ()
    joint_claims: tuple[JointClaim, ...] = ()
    reported: Mapping[str, Mapping[str, float]] = {}
    noise: Noise = Noise()
    imported: Imported | None = None
    tuning: Tuning | None = None
    tuning_round: int | None = None

    def __init__(self, **table: Any) -> None:
        check_table(table)
        plain = expand(pinned(_as_tables(table)))
        file = validate(StudyFile, plain)
        own = {key: plain[key] for key in Settings.model_fields if key in plain}
        labels, tables = take_labels(_check_tables(file.arms))
        arms = tuple(
            Arm(
                name=name,
                changes=tuple(key for key, value in flatten(merge({}, changes)) if not isinstance(value, Mapping)),
                settings=validate(Settings, merge(own, changes, where=f"arms.{name}."), f"arms.{name}"),
                label=labels.get(name, ""),
            )
            for name, changes in progress.steps(tables.items(), "arms")
        )
        _check_arms(file.reference, arms, aa=bool(file.evidence.aa))
        _check_trials(len(arms), file.seed_range.max)
        file.check_questions({arm.name: arm.settings for arm in arms})
        file, seeds = file.with_directions(), file.seed_range
        file = file.model_copy(update={"noise": seeds.noise(file.noise)})
        if file.tuning is not None:
            written = {name: merge(own, changes) for name, changes in tables.items()}
            check_tuning(file.tuning, tables, written, {arm.name: arm.settings for arm in arms})
            check_tuning_seeds(file.tuning, file.noise, seeds.max)
        questions = ("metrics", "evidence", "claims", "joint_claims", "reported", "noise", "imported")
        fields = {key: getattr(file, key) for key in ("name", "reference", "tuning", "tuning_round", *questions)}
        fields |= {"settings": validate(Settings, own), "arms": arms, "min_seeds": seeds.min, "seeds": seeds.max}
        super().__init__(**fields)

    @classmethod
    def from_dict(cls, table: Table) -> Self:
        """Build a study from nested tables, as a TOML file has them; errors as the constructor's."""
        return cls(**_check_keys(table))

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Build a study from the text of a TOML file; errors as `from_dict`'s, and those of TOML itself."""
        return cls.from_dict(parse_toml(text))

    def to_dict(self) -> dict[str, Any]:
        """Write the study as nested tables that `from_dict` reads back to an equal study."""
        # A crossed design has no seeds of its own: they follow from [noise], also where that is overridden later.
        listed = self.noise.listed
        seeds = {} if self.noise.crossed else {"seeds": self._seeds if listed is None else list(listed)}
        arms = {
            arm.name: ({"label": arm.label} if arm.label else {}) | _pick(arm.settings, arm.changes)
            for arm in self.arms
        }
        questions = {key: value for key, value in self._questions.items() if value}
        if listed is not None:
            del questions["noise"]
        head = {"name": self.name, "reference": self.reference, **seeds}
        return {**head, **_plain(self.settings), "arms": arms, **questions}

    def to_toml(self) -> str:
        """Write the study as TOML, with every default written out."""
        return tomli_w.dumps(self.to_dict())

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hexadecimal, of everything in the study, with every arm fully resolved.

        Evidence and claims are a part of it: a margin that is changed after the data were seen makes another study,
        though its trials are the same.
        """
        arms = {arm.name: content(arm.settings) for arm in self.arms}
        head = {"format": FORMAT, "name": self.name, "reference": self.reference, "seeds": self._seeds}
        return digest({**head, "arms": arms, **self._questions})

    def __hash__(self) -> int:
        return hash(self.hash)

    def _repr_mimebundle_(self, **_include_exclude: object) -> dict[str, str]:
        """Show a notebook the arms; what writes them is above this in the layers."""
        return import_name("fairtrial.report.studies:study_bundle")(self)  # type: ignore[no-any-return]

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
        """The study's name with the start of its hash: ``paper@1f2e3d4c``."""
        return f"{self.name}@{self.hash[:8]}"

    def arm(self, name: str) -> Arm:
        """Look up an arm by its name.

        Raises:
            StudyError: no arm has that name.
        """
        if name not in self._by_name:
            raise StudyError(f"{self.name} has no arm `{name}`: {did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    @cached_property
    def _by_name(self) -> Mapping[str, Arm]:
        return {arm.name: arm for arm in self.arms}

    @cached_property
    def twins(self) -> Mapping[str, str]:
        """The A/A arms, each with the arm whose settings it has: the reference, or the first in the study's order.

        They are trained with other seeds of noise than all other arms, so nothing but noise tells the two apart.
        """
        order = sorted(self.arms, key=lambda arm: arm.name != self.reference)
        first: dict[str, str] = {}
        twins = {arm.name: first.setdefault(digest(content(arm.settings)), arm.name) for arm in order}
        return {arm: other for arm, other in twins.items() if arm != other}

    def differing_keys(self, arm: str, other: str) -> tuple[str, ...]:
        """Name the keys in which the settings of two arms differ.

        Example:
            >>> study.differing_keys("baseline", "low_beta2")
            ('params.arm', 'params.mean')
        """
        own, theirs = (content(self.arm(name).settings) for name in (arm, other))
        return differing(own, theirs)

    def compares_code(self, arm: str, other: str) -> bool:
        """Whether two arms are the same one under two versions of the code; see `Training.code`."""
        return self.arm(arm).settings.training.code != self.arm(other).settings.training.code

    @property
    def untuned(self) -> bool:
        """Whether its arms have yet to be tuned: only then is it known which trials compare them."""
        return self.tuning is not None and self.tuning.found is None

    @property
    def tuned(self) -> bool:
        """Whether its arms have the settings that tuning found."""
        return self.tuning is not None and self.tuning.found is not None

    def before_tuning(self, name: str) -> Settings:
        """The settings of an arm as they were before it was tuned."""
        arm, found = self.arm(name), (self.tuning and self.tuning.found) or {}
        own = _pick(arm.settings, [key for key in arm.changes if key not in found.get(name, {})])
        return validate(Settings, merge(_plain(self.settings), own), f"arms.{name}")

    @property
    def sequential(self) -> bool:
        """Whether the number of seeds depends on their results."""
        return self.min_seeds < self.seeds

    @property
    def question_alpha(self) -> float:
        """The part of alpha that each question of [evidence] gets.

        The arms against the reference is one question, and every further one has an equal part. So with probability
        1 - alpha no verdict of the study is wrong, whichever question it answers.
        """
        return self.evidence.alpha / max((len(self.arms) > 1) + self.evidence.further_questions, 1)

    @property
    def interval_alpha(self) -> float:
        """The probability that some interval of the main question misses the true difference, on either side."""
        if not self.evidence.one_sided:
            return self.question_alpha
        return both_sides(self.question_alpha, len(self.arms) - 1)

    def measure(self, name: str) -> Measure:
        """Look up a measure by its name in studies, with the unit and the better direction that this study declares.

        Raises:
            ValueError: there is no such measure.
            StudyError: a ``module:Name`` can't be imported or is no measure.

        Example:
            >>> study = Study(name="s", reference="a", arms={"a": {}}, metrics={"f1": {"unit": "fraction"}},
            ...     training={"loop": "mine:train"}, evidence={"metric": "final_f1", "direction": "higher"})
            >>> study.measure("final_f1").unit.amount(0.015), study.measure("final_f1").direction
            ('1.50 points', 'higher')
        """
        direction = self.evidence.directions.get(name)
        declared = {metric: self.metric(metric) for metric in self.metrics}
        found = find_measure(name, direction, declared)
        if found is None:
            raise ValueError(f"there is no measure {name}")
        return found

    def metric(self, name: str) -> Metric:
        """Look up a metric of the epochs, as the study declares it or as its name implies."""
        return self.metrics.get(name, MetricSettings()).of(name)

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
    def _questions(self) -> dict[str, Any]:
        """Evidence, claims and the like, as TOML can write them."""
        metrics = {name: metric.model_dump(mode="json", exclude_defaults=True) for name, metric in self.metrics.items()}
        joint = [claim.model_dump(mode="json") for claim in self.joint_claims]
        return {
            "noise": self.noise.model_dump(mode="json", exclude_none=True),
            **({"metrics": metrics} if metrics else {}),
            "evidence": self.evidence.model_dump(mode="json", exclude_none=True),
            "reported": {arm: dict(figures) for arm, figures in self.reported.items()},
            "claims": [claim.model_dump(mode="json", exclude_none=True) for claim in self.claims],
            **({"joint_claims": joint} if joint else {}),
            **({"imported": self.imported.model_dump(mode="json")} if self.imported else {}),
            **({"tuning": self.tuning.model_dump(mode="json", exclude_none=True)} if self.tuning else {}),
            **({"tuning_round": self.tuning_round} if self.tuning_round else {}),
        }


def _name(measure: str) -> str:
    """The name of a measure that a study may call by an alias."""
    found = find_measure(measure)
    return found.name if found else measure


def _check_keys(table: Any) -> Table:
    if not isinstance(table, Mapping) or not all(isinstance(key, str) for key in table):
        raise StudyError("a study must be a table whose keys are text, as in a study file")
    return table


def _as_tables(value: Any) -> Any:
    """Write sections that are given as objects as the tables that they were read from."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: _as_tables(item) for key, item in value.items()}
    return [_as_tables(item) for item in value] if isinstance(value, list | tuple) else value


def _check_tables(arms: object) -> Mapping[str, Table]:
    if not isinstance(arms, Mapping) or not arms:
        raise StudyError("arms: must be a table with at least one arm, such as [arms.baseline]")
    for name, changes in arms.items():
        if not ARM_NAME.fullmatch(name):
            raise StudyError(f"arms.{show(name)}: an arm's name is made of letters, digits, `_` and `-`")
        if not isinstance(changes, Mapping):
            raise StudyError(f"arms.{name} = {show(changes)}: must be a table of settings")
    return arms


def _check_arms(reference: str, arms: Sequence[Arm], *, aa: bool) -> None:
    check_arm(reference, [arm.name for arm in arms], f'reference = "{reference}"')
    seen: dict[str, str] = {}
    for arm in arms:
        same = seen.setdefault(digest(content(arm.settings)), arm.name)
        if same != arm.name and not aa:
            raise StudyError(
                f"arms.{arm.name}: has the same settings as arms.{same}; arms must differ, unless evidence.aa = true"
            )
    if aa and len(seen) == len(arms):
        raise StudyError("evidence.aa = true: no two arms have the same settings; add one, such as [arms.again]")


def _check_trials(arms: int, seeds: int) -> None:
    if arms * seeds > MOST_TRIALS:
        raise StudyError(
            f"seeds: {seeds:,} of {arms:,} arm{'s' * (arms > 1)} are {arms * seeds:,} trials; a study has at most "
            f"{MOST_TRIALS:,}"
        )


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
