"""Draw a chart of records that a study has exported as Parquet, without training or a store.

    python benchmarks/pictures.py docs/schedules.parquet differences docs/schedules.svg
    python benchmarks/pictures.py docs/sensitivity.parquet sensitivity docs/sensitivity.svg

The file has the study with its records. What a store knows beside them, such as fingerprints and when a margin was set,
it has not; so a picture is as exploratory as the verdicts of `fairtrial verdict` on a study that was never registered.
"""

import argparse
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

import fairtrial
from fairtrial.report.charts import draw, write
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.trial import EpochRecord, Machine, Outcome, TrialResult

MACHINE = Machine(versions={}, processor="", device="cpu", threads=1, system="")


def read(path: Path) -> tuple[Study, list[TrialResult]]:
    """Read a study and its results, in the order of its plan."""
    table = pq.read_table(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.toml"
        file.write_bytes(table.schema.metadata[b"fairtrial.study"])
        study = fairtrial.load(file)
    columns = ("study", "hash", "arm", "seed", "epoch", "outcome")
    rows: dict[tuple[str, int], list[dict[str, object]]] = {}
    for row in table.to_pylist():
        rows.setdefault((row["arm"], row["seed"]), []).append(row)
    now, results = datetime.now(UTC), []
    for trial in plan(study):
        own = rows.get((trial.arm, trial.seed), [])
        if not own:
            continue
        epochs = tuple(
            EpochRecord(trial.arm, trial.seed, row["epoch"], {k: v for k, v in row.items() if k not in columns})
            for row in own
        )
        outcome = Outcome(own[0]["outcome"]) if own[0]["outcome"] else None
        results.append(TrialResult(trial.arm, trial.seed, trial.hash, outcome, "", now, now, MACHINE, epochs))
    return study, results


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, help="a file of fairtrial export --format parquet")
    parser.add_argument("chart", help="such as differences")
    parser.add_argument("picture", type=Path, help="where to write: a PNG, SVG or PDF")
    options = parser.parse_args()
    (figure,) = draw([options.chart], *read(options.records))
    with tempfile.TemporaryDirectory() as folder:
        paths = {path.suffix: path for path in write(figure, Path(folder))}
        options.picture.write_bytes(paths[options.picture.suffix].read_bytes())
    print(options.picture, figure.alt)


if __name__ == "__main__":
    main()
