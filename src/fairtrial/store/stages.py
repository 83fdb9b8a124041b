"""Registers what studies ask, and reads what was asked before; see `fairtrial.history`."""

import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from fairtrial.history import History, Registered
from fairtrial.question import Question, arm_digests, family_digest
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store import queries, schema
from fairtrial.store.checksums import EMPTY, MISMATCH, MISSING, DamageError


def register(connection: Connection, study: Study, at: datetime) -> None:
    """Register a study's stage, unless it is there already.

    A stage that was passed over, because another one was registered before anybody had seen its first look, is
    registered again, after that one.
    """
    question = Question.of(study)
    stages = [one for one in _sharing_an_arm(connection, question) if one.question.shares_arms(question)]
    if current_stage(stages, question) is None:
        row = to_row(study.hash, _next(connection, stages, study, at))
        del row["number"]  # the database chooses it
        added = connection.execute(insert(schema.stages), {**row, "checksum": EMPTY})
        number = added.inserted_primary_key
        assert number is not None
        row["number"] = number[0]  # the checksum covers it
        own = update(schema.stages).where(schema.stages.c.number == row["number"])
        connection.execute(own.values(checksum=schema.with_checksum(schema.stages, row)["checksum"]))
        connection.execute(update(schema.schema_version).values(stages=schema.schema_version.c.stages + 1))


def to_row(study: str, stage: Registered) -> dict[str, Any]:
    """The row of a stage, but for its checksum."""
    return {
        "number": stage.number,
        "study": study,
        "question": schema.to_json(stage.question.to_json()),
        "registered_at": stage.at,
        "ended": schema.to_json(dict(stage.ended)),
        "earlier": schema.to_json(list(stage.earlier)),
    }


def history(connection: Connection, study: Study, now: datetime) -> History:
    """Read a study's history; of one that was never run, as if it were run now."""
    question = Question.of(study)
    related = _sharing_an_arm(connection, question)
    stages = [stage for stage in related if stage.question.shares_arms(question)]
    current = current_stage(stages, question)
    own = current or _next(connection, stages, study, now)
    beside = [stage for stage in related if stage not in stages and _was_looked_at(connection, stage)]
    return History(
        own,
        tuple(stage for stage in stages if stage.number < own.number),
        registered=current is not None,
        beside=tuple(beside),
        asked=tuple(stage.question for stage in related),
    )


def _sharing_an_arm(connection: Connection, question: Question) -> list[Registered]:
    """The stages on one or more of the same arms, as they are or before they were tuned, in order."""
    own = {*question.arms, *question.untuned}
    return [stage for stage in all_stages(connection) if own & {*stage.question.arms, *stage.question.untuned}]


def all_stages(connection: Connection) -> list[Registered]:
    """All stages, in order."""
    return [stage for _, stage in stored_stages(connection)]


def stored_stages(connection: Connection) -> list[tuple[str, Registered]]:
    """All stages, in order, each with the hash of the study that asked."""
    rows = connection.execute(select(schema.stages).order_by(schema.stages.c.number)).all()
    for row in rows:
        if not schema.matches(row):
            raise DamageError(f"stage {row.number}, what a study asks,", MISMATCH)
    queries.check_count(connection, "stages", [row.number for row in rows])
    return [
        (
            row.study,
            Registered(
                row.number,
                Question.from_json(json.loads(row.question)),
                row.registered_at,
                json.loads(row.ended),
                tuple(json.loads(row.earlier)),
            ),
        )
        for row in rows
    ]


def current_stage(stages: Sequence[Registered], question: Question) -> Registered | None:
    """The question's own stage, if there is one that was not passed over."""
    own = next((stage for stage in reversed(stages) if stage.question.key == question.key), None)
    passed_over = own and any(own.number not in stage.earlier for stage in stages if stage.number > own.number)
    return None if passed_over else own


def _next(connection: Connection, stages: Sequence[Registered], study: Study, at: datetime) -> Registered:
    """The stage that a study's question would be now."""
    question = Question.of(study)
    last = {stage.question.key: stage for stage in stages}  # the others were passed over, and registered again
    last.pop(question.key, None)
    seen = [stage for stage in last.values() if _was_looked_at(connection, stage)]
    number = (connection.scalar(select(func.max(schema.stages.c.number))) or 0) + 1
    ended = _ended(connection, study, stages)
    return Registered(number, question, at, ended, tuple(sorted(stage.number for stage in seen)))


def _was_looked_at(connection: Connection, stage: Registered) -> bool:
    """Whether all trials of a stage's first look have ended once; one that is retried was seen, too."""
    if not stage.question.looks:
        return False
    first = stage.question.looks[0] * len(stage.question.arms)
    (study,) = _studies_of(connection, [stage])
    trials = queries.trial_rows(connection, _planned(connection, study)[:first])
    return all(row.ended_at is not None for row in trials.values())


def _planned(connection: Connection, study: str) -> Sequence[str]:
    """The hashes of the trials of a study that has a stage, and so is in the store."""
    hashes = queries.planned(connection, study)
    if not hashes:
        raise DamageError(f"the record of study {study[:8]}", MISSING)
    return hashes


def _studies_of(connection: Connection, stages: Sequence[Registered]) -> Sequence[str]:
    """The hashes of the studies that asked."""
    columns = schema.stages.c
    numbers = [stage.number for stage in stages]
    return connection.scalars(select(columns.study).where(columns.number.in_(numbers)).distinct()).all()


def _ended(connection: Connection, study: Study, stages: Sequence[Registered]) -> dict[str, int]:
    """How many trials of each arm have ended, over the seeds of a study and of those on some of the same arms.

    Trials on fresh seeds are others, and so are those of an arm that another study compares with other arms.
    """
    digests = {name: arm.partition("+")[0] for name, arm in arm_digests(study).items()}
    planned = {trial.hash: digests[trial.arm] for trial in plan(study)}
    outcomes = queries.outcomes(connection, list(planned))
    ended = {trial: planned[trial] for trial, outcome in outcomes.items() if outcome is not None}
    hashes = {trial: None for other in _studies_of(connection, stages) for trial in _planned(connection, other)}
    rows = {one: row for one, row in queries.trial_rows(connection, [*hashes]).items() if row.ended_at is not None}
    arms = {*digests.values()}
    families: dict[str, str] = {}
    for trial, settings in queries.settings(connection, rows):
        exact = rows[trial].settings_digest
        family = families.get(exact) or families.setdefault(exact, family_digest(settings))
        found = [one for one in (exact, family) if one in arms]
        ended |= {trial: found[0]} if found else {}
    return dict(Counter(ended.values()))
