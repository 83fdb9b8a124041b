"""Runs a study's tuning, round by round, and makes the study that compares the tuned arms.

A round is an ordinary study. Its arms are candidates, each an arm of the study with proposed values, and its trials are
in the store as all trials are. What a round proposes follows from the results of the rounds before it. So a tuning that
was interrupted is resumed by doing all of it again: a round whose trials have ended is only read.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fairtrial.errors import StudyError
from fairtrial.loading import find_tuned, made_of
from fairtrial.scheduler import plan
from fairtrial.spec import Settings, Study, better, digest
from fairtrial.spec.grids import identity
from fairtrial.spec.overrides import merge
from fairtrial.spec.tuning import Values, nested
from fairtrial.store.base import Store
from fairtrial.trial import Outcome, TrialResult, kind_of_condition
from fairtrial.tuning.proposals import OptunaMissingError, Proposals, proposals


def tune(study: Study, store: Store, run: Callable[[Study], int], say: Callable[[str], None]) -> tuple[Study, int]:
    """Tune each arm of a study, and return the study that compares them, and how many tuning trials were trained.

    Args:
        study: the study, whose arms have yet to be tuned.
        store: contains earlier results.
        run: trains the missing trials of a round, and returns their number.
        say: tells the user what was found.

    Raises:
        StudyError: no tuning trial of an arm has a value.
        FairtrialError: Optuna is missing.
    """
    if known := find_tuned(study, store.studies()):
        return known, 0
    tuner, trained = _Tuner(study), 0
    for one in tuner.rounds(store):
        if {*_outcomes(store, one)} & {None, Outcome.FAILED}:
            trained += run(one)
    found = tuner.found()
    for name, values in found.items():
        say(f"tuned {name}: {', '.join(f'{key} = {value}' for key, value in values.items())}")
    return tuner.tuned(found), trained


def tuning_trials_ended(study: Study, store: Store) -> int:
    """How many tuning trials of a study have ended, given the store of earlier results; 0 where Optuna is missing."""
    ended = 0
    try:
        for one in _Tuner(study).rounds(store):
            outcomes = _outcomes(store, one)
            ended += sum(outcome is not None for outcome in outcomes)
            if None in outcomes:
                break
    except OptunaMissingError:
        return 0
    return ended


@dataclass
class _Arm:
    """One arm's tuning so far."""

    proposals: Proposals
    asked: int = 0
    names: dict[str, str] = field(default_factory=dict)  # of candidates, by the digest of their values
    values: dict[str, Values] = field(default_factory=dict)  # by candidate
    results: dict[str, float | None] = field(default_factory=dict)  # by candidate; None for no value

    def candidates(self, arm: str, number: int) -> list[str]:
        """Ask for more values, and name them; values that were tried before keep their name and their result."""
        found = []
        for values in self.proposals.ask(number):
            self.asked += 1
            name = self.names.setdefault(digest(dict(values)), f"{arm}-{self.asked}")
            self.values.setdefault(name, values)
            found.append(name)
        return found


