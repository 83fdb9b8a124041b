"""Move the replication of the study `paper` between machines: it takes longer than most machines are at hand.

    python benchmarks/replication.py save STORE        # the store's finished trials into docs/replication
    python benchmarks/replication.py restore STORE     # those into a new store, for `fairtrial run` to go on with
    fairtrial run paper --set 'seeds={min=3, max=15}' --workers 2 --store STORE --force

The trials come from machines with different processors: `--force` goes on all the same, and the verdicts say so.
Three studies looked at these trials, in this order, and the restored store knows it: three seeds, whose results were
published; 3 to 12 seeds, of which seven were published; and 3 to 15 seeds. The first two spend the error rate, so
the verdicts are those of the second, and what the third adds is exploratory.
"""

import argparse
import dataclasses
import json
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import fairtrial
from fairtrial.provenance import RunConditions
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.store.base import Writer, add_result
from fairtrial.store.sql import SQLStore
from fairtrial.trial import EpochRecord, Machine, Outcome, Trial, TrialResult

FOLDER = Path(__file__).parents[1] / "docs" / "replication"
STUDY = "seeds={min=3, max=15}"
#: The studies that looked, each with the day before which it trained its trials.
LOOKED = {"seeds=3": "2026-11-25", "seeds={min=3, max=12}": "2026-11-25", STUDY: "2026-12-01"}


def save(store: str, folder: Path) -> int:
    """Write every finished trial as one row: arm, seed, times, and machine, fingerprints and epochs as JSON."""
    with SQLStore(store, create=False) as opened:
        finished = [one for one in opened.results(_study(STUDY)) if one.outcome is Outcome.FINISHED]
    pq.write_table(pa.Table.from_pylist([_row(one) for one in finished]), folder / "trials.parquet")
    return len(finished)


def restore(store: str, folder: Path) -> int:
    """Write the rows of `save` into a store, as if they had been trained there, by force where machines differ."""
    rows = {(row["arm"], row["seed"]): row for row in pq.read_table(folder / "trials.parquet").to_pylist()}
    written, conditions = 0, RunConditions([])
    with SQLStore(store) as opened:
        for seeds, end in LOOKED.items():
            study = _study(seeds)
            new = [
                trial for trial in plan(study) if rows.get((trial.arm, trial.seed), {"started": end})["started"] < end
            ]
            new.sort(key=lambda trial: rows[trial.arm, trial.seed]["started"])
            at = datetime.fromisoformat(rows[new[0].arm, new[0].seed]["started"])
            opened.add_study(study, at)
            opened.register(study, at)
            for trial in new:
                row = rows.pop((trial.arm, trial.seed))
                machine = Machine(**json.loads(row["machine"]))
                forced = "; ".join(conditions.differences(trial, machine))
                conditions.add(trial.arm, trial.seed, machine)
                opened.write(partial(_write, trial=trial, row=row, machine=machine, forced=forced))
            written += len(new)
    return written


def _study(seeds: str) -> Study:
    return fairtrial.load("paper", [seeds])


def _row(result: TrialResult) -> dict[str, Any]:
    return {
        "arm": result.arm,
        "seed": result.seed,
        "started": result.started.isoformat(),
        "ended": result.ended.isoformat() if result.ended else None,
        "machine": json.dumps(dataclasses.asdict(result.machine)),
        "fingerprints": json.dumps(dict(result.fingerprints)),
        "epochs": json.dumps([dict(record.metrics) for record in result.epochs]),
    }


def _write(writer: Writer, trial: Trial, row: dict[str, Any], machine: Machine, forced: str) -> None:
    started, ended = (datetime.fromisoformat(row[key]) for key in ("started", "ended"))
    metrics = enumerate(json.loads(row["epochs"]), start=1)
    result = TrialResult(
        arm=trial.arm,
        seed=trial.seed,
        trial=trial.hash,
        outcome=Outcome.FINISHED,
        detail="",
        started=started,
        ended=ended,
        machine=machine,
        epochs=tuple(EpochRecord(trial.arm, trial.seed, epoch, own) for epoch, own in metrics),
        fingerprints=json.loads(row["fingerprints"]),
        forced=forced,
    )
    add_result(writer, trial, result, f"restored-{trial.hash[:8]}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("direction", choices=["save", "restore"])
    parser.add_argument("store", help="a database file or URL")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where trials.parquet is")
    options = parser.parse_args()
    number = (save if options.direction == "save" else restore)(options.store, options.folder)
    print(f"{number} trials")


if __name__ == "__main__":
    main()
