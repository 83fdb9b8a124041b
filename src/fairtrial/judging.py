"""Runs that were made elsewhere, as results that show themselves; the Python interface of `fairtrial judge`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairtrial.api import open_results
from fairtrial.errors import RunsError, StoreError
from fairtrial.results import StudyResults
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.stats.identical import same_records
from fairtrial.store.base import Writer, add_result
from fairtrial.store.opening import opened_store
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import DEFAULT_STORE
from fairtrial.trial import TrialResult

if TYPE_CHECKING:
    from fairtrial.report.views import View
    from fairtrial.stats.comparison import StudyVerdict


def import_runs(
    source: Any,
    *,
    arm: str | Sequence[str] | None = None,
    seed: str | None = None,
    measure: str | None = None,
    reference: str | None = None,
    margin: float | None = None,
    epoch: str | None = None,
    group: str | None = None,
    wide: str | Sequence[str] | None = None,
    direction: str | None = None,
    unit: str | None = None,
    alpha: float = 0.05,
    name: str | None = None,
    store: str | Path | SQLStore | None = None,
) -> StudyResults:
    """Read runs that were made elsewhere, as a study with its results.

    Runs are paired by seed where all arms share at least two; the verdict says if they are not, and why. A run without
    a value, or with one that is NaN or infinite, is lost, as one that failed.

    Args:
        source: a CSV, Parquet or JSON lines file in long form, a pandas data frame, or what another importer reads; see
            docs/judging.md.
        arm: the column with the arms; of several columns, each combination is an arm.
        seed: the column with the seeds. Without it, runs are not paired.
        measure: a column with one value for each run; with ``epoch``, ``best_NAME``, ``final_NAME`` or
            ``mean_lastK_NAME`` of a column NAME.
        reference: the arm that the others are compared with.
        margin: differences within plus or minus this do not matter, in the measure's own unit.
        epoch: the column that counts epochs or steps within a run.
        group: the column that tells repeated measurements of a run apart, such as episodes or folds, whose mean counts;
            ``"rows"`` if each row is one.
        wide: instead of ``arm``, columns that are an arm each, in a table with a row for each seed.
        direction: ``"higher"`` or ``"lower"``, whichever is better, if the measure's name does not say.
        unit: ``"fraction"``, ``"percent"``, ``"seconds"`` or ``"plain"``, if the measure's name does not say.
        alpha: error rate of all arms together.
        name: the study's name; by default that of the source.
        store: a store to which the study and its results are added, all results or none.

    Raises:
        RunsError: the runs can't be read, or can't be compared as they are; the message says what to write.
        StoreError: they can't be added to the store.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({
        ...     "optimizer": ["adam", "sgd"] * 3,
        ...     "seed": [0, 0, 1, 1, 2, 2],
        ...     "test_acc": [0.81, 0.84, 0.80, 0.82, 0.83, 0.85],
        ... })
        >>> import_runs(frame, arm="optimizer", seed="seed", measure="test_acc", reference="adam")
        <StudyResults runs@...: 6 of 6 trials>
    """
    from fairtrial.imported import Asked, import_study  # noqa: PLC0415  (loads NumPy)

    asked = Asked(reference, margin, alpha, direction, unit, name)
    columns = {"arm": arm, "seed": seed, "measure": measure, "epoch": epoch, "group": group, "wide": wide}
    study, results = import_study(source, asked, **columns)
    if store is not None:
        _add(study, results, store)
    return StudyResults(study, results)


def extend_study(
    study: Study, source: Any, *, store: str | Path | SQLStore = DEFAULT_STORE, **columns: str | None
) -> StudyResults:
    """Add runs that were made elsewhere to a study of your own, so that `run` trains only what is missing.

    Its verdicts say how many trials were imported, and from where. Arms are known by names or labels, or by their
    values of the one key in which they differ; seeds by numbers.

    Args:
        study: the study, which trains these arms itself.
        source: what `import_runs` takes.
        store: the store to which its results are added, all of them or none.
        **columns: arm, seed, epoch and measure, as in `import_runs`; the measure is the column with the metric that the
            study compares, by default the one of the same name.

    Raises:
        RunsError: a run is none of the study's trials, or has no such records.
        StoreError: they can't be added to the store; or a trial is there already, with another result.
    """
    from fairtrial.extension import results_for  # noqa: PLC0415  (loads NumPy)

    if study.imported is not None:
        raise RunsError(f"{study.label}: its own runs were made elsewhere; name a study with a training loop")
    results = results_for(study, source, **columns)
    _add(study, results, store)
    return open_results(study, store=store)


def _add(study: Study, results: Sequence[TrialResult], store: str | Path | SQLStore) -> None:
    """Add results to a store, in one transaction, unless it has others of the same trials.

    If this process dies before that, the store has the study without results, and the next call adds them.
    """
    with opened_store(store) as opened, opened.lock(study):
        known = {one.trial: one for one in opened.results(study) if one.outcome is not None}
        _refuse_contradictions(study, results, known)
        trials = {trial.hash: trial for trial in plan(study)}
        new = [(trials[one.trial], one) for one in results if one.trial not in known]

        def write(writer: Writer) -> None:
            for trial, one in new:
                add_result(writer, trial, one, study.hash[:16])

        opened.add_study(study, datetime.now(UTC))
        opened.write(write)


def _refuse_contradictions(study: Study, results: Sequence[TrialResult], known: Mapping[str, TrialResult]) -> None:
    """Refuse to add results of trials that the store has with other ones."""
    pairs = [(one, known[one.trial]) for one in results if one.trial in known]
    other = [one for one, there in pairs if not same_records(one, there)]
    if other:
        named = ", ".join(f"{one.arm} at seed {one.seed}" for one in other[:3]) + (", ..." if other[3:] else "")
        raise StoreError(
            f"{study.label}: the store has other results of {len(other)} of these trials ({named}); nothing was added"
        )


def judge_runs(source: Any, **how: Any) -> "View[StudyVerdict]":
    """Judge runs that were made elsewhere: which arms differ from the reference, and which differences are luck.

    Args:
        source: what `import_runs` takes.
        **how: the other arguments of `import_runs`.

    Raises:
        RunsError: as `import_runs`.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"adam": [0.81, 0.80, 0.83], "sgd": [0.84, 0.82, 0.855]})
        >>> view = judge_runs(frame, wide="adam,sgd", measure="test_acc", reference="adam")
        >>> view.data.comparisons[0].verdict.value, round(view.data.comparisons[0].mean_difference, 3)
        ('better', 0.025)
    """
    return import_runs(source, **how).verdict()
