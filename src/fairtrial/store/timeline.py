"""Joins what two stores have registered, as if all of it had been asked in one; see `fairtrial.history`.

Stages are registered anew in the order of their times. What a store registered about its own stages stays as it is:
which looks came before, and what had ended. Of a stage of the other store, the times of its trials tell whether it had
been looked at by then. So no look is lost, and which store is merged into which makes no difference.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import TypeAlias

from sqlalchemy import Connection, delete, insert, update

from fairtrial.history import Question, Registered, family_digest
from fairtrial.store import queries, schema
from fairtrial.store.stages import current_stage, stored_stages, to_row

#: Stages with the studies that asked, in order.
Stages: TypeAlias = Sequence[tuple[str, Registered]]
#: When trials ended, by hash.
Times: TypeAlias = Mapping[str, datetime]


def merge(connection: Connection, theirs: Stages, ours_ended: Times, theirs_ended: Times) -> None:
    """Add the stages of another store, once its studies and trials have been added.

    Args:
        connection: a transaction that writes.
        theirs: the other store's stages.
        ours_ended: when trials ended, of those that this store had before.
        theirs_ended: the same of the other store's.
    """
    ours = stored_stages(connection)
    if not theirs:
        return
    planned = cache(lambda study: tuple(queries.planned(connection, study)))
    digests = _digests(connection, [*{**ours_ended, **theirs_ended}])
    joined = Timeline((ours, theirs), (ours_ended, theirs_ended), planned, digests).joined()
    if _unchanged(ours, joined):
        return
    connection.execute(delete(schema.stages))
    rows = [schema.with_checksum(schema.stages, to_row(study, stage)) for study, stage in joined]
    connection.execute(insert(schema.stages), rows)
    connection.execute(update(schema.schema_version).values(stages=len(rows)))
    if connection.dialect.name == "postgresql":  # whose next number does not follow from the table
        connection.exec_driver_sql(f"SELECT setval(pg_get_serial_sequence('stages', 'number'), {len(rows)})")


def _digests(connection: Connection, trials: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The digest of each trial's settings, and that of its family."""
    families: dict[str, str] = {}
    found: dict[str, tuple[str, str]] = {}
    for chunk in queries.chunks(trials):
        rows = queries.trial_rows(connection, chunk)
        for trial, settings in queries.settings(connection, rows):
            exact = rows[trial].settings_digest
            found[trial] = exact, families.get(exact) or families.setdefault(exact, family_digest(settings))
    return found


def _unchanged(ours: Stages, joined: Stages) -> bool:
    if len(ours) != len(joined):
        return False
    numbers = {old.number: new.number for (_, old), (_, new) in zip(ours, joined, strict=True)}
    return all(
        (study, old.question.key, old.at, dict(old.ended), sorted(numbers[one] for one in old.earlier))
        == (same, new.question.key, new.at, dict(new.ended), list(new.earlier))
        for (study, old), (same, new) in zip(ours, joined, strict=True)
    )


@dataclass(frozen=True)
class _Asked:
    """A question that a study asked at some time, with the stages that stores registered then."""

    study: str
    question: Question
    at: datetime
    stages: Mapping[int, Registered] = field(default_factory=dict)  # by store: 0 and 1


