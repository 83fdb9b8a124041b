"""Fits runs that were made elsewhere into a study of the user's own, which then trains only what is missing."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from fairtrial.errors import Diverged, RunsError
from fairtrial.executors.records import RecordRules
from fairtrial.imported import elsewhere
from fairtrial.importers.base import Given, open_source
from fairtrial.importers.question import Question
from fairtrial.importers.runs import Run, Runs, collect
from fairtrial.registry import did_you_mean
from fairtrial.scheduler import plan
from fairtrial.spec import Study, content, flatten
from fairtrial.spec.messages import brief, show
from fairtrial.text import one_line
from fairtrial.trial import EpochRecord, Outcome, Trial, TrialResult


def results_for(study: Study, given: Given, *, measure: str | None = None, **columns: Any) -> tuple[TrialResult, ...]:
    """Read runs from elsewhere as results of a study's trials.

    Arms are known by their names or labels, or by their values of the one key in which they differ; seeds by their
    numbers. Each run must have as many epochs as the study trains.

    Args:
        study: the study.
        given: what `open_source` takes.
        measure: the column with the metric that the study compares; by default the one of the same name.
        **columns: arm, seed and epoch; see `Question`.

    Raises:
        RunsError: a run is none of the study's trials, or has no such records.
    """
    metric = _metric(study)
    column = measure or metric
    source = open_source(given)
    if columns.get("seed") is None:
        raise RunsError("--seed: is missing; a study's trials are known by their seeds")
    over_epochs = columns.get("epoch") is not None or source.epoch is not None
    runs = collect(Question.of(source, measure=f"final_{column}" if over_epochs else column, **columns))
    if runs.thinned:
        raise RunsError(f"{show(source.name)[1:-1]}: has too many epochs to keep them all; import fewer runs at a time")
    return tuple(_results(study, runs, metric))


def _metric(study: Study) -> str:
    measure = study.measure(study.evidence.metric)
    if len(measure.metrics) != 1:
        raise RunsError(
            f"--study {study.name}: compares {study.evidence.metric}, which needs more than one metric; runs can be "
            "imported into a study of one, such as final_test_acc"
        )
    return measure.metrics[0]


def _results(study: Study, runs: Runs, metric: str) -> Iterator[TrialResult]:
    if study.untuned:
        raise RunsError(f"{study.label}: its arms have yet to be tuned; to add runs to them, leave [tuning] out")
    trials = {(trial.arm, trial.seed): trial for trial in plan(study)}
    arms, rules, now = _arms(study, runs), RecordRules.of(study), datetime.now(UTC)
    source = one_line(runs.question.source.name)
    for run in runs.runs:
        if run.ended == "running":
            continue
        seed = int(run.seed) if re.fullmatch(r"\d{1,7}", run.seed) else -1
        if (trial := trials.get((arms[run.arm], seed))) is None:
            raise RunsError(
                f"{brief(source)}: seed {brief(run.seed)} of {brief(run.arm)} is none of {study.label}, whose seeds "
                f"are 0 to {study.seeds - 1}"
            )
        failed = run.ended == "failed"
        yield TrialResult(
            arm=trial.arm,
            seed=trial.seed,
            trial=trial.hash,
            outcome=Outcome.FAILED if failed else Outcome.FINISHED,
            detail=f"{source}: it failed there, or has no value" if failed else "",
            started=now,
            ended=now,
            machine=elsewhere(source),
            epochs=tuple(_records(trial, run, metric, rules, source)),
        )


def _records(trial: Trial, run: Run, metric: str, rules: RecordRules, source: str) -> Iterator[EpochRecord]:
    where = f"{brief(source)}: {brief(run.arm)}, seed {brief(run.seed)}"
    if run.ended == "finished" and len(run.values) != trial.epochs:
        raise RunsError(
            f"{where} has {len(run.values)} epoch{'' if len(run.values) == 1 else 's'} with a value; the study trains "
            f"{trial.epochs}"
        )
    for epoch, value in enumerate(run.values[: trial.epochs], start=1):
        try:
            yield EpochRecord(trial.arm, trial.seed, epoch, rules.checked({metric: value}, epoch))
        except (Diverged, ValueError, TypeError) as error:
            raise RunsError(f"{where}: {one_line(str(error)).replace('; yield ', '; write ')}") from error


def _arms(study: Study, runs: Runs) -> dict[str, str]:
    """Find the study's arm of each label: by name, label, or value of the one key in which the arms differ."""
    known = _values(study) | {arm.label: arm.name for arm in study.arms if arm.label}
    known |= {arm.name: arm.name for arm in study.arms}
    found = {}
    for label in runs.arms:
        if (arm := known.get(label) or known.get(_plain(label))) is None:
            raise RunsError(
                f"{show(runs.question.source.name)[1:-1]}: {study.label} has no arm {show(label)}; "
                f"{did_you_mean(brief(label), known)}"
            )
        found[label] = arm
    if len({*found.values()}) < len(found):
        twice = next(arm for arm in found.values() if [*found.values()].count(arm) > 1)
        raise RunsError(f"{show(runs.question.source.name)[1:-1]}: several of its arms are {twice} of {study.label}")
    return found


def _values(study: Study) -> dict[str, str]:
    """The arms by their values of the one key in which they differ; none if they differ in several."""
    tables: dict[str, Mapping[str, Any]] = {arm.name: dict(flatten(content(arm.settings))) for arm in study.arms}
    keys = {key for table in tables.values() for key in table}
    differing = [key for key in keys if len({repr(table.get(key)) for table in tables.values()}) > 1]
    differing = [key for key in differing if not any(isinstance(table.get(key), Mapping) for table in tables.values())]
    if len(differing) != 1:
        return {}
    return {_plain(str(table.get(differing[0]))): name for name, table in tables.items()}


def _plain(text: str) -> str:
    """Write numbers in one way: ``0.10`` and ``1e-1`` are the same."""
    try:
        return repr(float(text))
    except ValueError:
        return text
