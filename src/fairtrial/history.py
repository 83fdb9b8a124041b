"""What was asked of a study's trials before, and when: the stages that a store has registered.

A stage is one look at trials, or a plan of looks, by one study; each run of a study registers its own.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from fairtrial.sources import code_of
from fairtrial.spec import ALL_OTHERS, Evidence, Noise, Study, Target, content, digest
from fairtrial.spec.measures import find_measure
from fairtrial.spec.settings import Training

#: A measure with the target that it needs, as text: what two stages must share to be looks at the same differences.
MeasureKey: TypeAlias = str

#: Why verdicts are exploratory of a study that was not run, or not since another one passed over it.
NOT_COUNTED = "this study was never run, so its look is not counted; run it first"

#: Seeds of noise of a confirmation begin with a multiple of this.
FRESH_SEEDS = 1_000

#: Keys of [evidence] that change no standard: the measure is compared by its key, and `final` only spends alpha.
_NO_STANDARD = frozenset({"metric", "target", "final"})


@dataclass(frozen=True)
class Question:
    """What a study asks of its trials. Arms are digests of their settings, the reference first; names do not matter.

    Attributes:
        arms: the digests; arms with the same settings get a number.
        seeds: the least and the greatest number of seeds.
        evidence: the keys of [evidence] that are set.
        claims: the claims without ids and texts, and with digests for arms.
        measures: the measures of all of them.
        noise: the keys of [noise].
        code: of measures of the user's own, by their names: a digest of the code that they come from.
        tuning: whether its arms are candidates of a tuning round, which asks nothing of a comparison's.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, int]
    evidence: Mapping[str, Any]
    claims: tuple[Mapping[str, Any], ...]
    measures: tuple[MeasureKey, ...]
    noise: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)
    tuning: bool = False

    @classmethod
    def of(cls, study: Study) -> "Question":
        """The question of a study."""
        arms = arm_digests(study)
        claims = [claim.model_dump(mode="json", exclude={"id", "text"}, exclude_none=True) for claim in study.claims]
        own = study.evidence
        keys = [measure_key(own.metric, own.target)]
        keys += [measure_key(claim.metric, claim.target or own.target) for claim in study.claims]
        keys += [measure_key(also.metric, own.target) for also in own.also or ()]
        named = [own.metric, *(one.metric for one in study.claims), *(one.metric for one in own.also or ())]
        return cls(
            arms=tuple(arms.values()),
            seeds=(study.min_seeds, study.seeds),
            evidence=own.model_dump(mode="json", exclude_none=True),
            claims=tuple(
                {**one, **{key: arms.get(one[key], one[key]) for key in ("arm", "against")}} for one in claims
            ),
            measures=tuple(dict.fromkeys(keys)),
            noise=study.noise.model_dump(mode="json", exclude_none=True),
            tuning=study.tuning_round is not None,
            code={name: digest(code) for name in named if (code := code_of([name]))},
        )

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Question":
        """Read what `to_json` wrote."""
        return cls(**{**table, **{key: tuple(table[key]) for key in ("arms", "seeds", "claims", "measures")}})

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON can."""
        table = {key: value for key, value in asdict(self).items() if key != "tuning" or value}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in table.items()}

    @cached_property
    def key(self) -> str:
        """SHA-256 of all of it."""
        return digest(self.to_json())

    @property
    def looks(self) -> tuple[int, ...]:
        """The planned numbers of seeds."""
        return planned_looks(*self.seeds)

    @property
    def spends_all(self) -> bool:
        """Whether it leaves no error rate for a look after it: a range is a whole plan, and two keys say so."""
        return self.seeds[0] < self.seeds[1] or bool(self.evidence.get("final")) or self.evidence.get("paired") is False

    @cached_property
    def noise_seeds(self) -> frozenset[tuple[int, int]]:
        """The seeds of initial weights and of the order of batches that its trials have."""
        noise = Noise.model_validate(dict(self.noise))
        return frozenset(noise.of(seed) for seed in range(self.seeds[1]))

    def shares_arms(self, other: "Question") -> bool:
        """Whether another question compares the same arms over the same seeds: two of them, or one with a constant."""
        return self.noise == other.noise and self.asks_alike(other)

    def asks_alike(self, other: "Question") -> bool:
        """Whether it compares two of the same arms, or the same single arm with a constant, on whatever seeds."""
        if len(self.arms) == len(other.arms) == 1:
            return self.arms == other.arms and ("against" in self.evidence) == ("against" in other.evidence)
        return self.tuning is other.tuning and len({*self.arms} & {*other.arms}) > 1


@dataclass(frozen=True)
class Registered:
    """A question that was registered.

    Attributes:
        number: rises with each stage of a store.
        question: what was asked.
        at: when, in UTC.
        ended: how many trials of each arm had ended then, by the digest of its settings.
        earlier: numbers of the stages on some of the same arms that had been looked at by then. A stage whose first
            look was not complete is not among them, because nobody had seen a verdict.
    """

    number: int
    question: Question
    at: datetime
    ended: Mapping[str, int]
    earlier: tuple[int, ...] = ()


@dataclass(frozen=True)
class History:
    """A study's own stage, and those on some of the same arms that were registered before it, in order.

    Attributes:
        own: the study's stage.
        before: the earlier stages that compare some of the same arms over the same seeds.
        registered: False for a study that was not run, whose stage would be its own if it were run now.
        beside: earlier and later stages that share an arm and are no part of the same looks, because they compare it
            with other arms or on other seeds; those that were looked at by now.
        asked: the questions of all stages in the store that share an arm.
    """

    own: Registered
    before: tuple[Registered, ...] = ()
    registered: bool = True
    beside: tuple[Registered, ...] = ()
    asked: tuple[Question, ...] = ()

    def looked_at(self, measure: MeasureKey) -> tuple[Registered, ...]:
        """The earlier stages that looked at a measure."""
        return tuple(
            stage
            for stage in self.before
            if stage.number in self.own.earlier and stage.question.looks and measure in stage.question.measures
        )

    @property
    def extends(self) -> bool:
        """Whether this is a fixed number of seeds after a smaller one that was looked at."""
        seeds = [stage.question.seeds[1] for measure in self.own.question.measures for stage in self.looked_at(measure)]
        return not self.own.question.spends_all and any(number < self.own.question.seeds[1] for number in seeds)

    def set_afterwards(self, study: Study) -> tuple[str, ...]:
        """Say what a study sets that was first set once trials had ended: ``the margin 0.01 was set after 6 trials``.

        Trials of one arm alone show no difference; so only a comparison of which both arms had trials counts.
        """
        arms = dict(arm_digests(study))
        reference = arms.pop(study.reference)
        pairs: dict[str, tuple[str, ...]] = {arm: (reference, one) for arm, one in arms.items()}
        if not pairs and study.evidence.against is not None:
            pairs = {study.reference: (reference,)}
        if changed := self._changed_code(pairs):
            return changed
        key = measure_key(study.evidence.metric, study.evidence.target)
        measured = [stage for stage in (*self.before, self.own) if key in stage.question.measures]
        if not self.registered and any(self.own.ended.values()):
            return (NOT_COUNTED,)
        if said := _said(f"the measure {study.evidence.metric} was set", measured, pairs):
            return (said,)
        if said := self._asked_first(key, pairs):
            return (said,)
        evidence = self.own.question.evidence
        asked = [stage for stage in measured if _measure_of(stage.question.evidence) == key]
        return tuple(
            said
            for name in _standards(evidence, asked)
            if (same := [stage for stage in asked if stage.question.evidence.get(name) == evidence.get(name)])
            and (said := _said(_words(name, evidence), same, pairs))
        )

    def _changed_code(self, pairs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """Say which measures of the user's own had other code when they were set."""
        own, stages, found = self.own.question, (*self.before, self.own), []
        for name, code in own.code.items():
            known = [stage for stage in stages if name in stage.question.code]
            same = [stage for stage in known if stage.question.code[name] == code]
            if len(same) < len(known):
                found.append(_said(f"the code of measure {name} was changed", same, pairs))
        return tuple(said for said in found if said)

    def _asked_first(self, measure: MeasureKey, pairs: Mapping[str, tuple[str, ...]]) -> str:
        """Say that studies of another measure were looked at before, although all were registered before any trial."""
        seen = [
            stage
            for stage in self.before
            if stage.number in self.own.earlier
            and stage.question.looks
            and all(stage.number in later.earlier for later in self.before if later.number > stage.number)
        ]  # without those that were passed over
        first = {
            arm: next((one for one in seen if {*pair} <= {*one.question.arms}), None) for arm, pair in pairs.items()
        }
        others = {arm: one for arm, one in first.items() if one is not None and measure not in one.question.measures}
        if not others:
            return ""
        names = ", ".join(dict.fromkeys(str(one.question.evidence["metric"]) for one in others.values()))
        found = f"another measure was asked of these trials first ({names}); ask both in one study with also"
        return found + ("" if len(others) == len(pairs) else f" (for {', '.join(others)})")

    def repeated(self, measure: MeasureKey) -> tuple[str, ...]:
        """Say that the same was asked on other seeds before: a question that is repeated is answered by chance at last.

        One repetition is a test of its own: that of two arms on fresh seeds, as `stats.confirmation` makes it.
        """
        if any(self._other_seeds(measure, overlap=True)):
            return ("these seeds of noise overlap those of an earlier study",)
        sets = {one.noise_seeds for one in self._other_seeds(measure, overlap=False)}
        number = sum(not any(one < other for other in sets) for one in sets)  # a study that was extended has one set
        if not number or (number == 1 and self._confirms):
            return ()
        return (f"{number} other set{' of seeds was' if number == 1 else 's of seeds were'} asked the same before",)

    def alerts(self, reference: str, measure: MeasureKey) -> Iterator[str]:
        """Say what no error rate covers, because it was asked by other studies; a sentence each."""
        own = self.own.question
        if number := len(self._compared_elsewhere(measure)):
            yield (
                f"{number} other arm{' was' if number == 1 else 's were'} compared with these trials of {reference} in "
                "other studies of this store; no error rate covers all of them together."
            )
        if self._confirms and any(self._other_seeds(measure, overlap=False)) and not self.repeated(measure):
            yield (
                "Another set of seeds was asked the same before: the error rate is that of these seeds alone, "
                f"from {own.noise['first_seed']} on."
            )

    def _compared_elsewhere(self, measure: MeasureKey) -> set[str]:
        """The arms that other studies compare with the reference of this one, and this one does not."""
        own, found = self.own.question, set[str]()
        for stage in self.beside if len(own.arms) > 1 else ():
            arms = stage.question.arms
            if stage.question.noise == own.noise and own.arms[0] in arms and measure in stage.question.measures:
                found |= {*arms[1:]} if arms[0] == own.arms[0] else {arms[0]}
        return found - {*own.arms}

    def _other_seeds(self, measure: MeasureKey, *, overlap: bool) -> Iterator[Question]:
        own = self.own.question
        for stage in self.beside:
            one = stage.question
            asked = measure in one.measures and one.asks_alike(own) and one.noise != own.noise
            if asked and stage.number < self.own.number and bool(one.noise_seeds & own.noise_seeds) is overlap:
                yield one

    @property
    def _confirms(self) -> bool:
        """Whether this has the form of a confirmation."""
        own = self.own.question
        first = own.noise.get("first_seed")
        return len(own.arms) == 2 and first is not None and first % FRESH_SEEDS == 0

    def claimed_afterwards(self, study: Study) -> tuple[str, ...]:
        """Say, in the same way, which claims were made once trials had ended, or whether others were withdrawn."""
        arms, stages = arm_digests(study), (*self.before, self.own)
        everyone = {name: (arms[study.reference], arm) for name, arm in arms.items() if name != study.reference}
        if study.claims and (changed := self._changed_code(everyone)):
            return changed
        if not self.registered and any(self.own.ended.values()):
            return (NOT_COUNTED,) if study.claims else ()
        found = []
        for claim, own in zip(study.claims, self.own.question.claims, strict=True):
            others = [name for name in arms if name != claim.arm] if claim.against == ALL_OTHERS else [claim.against]
            pairs = {name: (arms[claim.arm], arms[name]) for name in others}
            made = [stage for stage in stages if own in stage.question.claims]
            found.append(_said(f"claim {claim.id} was made", made, pairs))
        same = [stage for stage in stages if _same(stage.question.claims, self.own.question.claims)]
        found += [_said("other claims were withdrawn", same, everyone)] if study.claims and not any(found) else []
        alike = [stage for stage in stages if stage.question.evidence["alpha"] == study.evidence.alpha]
        found += [_said(_words("alpha", self.own.question.evidence), alike, everyone)] if study.claims else []
        return tuple(said for said in found if said)


