"""Registers what studies ask, and reads what was asked before; see `fairtrial.history`."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from fairtrial.history import History, Question, Registered, arm_digests, family_digest
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store import queries, schema


def register(connection: Connection, study: Study, at: datetime) -> None:
    """Register a study's stage, unless it is there already.

    A stage that was passed over, because another one was registered before anybody had seen its first look, is
    registered again, after that one.
    """
    question = Question.of(study)
    stages = [one for one in _sharing_an_arm(connection, question) if one.question.shares_arms(question)]
    if _current(stages, question) is None:
        stage = _next(connection, stages, study, at)
        row = {"study": study.hash, "question": question.to_json(), "registered_at": at}
        row |= {"ended": dict(stage.ended), "earlier": list(stage.earlier)}
        connection.execute(insert(schema.stages), row)


def history(connection: Connection, study: Study, now: datetime) -> History:
    """Read a study's history; of one that was never run, as if it were run now."""
    question = Question.of(study)
    related = _sharing_an_arm(connection, question)
    stages = [stage for stage in related if stage.question.shares_arms(question)]
    current = _current(stages, question)
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
    """The stages on one or more of the same arms, in order."""
    columns = schema.stages.c
    rows = connection.execute(select(schema.stages).order_by(columns.number))
    stages = [
        Registered(row.number, Question.from_json(row.question), row.registered_at, row.ended, tuple(row.earlier))
        for row in rows
    ]
    return [stage for stage in stages if {*stage.question.arms} & {*question.arms}]


def _current(stages: Sequence[Registered], question: Question) -> Registered | None:
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
    links, trials = schema.study_trials.c, schema.trials.c
    study = select(schema.stages.c.study).where(schema.stages.c.number == stage.number).scalar_subquery()
    missing = (
        select(func.count())
        .select_from(schema.study_trials.join(schema.trials))
        .where(links.study == study, links.position < first, trials.ended_at.is_(None))
    )
    return connection.scalar(missing) == 0


def _ended(connection: Connection, study: Study, stages: Sequence[Registered]) -> dict[str, int]:
    """How many trials of each arm have ended, over the seeds of a study and of those on some of the same arms.

    Trials on fresh seeds are others, and so are those of an arm that another study compares with other arms.
    """
    digests = {name: arm.partition("+")[0] for name, arm in arm_digests(study).items()}
    planned = {trial.hash: digests[trial.arm] for trial in plan(study)}
    outcomes = queries.outcomes(connection, list(planned))
    ended = {trial: planned[trial] for trial, outcome in outcomes.items() if outcome is not None}
    trials = schema.trials.c
    studies = select(schema.stages.c.study).where(schema.stages.c.number.in_([stage.number for stage in stages]))
    rows = connection.execute(
        select(trials.hash, trials.settings_digest, trials.settings)
        .select_from(schema.study_trials.join(schema.trials))
        .where(schema.study_trials.c.study.in_(studies), trials.ended_at.is_not(None))
    ).all()
    families = {row.settings_digest: family_digest(row.settings) for row in rows}
    arms = {*digests.values()}
    for row in rows:
        found = [one for one in (row.settings_digest, families[row.settings_digest]) if one in arms]
        ended |= {row.hash: found[0]} if found else {}
    return dict(Counter(ended.values()))
