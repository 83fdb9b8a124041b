"""Judge a large CSV file in little memory: how long it takes, and how much memory it needs.

    python benchmarks/large_table.py --gib 2

writes a file in which each row is an epoch, beside columns that nobody asks for, and judges it in a process of its own.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ARMS, SEEDS = ("adam", "adamw", "sgd", "rmsprop"), 10
JUDGE = """
import resource, sys
import fairtrial as ft
view = ft.judge_runs(
    sys.argv[1], arm="optimizer", seed="seed", epoch="step", measure=sys.argv[2], reference="adam"
)
print([f"{row.arm} {row.verdict.value}" for row in view.data.comparisons])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**10, "MiB at most")
"""


def write(path: Path, size: int) -> int:
    """Write a file of about so many bytes; returns its number of rows."""
    rng, steps, rows = np.random.default_rng(0), 1_000, 0
    with path.open("w") as file:
        file.write("optimizer,seed,step,lr,train_loss,test_acc,note\n")
        for first in range(0, 10**9, steps):
            for arm, name in enumerate(ARMS):
                for seed in range(SEEDS):
                    values = 0.8 + 0.002 * arm + 0.01 * rng.standard_normal(steps)
                    file.writelines(
                        f"{name},{seed},{first + step},0.00{arm},{1 - value:.6f},{value:.6f},node-{seed}.example\n"
                        for step, value in enumerate(values)
                    )
                    rows += steps
            if file.tell() >= size:
                return rows
    return rows


def main() -> None:
    """Write the file and judge it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=2.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        rows = write(path, int(asked.gib * 2**30))
        print(f"{path.stat().st_size / 2**30:.2f} GiB, {rows:,} rows")
        for measure in ("final_test_acc", "best_test_acc"):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", JUDGE, str(path), measure], check=True)
            print(f"{measure}: {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
