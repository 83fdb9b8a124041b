"""Runs a gate: trains what is missing, seed by seed, until every arm is decided or the budget is spent."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from fairtrial import api
from fairtrial.callbacks import Callback
from fairtrial.errors import StudyError
from fairtrial.executors.auto import AutoExecutor
from fairtrial.executors.base import Executor
from fairtrial.executors.limits import format_seconds
from fairtrial.gate import studies
from fairtrial.gate.baseline import Baseline, BaselineError, read_baseline, under_study, write_baseline
from fairtrial.gate.budget import TimeUp, Within
from fairtrial.provenance import RunConditions
from fairtrial.results import StudyResults
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.stats.comparison import compare
from fairtrial.stats.gate import Decision, Gate
from fairtrial.store.base import Store, Writer, add_result
from fairtrial.store.opening import opened_store
from fairtrial.store.url import DEFAULT_STORE
from fairtrial.trial import Trial, TrialResult

#: How many changes a month a gate is taken to judge: one a working day.
CHANGES_A_MONTH = 20


def gate(
    study: Study,
    *,
    not_worse_than: float,
    baseline: str | Path | None = None,
    store: str | Path | Store = DEFAULT_STORE,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
    alpha: float | None = None,
    max_seeds: int | None = None,
    max_seconds: float | None = None,
    changes_a_month: int = CHANGES_A_MONTH,
) -> Gate:
    """Decide whether the arms of a study, or its reference under changed code, are worse by a margin.

    Trains the seeds that are missing, one after the other, and stops as soon as every arm is decided.

    Args:
        study: the study. Without a baseline every arm is compared with the reference.
        not_worse_than: the margin, in the measure's unit; a change that costs less may pass.
        baseline: a file that `save_baseline` wrote. The study's reference, trained with the code as it is now, is
            compared with its own runs in there, seed by seed.
        store: gets the trials; what is there of the same code is not trained again.
        executor: what runs trials; by default ``AutoExecutor()``.
        callbacks: called as the study runs.
        alpha: the probability of each wrong answer, over all arms and looks; by default the study's.
        max_seeds: the plan's last look; by default the study's seeds.
        max_seconds: the time for training, after which undecided arms stay so. Running trials save their state.
        changes_a_month: how many changes such a gate judges, for the error rates that it states.

    Raises:
        FairtrialError: the study, the baseline or a budget is not usable, or trials can't be compared.

    Example:
        >>> gate(study, not_worse_than=0.01).exit_code  # doctest: +SKIP
        1
    """
    begun = monotonic()
    timed = Within(AutoExecutor() if executor is None else executor, max_seconds)
    known = None if baseline is None else read_baseline(Path(baseline))
    if known is None:
        gated, said = studies.arms_study(study, not_worse_than, alpha, max_seeds), list[str]()
    else:
        gated, said = _against(study, known, not_worse_than, alpha, max_seeds)
    with opened_store(store) as opened:
        if known is not None:
            said += _add_baseline(opened, gated, known)
        heard = _Warnings()
        spent, trained = "", 0
        try:
            runs = api.run(gated, store=opened, executor=timed, callbacks=[heard, *callbacks])
            trained = runs.trained
        except TimeUp:
            spent = f"the time of {format_seconds(max_seconds or 0.0)} was up"
            runs = api.open_results(gated, store=opened)
        found = _decide(runs, changes_a_month)
    if known is not None:
        said.insert(0, _conditions(known, study, runs))
    if found.decision is Decision.UNDECIDED and not spent:
        spent = f"all {found.verdict.seeds} seeds of the plan were trained"
    return replace(
        found,
        said=(*said, *(f"{text[0].upper()}{text[1:]}." for text in heard.texts)),
        ended=spent if found.decision is Decision.UNDECIDED else "",
        trained=trained or heard.ended,
        seconds=monotonic() - begun,
    )


def gate_runs(
    runs: StudyResults, *, not_worse_than: float, alpha: float | None = None, changes_a_month: int = CHANGES_A_MONTH
) -> Gate:
    """Decide whether arms are worse by a margin from results that there are; nothing is trained.

    Args:
        runs: such as `fairtrial.import_runs` returns.
        not_worse_than: the margin, in the measure's unit.
        alpha: the probability of each wrong answer; by default the study's.
        changes_a_month: how many changes such a gate judges, for the error rates that it states.
    """
    gated = studies.arms_study(runs.study, not_worse_than, alpha, fixed=True)
    return _decide(replace(runs, study=gated), changes_a_month)


def save_baseline(
    study: Study,
    path: str | Path,
    *,
    seeds: int | None = None,
    store: str | Path | Store = DEFAULT_STORE,
    executor: Executor | None = None,
    callbacks: Sequence[Callback] = (),
) -> Baseline:
    """Train the reference of a study and save its runs, as a baseline for `gate`.

    Args:
        study: the study; its other arms are left out.
        path: the file, such as ``baseline.parquet``.
        seeds: how many; by default the study's.
        store: gets the trials, which are known by the code that they ran.
        executor: what runs trials; by default ``AutoExecutor()``.
        callbacks: called as the study runs.

    Raises:
        FairtrialError: it can't be trained, or the file can't be written.
    """
    alone = studies.baseline_study(study, study.seeds if seeds is None else seeds)
    runs = api.run(alone, store=store, executor=executor, callbacks=callbacks)
    return write_baseline(Path(path), alone, runs.results)


class _Warnings(Callback):
    """Keeps what a run warns of that is about the whole study, and counts the trials that ended."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ended = 0

    def on_warning(self, trial: Trial | None, text: str) -> None:
        """Keep a warning."""
        if trial is None:
            self.texts.append(text)

    def on_trial_end(self, *_of: object) -> None:
        """Count a trial."""
        self.ended += 1


