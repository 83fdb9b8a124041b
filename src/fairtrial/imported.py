"""Makes an ordinary study and its results of runs that were made elsewhere."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import PurePath
from typing import Any, NoReturn

from fairtrial.errors import RunsError, StudyError
from fairtrial.importers.base import Given, open_source
from fairtrial.importers.notes import Notes
from fairtrial.importers.question import Question
from fairtrial.importers.runs import Run, Runs, collect, seed_order
from fairtrial.registry import did_you_mean
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.spec.imported import ELSEWHERE, IMPORTED_FROM, refusal
from fairtrial.spec.limits import MOST_ENTRIES, MOST_EPOCHS
from fairtrial.spec.measures import better
from fairtrial.spec.messages import brief, show
from fairtrial.spec.metrics import PERCENT, PLAIN, UNITS, Direction, Metric, Unit, finite, may_be_percent, own_unit
from fairtrial.text import one_line
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialContext, TrialResult


def made_elsewhere(trial: TrialContext) -> NoReturn:
    """Refuse to train: the training loop of imported runs, which the runner refuses before it is called."""
    raise StudyError(refusal(f"arm {trial.arm}, seed {trial.seed}"))


def elsewhere(source: str) -> Machine:
    """Describe where imported runs were made, which is unknown: no condition of later runs differs from it."""
    return Machine(versions={}, processor="", device="cpu", threads=1, system=f"{IMPORTED_FROM}{source}")


@dataclass(frozen=True)
class Asked:
    """What a user asks of imported runs beside the columns.

    Attributes:
        reference: the arm that the others are compared with, by its label.
        margin: differences within plus or minus this do not matter.
        alpha: error rate of all arms together.
        direction: which way is better, if the measure's name does not say.
        unit: of the measure, as in `[metrics]`: ``"fraction"``, ``"percent"``, ``"seconds"`` or ``"plain"``.
        name: the study's name; by default that of the source.
    """

    reference: str | None = None
    margin: float | None = None
    alpha: float = 0.05
    direction: str | None = None
    unit: str | None = None
    name: str | None = None


def import_study(given: Given, asked: Asked, **columns: Any) -> tuple[Study, tuple[TrialResult, ...]]:
    """Read runs from elsewhere, and make a study and its results of them.

    Args:
        given: what `open_source` takes.
        asked: what is asked of the runs.
        **columns: arm, seed, measure, epoch, group and wide; see `Question`.

    Raises:
        RunsError: they can't be read, or can't be compared as they are.
    """
    question = Question.of(open_source(given), **columns)
    measured = _Measured.of(question, asked)
    runs = collect(replace(question, lowest=measured.direction == "lower"))
    measured.check(runs)
    return _Importing(runs, measured, asked).study_and_results()


@dataclass(frozen=True)
class _Measured:
    """The metric in a column: a name that a study can use, its better direction and its unit."""

    column: str
    metric: str
    measure: str
    direction: Direction
    unit: str | None  # as it is declared; None for what the name implies

    @classmethod
    def of(cls, question: Question, asked: Asked) -> "_Measured":
        column, family = question.column.removeprefix("metrics."), question.family  # MLflow's tables of runs have it
        if not family:  # a column such as best_test_acc is that measure of test_acc
            prefix, _, rest = column.partition("_")
            column, family = (rest, prefix) if prefix in {"best", "final"} and rest else (column, "final")
        metric = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_")[:100] or "value"
        metric = metric if metric.isidentifier() else f"m_{metric}"
        if asked.unit not in {None, *UNITS}:
            raise RunsError(f"--unit {show(asked.unit)}: must be one of {', '.join(UNITS)}")
        implied, own = better(metric), own_unit(metric)
        if asked.direction not in {None, "higher", "lower"}:
            raise RunsError(f'--direction {show(asked.direction)}: must be "higher" or "lower"')
        if implied is None and asked.direction is None:
            raise RunsError(f"--direction: is missing; say whether {show(column)} is better higher or lower")
        if implied is not None and asked.direction not in {None, implied}:
            raise RunsError(f"--direction {asked.direction}: {show(column)} is better {implied}; leave it out")
        if own is not None and asked.unit is not None:
            metric, unit = (metric, None) if UNITS[asked.unit] == own else (f"{metric}_{asked.unit}", asked.unit)
        else:
            unit = asked.unit
        direction: Direction = implied or ("lower" if asked.direction == "lower" else "higher")
        return cls(question.column, metric, f"{family}_{metric}", direction, unit)

    @property
    def declared(self) -> dict[str, str]:
        """What [metrics] says of it."""
        table = {} if self.unit is None else {"unit": self.unit}
        return table if Metric.named(self.metric).direction else {**table, "direction": self.direction}

    def check(self, runs: Runs) -> None:
        """Refuse values that the unit does not allow, or that look like percent; NaN and infinities are lost runs."""
        unit: Unit = UNITS[self.unit] if self.unit else own_unit(self.metric) or PLAIN
        low, high = unit.limits
        for run in runs.runs:
            for value in run.values:
                if finite(value) is None:
                    continue
                known = self.unit is not None or own_unit(self.metric) is not None
                percent = value > 1 and (unit == PERCENT or (not known and may_be_percent(self.column)))
                if low <= value <= high and not percent:
                    continue
                where = f"{show(self.column)} = {value:g} ({brief(run.arm)}, {brief(run.seed)})"
                if percent:
                    raise RunsError(
                        f"{where}: looks like percent; write --unit percent, and a margin in points (or --unit plain)"
                    )
                raise RunsError(
                    f"{where}: must be from {low:g} to {high:g}; write --unit plain if it is something else"
                )


class _Importing:
    """Makes a study and results of runs."""

    def __init__(self, runs: Runs, measured: _Measured, asked: Asked) -> None:
        self._all, self._measured, self._asked = runs, measured, asked
        self._question = runs.question
        self._source = one_line(self._question.source.name)[:200]
        self._names = _names(runs.arms)
        self._reference = self._find_reference()
        ended = [run for run in runs.runs if run.ended != "running"]
        self._by_arm: dict[str, dict[str, Run]] = {arm: {} for arm in runs.arms}
        for run in ended:
            self._by_arm[run.arm][run.seed] = run

    def study_and_results(self) -> tuple[Study, tuple[TrialResult, ...]]:
        study = self._study()
        trials = {(trial.arm, trial.seed): trial for trial in plan(study)}
        now = datetime.now(UTC)
        results = [
            self._result(trials[self._names[arm], seed], run, now)
            for arm in self._all.arms
            for seed, run in enumerate(self._used(arm))
        ]
        return study, tuple(results)

    def _find_reference(self) -> str:
        """Find the reference by its label; in several columns, blanks around commas do not matter."""
        arms, given = self._all.arms, self._asked.reference
        listed = ", ".join(brief(arm) for arm in arms[:20]) + (f" and {len(arms) - 20:,} more" if arms[20:] else "")
        if given is None:
            raise RunsError(f"--reference: is missing; the arms are {listed}")
        by_name = {re.sub(r"\s*,\s*", ", ", arm): arm for arm in arms} | {arm: arm for arm in arms}
        wanted = given if given in by_name else re.sub(r"\s*,\s*", ", ", given.strip())
        if wanted not in by_name:
            hint = did_you_mean(brief(wanted), map(brief, arms))
            raise RunsError(f"--reference {show(given)}: no arm has that name; {hint}")
        if len(arms) == 1:
            raise RunsError(f"{self._source}: {show(given)} is the only arm, so there is nothing to compare")
        return by_name[wanted]

    @cached_property
    def _shared(self) -> tuple[str, ...]:
        """The seeds of every arm; none where they are not known."""
        if self._question.seed is None:
            return ()
        shared = set.intersection(*(set(runs) for runs in self._by_arm.values()))
        return tuple(sorted(shared, key=seed_order))

    @property
    def _paired(self) -> bool:
        return len(self._shared) >= 2

    def _used(self, arm: str) -> Sequence[Run]:
        """The runs of an arm that are compared, in the order of the study's seeds."""
        own = self._by_arm[arm]
        return [own[seed] for seed in self._shared] if self._paired else [*own.values()]

    def _study(self) -> Study:
        measured, asked = self._measured, self._asked
        evidence: dict[str, Any] = {"metric": measured.measure, "alpha": float(asked.alpha)}
        evidence |= {"final": True} if self._paired else {"paired": False}
        if Metric.named(measured.metric).direction is None:
            evidence["direction"] = measured.direction
        if asked.margin is not None:
            evidence["margin"] = float(asked.margin)
        used = {arm: self._used(arm) for arm in self._all.arms}
        notes = Notes(self._all, self._by_arm, self._shared, used, measured.unit)
        source = {"digest": self._all.digest[:16]}  # so that runs of another file are other trials
        imported = {"source": self._source, "digest": self._all.digest, "notes": [*notes.sentences()]}
        imported |= {"arms": [one_line(arm) for arm in self._all.arms] if len(self._names) <= MOST_ENTRIES else []}
        imported |= {"seeds": [*map(one_line, self._shared)] if self._paired else []}
        try:
            return Study.from_dict(
                {
                    "name": asked.name or self._name,
                    "reference": self._names[self._reference],
                    "seeds": max(1, *(len(self._used(arm)) for arm in self._all.arms)),
                    "training": {"loop": ELSEWHERE, "epochs": max(1, *(len(run.values) for run in self._all.runs))},
                    "metrics": {measured.metric: measured.declared} if measured.declared else {},
                    "evidence": evidence,
                    "params": source,
                    "arms": {name: _arm(name, arm) for arm, name in self._names.items()},
                    "imported": imported,
                }
            )
        except StudyError as error:
            raise RunsError(str(error).replace("evidence.", "--")) from error

    @property
    def _name(self) -> str:
        """The study's name: that of a file without its end."""
        name, dot, _ = PurePath(self._question.source.name).name.partition(".")
        return (dot and _slug(name)) or "runs"

    def _result(self, trial: Trial, run: Run, now: datetime) -> TrialResult:
        values = run.values if self._question.epoch else run.values[:1]
        records = tuple(
            EpochRecord(trial.arm, trial.seed, index, {self._measured.metric: value})
            for index, value in enumerate(values, start=1)
        )
        failed = run.ended == "failed"
        detail = "" if not failed else "it failed there" if records else f"no value of {self._measured.column}"
        return TrialResult(
            arm=trial.arm,
            seed=trial.seed,
            trial=trial.hash,
            outcome=Outcome.FAILED if failed else Outcome.FINISHED,
            detail=f"{self._source}: {one_line(detail)}" if failed else "",
            started=now,
            ended=now,
            machine=elsewhere(self._source),
            epochs=records[:MOST_EPOCHS],
        )


def _names(arms: Sequence[str]) -> dict[str, str]:
    """Give each arm a name that is safe in studies and different from all others; its label stays what it was."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for arm in sorted(arms, key=lambda arm: _slug(arm) != arm):  # labels that are names already come first
        base = _slug(arm) or "arm"
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}-{number}"
        taken.add(name)
        names[arm] = name
    return {arm: names[arm] for arm in arms}


def _slug(text: str) -> str:
    """Keep letters, digits, `_` and `-`, and at most 60 characters."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:60]


def _arm(name: str, label: str) -> dict[str, Any]:
    text = one_line(label)
    shown = text if len(text) <= 200 else f"{text[:180]}... ({name})"
    return {"params": {"arm": text[:4000]}} | ({} if shown == name else {"label": shown})
