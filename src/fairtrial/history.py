"""What was asked of a study's trials before, and when: the stages that a store has registered.

A stage is one look at trials, or a plan of looks, by one study; each run of a study registers its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairtrial.question import MeasureKey, Question, arm_digests, measure_asked, measure_key, same_claims
from fairtrial.spec import ALL_OTHERS, Study

#: Why verdicts are exploratory of a study that was not run, or not since another one passed over it.
NOT_COUNTED = "this study was never run, so its look is not counted; run it first"

#: Seeds of noise of a confirmation begin with a multiple of this.
FRESH_SEEDS = 1_000

#: Keys of [evidence] that change no standard: the measure is compared by its key, and `final` only spends alpha.
_NO_STANDARD = frozenset({"metric", "target", "final"})


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
        asked = [stage for stage in measured if measure_asked(stage.question.evidence) == key]
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
        if any(one.noise_seeds & self.own.question.noise_seeds for one in self._otherwise_tuned(measure)):
            return ("these arms were tuned to other values, and compared, before",)
        before = (*self._other_seeds(measure, overlap=False), *self._otherwise_tuned(measure))
        sets = {one.noise_seeds for one in before}
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
        before = (*self._other_seeds(measure, overlap=False), *self._otherwise_tuned(measure))
        if self._confirms and before and not self.repeated(measure):
            yield (
                "Another set of seeds was asked the same before: the error rate is that of these seeds alone, "
                f"from {own.noise['first_seed']} on."
            )

    def _compared_elsewhere(self, measure: MeasureKey) -> set[str]:
        """The arms that other studies compare with the reference of this one, and this one does not."""
        own, found = self.own.question, set[str]()
        for stage in self.beside if len(own.arms) > 1 else ():
            arms = stage.question.arms
            if own.same_noise(stage.question) and own.arms[0] in arms and measure in stage.question.measures:
                found |= {*arms[1:]} if arms[0] == own.arms[0] else {arms[0]}
        return found - {*own.arms}

    def _other_seeds(self, measure: MeasureKey, *, overlap: bool) -> Iterator[Question]:
        own = self.own.question
        for stage in self.beside:
            one = stage.question
            asked = measure in one.measures and one.asks_alike(own) and not one.same_noise(own)
            if asked and stage.number < self.own.number and bool(one.noise_seeds & own.noise_seeds) is overlap:
                yield one

    def _otherwise_tuned(self, measure: MeasureKey) -> Iterator[Question]:
        """What was asked before of the same arms, tuned to other values."""
        own, seen = self.own.question, {*self.own.earlier}
        for stage in (*(one for one in self.before if one.number in seen), *self.beside):
            earlier = stage.number < self.own.number and measure in stage.question.measures
            if earlier and own.retunes(stage.question):
                yield stage.question

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
        same = [stage for stage in stages if same_claims(stage.question.claims, self.own.question.claims)]
        found += [_said("other claims were withdrawn", same, everyone)] if study.claims and not any(found) else []
        alike = [stage for stage in stages if stage.question.evidence["alpha"] == study.evidence.alpha]
        found += [_said(_words("alpha", self.own.question.evidence), alike, everyone)] if study.claims else []
        return tuple(said for said in found if said)


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