@lru_cache(maxsize=8)
def arm_digests(study: Study) -> Mapping[str, str]:
    """The digest of each arm's settings, the reference first; arms with the same settings get a number.

    Keys that change no training are left out, see `family_digest`, unless it is these in which arms differ.
    """
    order = sorted(study.arms, key=lambda arm: arm.name != study.reference)
    whole = {arm.name: content(arm.settings) for arm in order}
    exact, alike = ({name: make(one) for name, one in whole.items()} for make in (digest, family_digest))
    chosen = alike if len({*alike.values()}) == len({*exact.values()}) else exact
    digests, known = {}, Counter[str]()
    for name, own in chosen.items():
        digests[name], known[own] = f"{own}+{known[own]}" if known[own] else own, known[own] + 1
    return digests


def family_digest(settings: Mapping[str, Any]) -> str:
    """The digest of an arm's `content` without the keys that only add evaluations, and change no bit of a training."""
    training = {key: value for key, value in settings["training"].items() if key not in Training.evaluation_keys}
    return digest({**settings, "training": training})


def measure_key(metric: str, target: Target | None) -> MeasureKey:
    """Name a measure, and the target if it needs one."""
    found = find_measure(metric)
    needed = target.model_dump(mode="json") if found and found.needs_target and target else None
    return json.dumps([found.name if found else metric, needed])


