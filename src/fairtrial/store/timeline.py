"""Joins what two stores have registered, as if all of it had been asked in one; see `fairtrial.history`.

Stages are registered anew in the order of their times. What a store registered about its own stages stays as it is:
which looks came before, and what had ended. Of a stage of the other store, the times of its trials tell whether it had
been looked at by then. So no look is lost, and which store is merged into which makes no difference.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TypeAlias

from sqlalchemy import Connection, delete, insert, update

from fairtrial.history import Registered
from fairtrial.question import Question, family_digest
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


#: In place of the number of a store.
_BOTH = 2


@dataclass
class _Asked:
    """A question that a study asked at some time, with the stages that stores registered then."""

    study: str
    question: Question
    at: datetime
    order: datetime  # that time, or a later one at which its store had registered an earlier stage
    stages: dict[int, Registered]  # by store: 0 and 1


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
        self._keys = [{stage.number: stage.question.key for _, stage in each} for each in stages]
        self._first_ended = {**ended[1], **ended[0]}
        for trial in ended[0].keys() & ended[1].keys():
            self._first_ended[trial] = min(ended[0][trial], ended[1][trial])
        self._looks: dict[tuple[str, str, int], datetime | None] = {}

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
        """What was asked, in order. Clocks may be wrong: in each store, the order of its stages stays."""
        found: dict[tuple[str, str, datetime, int], _Asked] = {}
        for store, stages in enumerate(self._stages):
            times, latest = Counter[tuple[str, str, datetime]](), datetime.min.replace(tzinfo=UTC)
            for study, stage in stages:
                same = study, stage.question.key, stage.at
                latest = max(latest, stage.at)
                asked = found.setdefault((*same, times[same]), _Asked(study, stage.question, stage.at, latest, {}))
                asked.stages[store], asked.order = stage, max(asked.order, latest)
                times[same] += 1
        return self._asked_again([*found.values()])

    def _asked_again(self, asked: list[_Asked]) -> list[_Asked]:
        """Add what was asked again when a look was complete that counted in its own store.

        A run asks again at its end, if another study was registered meanwhile; but that may be in the other store.
        """
        last = {one.question.key: one for one in sorted(asked, key=_order)}
        for one in last.values():
            seen = [at for store in (0, 1) if (at := self._counted_at(one.question, store)) is not None]
            if seen and min(seen) > one.order:
                asked.append(_Asked(one.study, one.question, min(seen), min(seen), {}))
        return sorted(asked, key=_order)

    def _counted_at(self, question: Question, store: int) -> datetime | None:
        """When a question's first look was complete in a store where it counts; None if it is not, or does not."""
        sharing = [(study, stage) for study, stage in self._stages[store] if stage.question.shares_arms(question)]
        own = current_stage([stage for _, stage in sharing], question)
        study = next((study for study, stage in sharing if stage is own), None)
        return None if study is None else self._looked_at(study, question, store)

    def _looked_at(self, study: str, question: Question, store: int = _BOTH) -> datetime | None:
        """When the first look of a question was complete, in a store or with the trials of both; None if it is not."""
        key = study, question.key, store
        if key not in self._looks:
            times = self._first_ended if store == _BOTH else self._ended[store]
            first = self._planned(study)[: question.looks[0] * len(question.arms)] if question.looks else ()
            complete = first and all(trial in times for trial in first)
            self._looks[key] = max(map(times.__getitem__, first)) if complete else None
        return self._looks[key]

    def _earlier(self, asked: _Asked, sharing: Stages) -> tuple[int, ...]:
        """The numbers of the stages before one that had been looked at by then."""
        last = {stage.question.key: (study, stage) for study, stage in sharing}  # the others were registered again
        last.pop(asked.question.key, None)
        known = {self._keys[store][number] for store, own in asked.stages.items() for number in own.earlier}
        return tuple(
            sorted(
                stage.number
                for key, (study, stage) in last.items()
                if key in known or self._was_seen(asked, study, stage.question)
            )
        )

    def _was_seen(self, asked: _Asked, study: str, question: Question) -> bool:
        """Whether the times of trials show that an earlier question had been looked at.

        Not so of a question that the asking store knew by then, and whose trials it had: what it registered counts.
        """

        def seen_by_then(store: int) -> bool:
            at = self._looked_at(study, question, store)
            return at is not None and at <= asked.at

        known = all(
            any(key == question.key and number < own.number for number, key in self._keys[store].items())
            for store, own in asked.stages.items()
        )
        return seen_by_then(_BOTH) and not (asked.stages and known and any(map(seen_by_then, asked.stages)))

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
    return asked.order, min((stage.number for stage in asked.stages.values()), default=float("inf"))