def _decide(runs: StudyResults, changes_a_month: int) -> Gate:
    """Judge what there is.

    Raises:
        StudyError: an arm is not comparable with the reference.
    """
    verdict = compare(runs.study, runs.results, history=runs.history)
    if verdict.refused:
        raise StudyError(next(iter(verdict.refused.values())))
    return Gate(verdict, changes_a_month=changes_a_month)


def _against(
    study: Study, known: Baseline, margin: float, alpha: float | None, max_seeds: int | None
) -> tuple[Study, list[str]]:
    """The study that compares the code with a baseline, and what to say first: why its plan is shorter than asked."""
    if known.head.arm != study.reference:
        raise BaselineError(
            f"{known.path}: has the runs of arm {known.head.arm}, but the study's reference is {study.reference}"
        )
    studies.differences(study, known.table)  # which refuses other measures before anything is trained
    planned, there = max_seeds or study.seeds, len(known.results)
    seeds = min(max_seeds, there) if max_seeds else there
    said = [f"The plan ends at {seeds} seeds: the baseline has no more."] if seeds < planned else []
    return studies.code_study(study, known.head.digest, margin, alpha, seeds), said


def _add_baseline(store: Store, gated: Study, known: Baseline) -> list[str]:
    """Add the runs of a baseline to a store, and say how many of the others are there already."""
    own = [trial for trial in plan(gated) if trial.arm != gated.reference]
    there = sum(outcome is not None for outcome in store.outcomes(own).values())
    with store.lock(gated):
        store.add_study(gated, datetime.now(UTC))
        trials = {trial.seed: trial.hash for trial in plan(gated) if trial.arm == gated.reference}
        _record(store, gated, under_study(known, gated, trials))
    return [f"{there} trials of this code were in the store already and were not trained again."] if there else []


def _record(store: Store, study: Study, results: Sequence[TrialResult]) -> None:
    """Write trials that ended elsewhere into a store, unless they are there."""
    planned = {trial.hash: trial for trial in plan(study)}
    there = {trial for trial, outcome in store.outcomes([*planned.values()]).items() if outcome is not None}
    new = [result for result in results if result.trial not in there]

    def write(writer: Writer) -> None:
        for result in new:
            add_result(writer, planned[result.trial], result, f"baseline-{result.trial[:16]}")

    if new:
        store.write(write)


def _conditions(known: Baseline, study: Study, runs: StudyResults) -> str:
    """Say what differs from a baseline: code, versions, machine, settings."""
    conditions, told = RunConditions(known.results), dict[str, None]()
    trials = {trial.hash: trial for trial in plan(runs.study)}
    own = [result for result in runs.results if result.arm == study.reference]
    for result in own:
        found = conditions.differences(trials[result.trial], result.machine)
        told |= dict.fromkeys(re.sub(r" since seed \d+", "", one) for one in found)
    before, now = ({one.machine.git_commit for one in some} - {None} for some in (known.results, own))
    if before and now and before != now:
        told[f"commit {_short(before)}, now {_short(now)}"] = None
    told |= dict.fromkeys(studies.differences(study, known.table))
    saved = f"{known.path.name}, {len(known.results)} seeds saved on {known.head.saved:%Y-%m-%d}"
    if not told:
        return f"Nothing known differs from the baseline ({saved}): code, versions, machine and settings are the same."
    return f"Differs from the baseline ({saved}), which may be the change under test: {'; '.join(told)}."


def _short(commits: set[str | None]) -> str:
    return " or ".join(sorted(f"{one[:9]}{'+' * one.endswith('+')}" for one in commits if one))