class _Tuner:
    """Proposes what to try of each arm of a study, and learns from the results."""

    def __init__(self, study: Study) -> None:
        assert study.tuning is not None
        self._study, self._tuning = study, study.tuning
        declared = {name: study.metric(name) for name in study.metrics}
        self._larger = (self._tuning.direction or better(self._tuning.metric, declared)) == "higher"
        tuned = [arm.name for arm in study.arms if arm.name not in study.twins]
        self._arms = {name: _Arm(proposals(self._tuning, name, larger_is_better=self._larger)) for name in tuned}
        self._budget = self._tuning.budget(study.reference)
        self._conditions: dict[str, set[str]] = {}  # of tuning trials: versions, processor, the user's code

    def rounds(self, store: Store) -> Iterator[Study]:
        """List the rounds. All trials of one must have ended in the store before the next one is asked for."""
        for number, size in enumerate(self._tuning.rounds(self._budget), start=1):
            asked = {name: arm.candidates(name, size) for name, arm in self._arms.items()}
            new = {
                candidate: name
                for name, candidates in asked.items()
                for candidate in candidates
                if candidate not in self._arms[name].results
            }
            if new:
                arms = self._changes(new)
                trained_as = self._trained_as(arms)
                trained = {candidate: name for candidate, name in new.items() if trained_as[candidate] == candidate}
                one = self._round(number, trained, arms)
                yield one
                self._learn(one, new, trained_as, store.results(one))
            for name, candidates in asked.items():
                arm = self._arms[name]
                arm.proposals.tell([arm.results[candidate] for candidate in candidates])

    def found(self) -> dict[str, Values]:
        """The best values of each arm: the first of equally good ones."""
        found = {}
        for name, arm in self._arms.items():
            valued = {candidate: value for candidate, value in arm.results.items() if value is not None}
            if not valued:
                raise StudyError(
                    f"tuning: none of the {len(arm.results)} tuning trials of {name} has a value of "
                    f"{self._tuning.metric}: they diverged or failed; change tuning.space, or see the failures of "
                    f"{self._study.name}-tuning-1"
                )
            best = (max if self._larger else min)(valued, key=valued.__getitem__)
            found[name] = arm.values[best]
        return {arm.name: found[self._study.twins.get(arm.name, arm.name)] for arm in self._study.arms}

    def tuned(self, found: Mapping[str, Values]) -> Study:
        """The study that compares the arms with the values that were found."""
        table = self._study.to_dict()
        lost = {name: sum(value is None for value in arm.results.values()) for name, arm in self._arms.items()}
        table["tuning"] |= {
            "of": self._study.hash,
            "found": {name: dict(values) for name, values in found.items()},
            "lost": {name: number for name, number in lost.items() if number},
            "mixed": sorted(name for name, values in self._conditions.items() if len(values) > 1),
        }
        table["arms"] = {name: merge(table["arms"][name], nested(values)) for name, values in found.items()}
        if not self._study.evidence.aa:
            for name, first in self._trained_as(table["arms"]).items():
                if name != first:
                    raise StudyError(
                        f"tuning: the best settings of {name} are the very ones of {first}, so there is nothing to "
                        "compare; leave one of the two arms out"
                    )
        return made_of(self._study, Study.from_dict(table), {arm.name: arm.name for arm in self._study.arms})

    def _changes(self, new: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """What candidates, each with its arm, change of the study: what the arm does, and their values."""
        arms = self._study.to_dict()["arms"]
        return {
            candidate: merge(arms[arm], nested(self._arms[arm].values[candidate])) for candidate, arm in new.items()
        }

    def _trained_as(self, arms: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Map each arm, given its changes, to the first one with the same settings: candidates of two arms may meet."""
        table = self._study.to_dict()
        own = {key: table[key] for key in Settings.model_fields if key in table}
        first: dict[str, str] = {}
        return {name: first.setdefault(identity(own, changes, f"arms.{name}"), name) for name, changes in arms.items()}

    def _round(self, number: int, new: Mapping[str, str], arms: Mapping[str, Mapping[str, Any]]) -> Study:
        """The study of one round, given its candidates, each with its arm, and their changes."""
        table, noise, seeds = self._study.to_dict(), self._tuning.noise, self._tuning.seeds.max
        kept = ("data", "model", "training", "optimizer", "schedule", "params", "metrics")
        evidence = {"metric": self._tuning.metric, "direction": self._tuning.direction}
        one = Study.from_dict(
            {key: table[key] for key in kept if key in table}
            | {
                "name": f"{self._study.name}-tuning-{number}",
                "reference": next(iter(new)),
                "seeds": list(noise.listed) if noise.listed else {"first": noise.first_seed or 0, "count": seeds},
                "arms": {candidate: {**arms[candidate], "label": candidate} for candidate in new},
                "evidence": {key: value for key, value in evidence.items() if value is not None},
                "tuning_round": number,
            }
        )
        return made_of(self._study, one, new)

    def _learn(
        self, one: Study, new: Mapping[str, str], trained_as: Mapping[str, str], results: Sequence[TrialResult]
    ) -> None:
        """Take the mean over seeds of each candidate; without a value at one of them it has none."""
        measure = one.measure(self._tuning.metric)
        values: dict[str, list[float | None]] = {candidate: [] for candidate in new}
        for result in results:
            for name, value in {**result.machine.conditions, **result.machine.code}.items():
                self._conditions.setdefault(name, set()).add(kind_of_condition(value))
            finished = result.outcome is Outcome.FINISHED
            values[result.arm].append(measure.of(result.epochs) if finished else None)
        for candidate, name in new.items():
            known = [value for value in values[trained_as[candidate]] if value is not None]
            complete = len(known) == one.seeds
            self._arms[name].results[candidate] = math.fsum(known) / len(known) if complete else None


def _outcomes(store: Store, study: Study) -> list[Outcome | None]:
    trials = plan(study)
    known = store.outcomes(trials)
    return [known.get(trial.hash) for trial in trials]
