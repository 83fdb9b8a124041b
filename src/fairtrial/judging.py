"""Runs that were made elsewhere, as results that show themselves; the Python interface of `fairtrial judge`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fairtrial.api import StudyResults

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

    Raises:
        RunsError: the runs can't be read, or can't be compared as they are; the message says what to write.

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
    return StudyResults(*import_study(source, asked, **columns))


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
