"""What a study asks of its trials, in a form that two studies can be compared by."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from fairtrial.sources import code_of
from fairtrial.spec import Evidence, Noise, Study, Target, content, digest
from fairtrial.spec.measures import find_measure
from fairtrial.spec.settings import Training

#: A measure with the target that it needs, as text: what two stages must share to be looks at the same differences.
MeasureKey: TypeAlias = str


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
        untuned: of a study whose arms were tuned, the digests of the arms before that, in the order of the arms.
    """

    arms: tuple[str, ...]
    seeds: tuple[int, int]
    evidence: Mapping[str, Any]
    claims: tuple[Mapping[str, Any], ...]
    measures: tuple[MeasureKey, ...]
    noise: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)
    tuning: bool = False
    untuned: tuple[str, ...] = ()

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
            untuned=tuple(family_digest(content(study.before_tuning(arm))) for arm in arms) if study.tuned else (),
            code={name: digest(code) for name in named if (code := code_of([name]))},
        )

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "Question":
        """Read what `to_json` wrote."""
        lists = ("arms", "seeds", "claims", "measures", "untuned")
        return cls(**{**table, **{key: tuple(table[key]) for key in lists if key in table}})

    def to_json(self) -> dict[str, Any]:
        """Write it as JSON can."""
        table = {key: value for key, value in asdict(self).items() if key not in {"tuning", "untuned"} or value}
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
        return self.same_noise(other) and self.asks_alike(other)

    def same_noise(self, other: "Question") -> bool:
        """Whether one has the seeds of noise of the other, or begins with them, as a list that got more at its end."""
        if self.noise == other.noise:
            return True
        if not ("listed" in self.noise or "listed" in other.noise):
            return False
        own, its = (Noise.model_validate(dict(one.noise)) for one in (self, other))
        both = min(self.seeds[1], other.seeds[1])
        return [own.of(seed) for seed in range(both)] == [its.of(seed) for seed in range(both)]

    def retunes(self, other: "Question") -> bool:
        """Whether it compares two of the same arms, of which one was tuned to other values."""
        if len({*self.untuned} & {*other.untuned}) < 2:
            return False
        known = dict(zip(other.untuned, other.arms, strict=True))
        return any(known.get(one, arm) != arm for one, arm in zip(self.untuned, self.arms, strict=True))

    def asks_alike(self, other: "Question") -> bool:
        """Whether it compares two of the same arms, or the same single arm with a constant, on whatever seeds."""
        if len(self.arms) == len(other.arms) == 1:
            return self.arms == other.arms and ("against" in self.evidence) == ("against" in other.evidence)
        return self.tuning is other.tuning and len({*self.arms} & {*other.arms}) > 1


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


def same_claims(some: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two studies make the same claims, in any order."""
    return all(one in others for one in some) and all(one in some for one in others)


def measure_asked(evidence: Mapping[str, Any]) -> MeasureKey:
    """The key of the measure that a question's [evidence] asks for."""
    read = Evidence.model_validate({key: evidence[key] for key in ("metric", "target") if key in evidence})
    return measure_key(read.metric, read.target)


def planned_looks(least: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds after which a study is evaluated: each from the least on. One seed shows no spread."""
    return tuple(range(max(least, 2), most + 1))
