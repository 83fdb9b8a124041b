"""The runs without a comparable number: tracebacks of failed trials, and how the others were lost."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from fairtrial.report.trials import Row, trial_rows
from fairtrial.spec import Study
from fairtrial.spec.metrics import finite
from fairtrial.stats.joined import Key, join
from fairtrial.stats.paired import BROKEN, MISSED, OUTLYING, UNLEARNED, PairedData, seed_list
from fairtrial.trial import Outcome, TrialResult


def losses(study: Study, results: Sequence[TrialResult]) -> dict[Key, str]:
    """Say of each lost run, by arm and seed in the study's order, how it was lost on the study's measure.

    Raises:
        ValueError: a result is not of this study, or one trial is there twice.
    """
    evidence = study.evidence
    lost = PairedData.of(study, results, evidence.metric, evidence.target).sifted(study.seeds).lost
    return {key: _reason(study, trial, lost[key]) for key, trial in join(study, results).items() if key in lost}


def loss_lines(study: Study, results: Sequence[TrialResult]) -> Iterator[str]:
    """Write each way in which runs were lost once, after the arms and seeds that it met."""
    met: dict[str, list[Key]] = {}
    for key, reason in losses(study, results).items():
        met.setdefault(reason, []).append(key)
    for reason, keys in met.items():
        arms = ((arm, [seed for _, seed in part]) for arm, part in groupby(keys, key=lambda key: key[0]))
        yield f"{', '.join(f'{arm} {_seeds(seeds)}' for arm, seeds in arms)}: {reason}"


def loss_rows(study: Study, results: Sequence[TrialResult]) -> list[Row]:
    """List the lost runs as `trial_rows` does, each with its ``lost``: how it was."""
    reasons = losses(study, results)
    rows = trial_rows(study, [result for result in results if (result.arm, result.seed) in reasons])
    return [{**row, "lost": reasons[row["arm"], row["seed"]].partition("\n")[0]} for row in rows]


def _reason(study: Study, trial: TrialResult, how: str) -> str:
    """Say how a run was lost, with the value that lost it."""
    if trial.outcome is Outcome.FAILED:
        return trial.detail.rstrip()
    if trial.outcome is Outcome.DIVERGED:
        return f"diverged: {trial.detail.rstrip()}"
    evidence, measure = study.evidence, study.measure(study.evidence.metric)
    value = measure.of(trial.epochs, evidence.target)
    unit = measure.unit
    was = (
        ""
        if value is None
        else f"{measure.label} {unit.number(value)}{'' if unit.name == '%' else ' '}{unit.name}".rstrip()
    )
    if how == UNLEARNED:
        side = "above" if evidence.lost_above is not None else "below"
        return f"did not learn: {was}, {side} the floor"
    if how == OUTLYING:
        return f"fell behind: {was}, far from the arm's other runs"
    if how == MISSED and evidence.target is not None:
        return f"missed the target: {evidence.target.metric} never reached {evidence.target.value:g}"
    assert how == BROKEN
    return f"not finite: {_broken(trial, [*measure.metrics, *([evidence.target.metric] if evidence.target else [])])}"


def _broken(trial: TrialResult, metrics: Sequence[str]) -> str:
    """Name the first value of a measure's metrics that is not finite, or too large to compare."""
    for record in trial.epochs:
        for name in metrics:
            if finite(record.metrics.get(name, 0.0)) is None:
                return f"{name} is {record.metrics[name]} after epoch {record.epoch}"
    return "the study's measure is NaN, infinite or beyond 1e99"


def _seeds(seeds: Sequence[int]) -> str:
    """Write seeds, those of a long row by its ends: ``seeds 0 to 3``."""
    whole = len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
    return f"seeds {seeds[0]} to {seeds[-1]}" if whole else seed_list(seeds)