def planned_looks(least: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds after which a study is evaluated: each from the least on. One seed shows no spread."""
    return tuple(range(max(least, 2), most + 1))


def _same(some: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    return all(one in others for one in some) and all(one in some for one in others)


def _measure_of(evidence: Mapping[str, Any]) -> MeasureKey:
    read = Evidence.model_validate({key: evidence[key] for key in ("metric", "target") if key in evidence})
    return measure_key(read.metric, read.target)


def _standards(evidence: Mapping[str, Any], stages: Iterable[Registered]) -> Iterator[str]:
    """The keys that this evidence or that of any stage sets; a margin that was dropped makes no verdict false."""
    keys = {key: None for one in (evidence, *(stage.question.evidence for stage in stages)) for key in one}
    return (key for key in keys if key not in _NO_STANDARD and (key not in _MARGINS or key in evidence))


_MARGINS = ("margin", "not_worse_than")
#: What keys of [evidence] are called; others by their names.
_CALLED = {
    **dict.fromkeys(("margin", "not_worse_than"), "the margin"),
    "aa": "the check of A/A arms",
    "paired": "the comparison of unpaired runs",
    "also": "the further measure",
    "against": "the comparison with the constant",
    "pairs": "the comparison of all pairs",
    "best": "the search for the best arm",
}


def _words(key: str, evidence: Mapping[str, Any]) -> str:
    """Say that a key was set, or removed: ``the margin 0.01 was set``."""
    called, value = _CALLED.get(key, key), evidence.get(key) if key != "paired" else evidence.get(key) is False
    if value is None or value is False:
        return f"{called} was removed"
    shown = "" if value is True or key == "pairs" else f" {_value(value)}"
    return f"{called}{shown} was set"


def _value(value: Any) -> str:
    """Write a value of [evidence]: ``0.01``, ``own``, ``final_test_acc and best_train_acc``."""
    if isinstance(value, list | tuple):
        return " and ".join(_value(one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(
            _value(one)
            if key in {"metric", "value"}
            else f"{key.replace('_', '-')} {_value(one)}".removesuffix(" True")
            for key, one in value.items()
        )
    return f"{value:g}" if isinstance(value, float) else str(value)


def _said(what: str, stages: Sequence[Registered], pairs: Mapping[str, tuple[str, ...]]) -> str:
    """Say that something was done after trials had ended, where it was; for some arms only, if so."""
    late: dict[str, Registered] = {}
    for arm, pair in pairs.items():
        first = next((stage for stage in stages if {*pair} <= {*stage.question.arms}), None)
        if first is not None and all(first.ended.get(one.partition("+")[0]) for one in pair):
            late[arm] = first
    if not late:
        return ""
    number = max(sum(stage.ended.values()) for stage in late.values())
    trials = f"{number} trial{'' if number == 1 else 's'} had ended"
    return f"{what} after {trials}" + ("" if len(late) == len(pairs) else f" (for {', '.join(late)})")
