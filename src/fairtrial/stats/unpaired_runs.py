"""Unpaired comparisons of a study's arms with its reference, from stored trials."""

import math
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from fairtrial.spec import Evidence, Study
from fairtrial.stats.paired import PairedData
from fairtrial.stats.unpaired import judge_unpaired
from fairtrial.stats.verdicts import Comparison, Verdict


def compare_runs(
    study: Study, evidence: Evidence, data: PairedData, arms: Iterable[str], *, complete: bool
) -> tuple[Comparison, ...]:
    """Compare arms with the reference by all of their runs; lost runs count as `judge_unpaired` says.

    Args:
        study: the study.
        evidence: the measure and the standard; alpha is the study's for a question.
        data: the measure of its trials.
        arms: those to compare, without the reference.
        complete: whether the one look has come. Before it there are means, and no intervals.
    """
    names = [study.reference, *arms]
    runs: dict[str, list[float]] = {name: [] for name in names}
    for (arm, _), value in data.values.items():
        if arm in runs:
            runs[arm].append(value)
    for arm in runs:
        runs[arm] += [math.nan] * len(data.lost_by_arm.get(arm, ()))
    alpha, higher = study.interval_alpha if evidence.one_sided else study.question_alpha, evidence.larger_is_better
    if len(names) < 2:
        return ()
    rows = judge_unpaired(runs, study.reference, evidence.margin, alpha, larger_is_better=higher)
    if evidence.not_worse_than is not None:
        lost = {arm for arm in runs if data.lost_by_arm.get(arm)}
        rows = tuple(_one_sided(row, evidence.not_worse_than, 1 if higher else -1, lost) for row in rows)
    return rows if complete else tuple(_before_the_look(row, study.seeds) for row in rows)


def _one_sided(row: Comparison, margin: float, sign: int, lost: Collection[str]) -> Comparison:
    """The comparison of an arm that may be worse by less than a margin; a lost run keeps it from that verdict."""
    if row.interval is None or row.arm in lost or row.by_failures:
        return row
    within = min(sign * end for end in row.interval) >= -margin
    return replace(row, verdict=Verdict.NON_INFERIOR, more_seeds=None) if within else row


def spread_of_runs(study: Study, data: PairedData) -> float | None:
    """Standard deviation of the difference between a run of an arm and one of the reference, for planning.

    The arms' variances are averaged. None if it is unknown.
    """
    runs: dict[str, list[float]] = {}
    for (arm, _), value in data.values.items():
        runs.setdefault(arm, []).append(value)
    variances = {arm: float(np.var(values, ddof=1)) for arm, values in runs.items() if len(values) > 1}
    reference = variances.pop(study.reference, math.nan)
    if not variances or math.isnan(reference):
        return None
    return math.sqrt(reference + sum(variances.values()) / len(variances)) or None


def _before_the_look(row: Comparison, seeds: int) -> Comparison:
    line = f"The one look is planned after {seeds} runs of each arm; before it there is no interval and no verdict."
    bare = Comparison.nothing(row.arm)
    return replace(bare, seeds=row.seeds, mean_difference=row.mean_difference, sd=row.sd, caveats=(line,))
