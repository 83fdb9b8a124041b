"""Rows for each snapshot of an optimizer's state, for other programs."""

from collections.abc import Sequence

from fairtrial.report.trials import Row
from fairtrial.spec import Study
from fairtrial.stats.joined import join
from fairtrial.trial import Snapshot, TrialResult

#: Columns of every row, before the statistics.
HEAD = ("study", "hash", "arm", "seed", "epoch", "step", "scope", "part")


def snapshot_rows(study: Study, results: Sequence[TrialResult]) -> tuple[list[str], list[Row]]:
    """List snapshots, by arm in the study's order, then by seed and step, with the names of all columns.

    Each snapshot has a row with the scope ``overall``, one for each kind of layer (``kind``) and one for each parameter
    tensor (``tensor``), whose name is in the column ``part``; then come the statistics, see
    `fairtrial.training.statistics`. ``notes`` say, in the row ``overall``, what could not be computed.

    Raises:
        ValueError: a result is not of this study, or one trial is there twice.
    """
    rows: list[Row] = []
    for trial in join(study, results).values():
        head: Row = {"study": study.name, "hash": study.hash, "arm": trial.arm, "seed": trial.seed}
        for snapshot in trial.snapshots:
            rows += [head | {"epoch": snapshot.epoch, "step": snapshot.step, **row} for row in _parts(snapshot)]
    names = sorted({name for row in rows for name in row}.difference(HEAD, ["notes"]))
    columns = [*HEAD, *names, "notes"]
    return columns, [{column: row.get(column) for column in columns} for row in rows]


def _parts(snapshot: Snapshot) -> list[Row]:
    rows: list[Row] = [{"scope": "overall", "part": None, **snapshot.overall, "notes": "; ".join(snapshot.notes)}]
    rows += [{"scope": "kind", "part": name, **each} for name, each in snapshot.kinds.items()]
    rows += [{"scope": "tensor", "part": name, **each} for name, each in snapshot.tensors.items()]
    return rows