class Timeline:
    """Joins the stages of two stores.

    Args:
        stages: those of each.
        ended: when trials had ended in each.
        planned: gives the hashes of a study's trials.
        digests: of the settings of each trial that has ended in one of them, and of their family.
    """

    def __init__(
        self,
        stages: tuple[Stages, Stages],
        ended: tuple[Times, Times],
        planned: Callable[[str], Sequence[str]],
        digests: Mapping[str, tuple[str, str]],
    ) -> None:
        self._stages = stages
        self._ended = ended
        self._planned = planned
        self._digests = digests
        self._looks: dict[tuple[str, str], datetime | None] = {}
        self._keys = [{stage.number: stage.question.key for _, stage in each} for each in stages]
        self._first_ended = {**ended[1], **ended[0]}
        for trial in ended[0].keys() & ended[1].keys():
            self._first_ended[trial] = min(ended[0][trial], ended[1][trial])

    def joined(self) -> list[tuple[str, Registered]]:
        """Register all of them anew, in order."""
        kept: list[tuple[str, Registered]] = []
        for asked in self._all_asked():
            sharing = [(study, one) for study, one in kept if one.question.shares_arms(asked.question)]
            if current_stage([one for _, one in sharing], asked.question) is None:
                earlier, ended = self._earlier(asked, sharing), self._ended_by(asked, sharing)
                stage = Registered(len(kept) + 1, asked.question, asked.at, ended, earlier)
                kept.append((asked.study, stage))
        return kept

    def _all_asked(self) -> list[_Asked]:
        """What was asked, in order; at last what a run that was passed over would have asked again at its end."""
        found: dict[tuple[str, str, datetime, int], dict[int, Registered]] = {}
        for store, stages in enumerate(self._stages):
            times = Counter[tuple[str, str, datetime]]()
            for study, stage in stages:
                same = study, stage.question.key, stage.at
                found.setdefault((*same, times[same]), {})[store] = stage
                times[same] += 1
        asked = [
            _Asked(study, next(iter(stages.values())).question, at, stages)
            for (study, _, at, _), stages in found.items()
        ]
        last = {one.question.key: one for one in sorted(asked, key=lambda one: one.at)}
        for one in last.values():
            seen = self._looked_at(one.study, one.question)
            if seen is not None and seen > one.at:
                asked.append(_Asked(one.study, one.question, seen))
        return sorted(asked, key=_order)

    def _looked_at(self, study: str, question: Question) -> datetime | None:
        """When the first look of a question was complete; None if it is not."""
        if (study, question.key) not in self._looks:
            first = self._planned(study)[: question.looks[0] * len(question.arms)] if question.looks else ()
            complete = first and all(trial in self._first_ended for trial in first)
            self._looks[study, question.key] = max(map(self._first_ended.__getitem__, first)) if complete else None
        return self._looks[study, question.key]

    def _earlier(self, asked: _Asked, sharing: Stages) -> tuple[int, ...]:
        """The numbers of the stages before one that had been looked at by then."""
        last = {stage.question.key: (study, stage) for study, stage in sharing}  # the others were registered again
        last.pop(asked.question.key, None)
        known = {self._keys[store][number] for store, own in asked.stages.items() for number in own.earlier}
        others = {key for store, keys in enumerate(self._keys) if store not in asked.stages for key in keys.values()}
        return tuple(
            sorted(
                stage.number
                for key, (study, stage) in last.items()
                if key in known
                or (key in others and (seen := self._looked_at(study, stage.question)) is not None and seen <= asked.at)
            )
        )

    def _ended_by(self, asked: _Asked, sharing: Stages) -> dict[str, int]:
        """How many trials of each arm had ended when something was asked."""
        known: dict[str, int] = {}
        for own in asked.stages.values():
            known = {arm: max(known.get(arm, 0), own.ended.get(arm, 0)) for arm in {**known, **own.ended}}
        scope = {trial for study in (asked.study, *(study for study, _ in sharing)) for trial in self._planned(study)}
        elsewhere = (times for store, times in enumerate(self._ended) if store not in asked.stages)
        if not any(times[trial] <= asked.at for times in elsewhere for trial in scope & times.keys()):
            return known
        arms = {arm.partition("+")[0] for arm in asked.question.arms}
        counts = Counter(
            next((one for one in self._digests[trial] if one in arms), "")
            for trial in scope & self._first_ended.keys()
            if self._first_ended[trial] <= asked.at
        )
        del counts[""]
        return {arm: max(known.get(arm, 0), counts[arm]) for arm in {**known, **counts}}


def _order(asked: _Asked) -> tuple[datetime, float]:
    """By time; what one store registered at the same time, by its numbers."""
    return asked.at, min((stage.number for stage in asked.stages.values()), default=float("inf"))
