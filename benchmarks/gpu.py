"""Measure training on a GPU: steps a second by trials side by side, memory, digests, precision.

    python benchmarks/gpu.py rates            # the paper's network on random images: no data set is needed
    python benchmarks/gpu.py digests          # one study with 1, 4 and 16 trials a GPU, and once more: equal digests
    python benchmarks/gpu.py rates --device cpu --counts 1 2 --seconds 2      # the same code on a CPU

The whole study of the paper is `fairtrial run paper --set seeds=10`.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import fairtrial
from fairtrial.scheduler import plan
from fairtrial.training.bench_gpu import measure_each
from fairtrial.trial import Trial

STUDY = {
    "name": "rates",
    "reference": "baseline",
    "data": {"name": "gpu_images:random_images"},
    "model": {"name": "mobilenet_v2", "stem": "stock"},
    "training": {"epochs": 50, "batch_size": 64},
    "arms": {"baseline": {}},
}


def trial(**training: object) -> Trial:
    """Make a trial of the paper's network."""
    table = STUDY | {"seeds": 1, "training": STUDY["training"] | training}
    return plan(fairtrial.Study.from_dict(table))[0]


def rates(counts: list[int], seconds: float) -> None:
    """Print steps a second for numbers of trials side by side, and for other precisions."""
    for measured in measure_each(trial(), counts, seconds):
        print(json.dumps({"precision": "float32", **asdict(measured)}), flush=True)
    best = 16 if 16 in counts else counts[-1]
    for precision in ("tf32", "bf16") if len(counts) > 1 else ():
        try:
            for measured in measure_each(trial(precision=precision), [best], seconds):
                print(json.dumps({"precision": precision, **asdict(measured)}), flush=True)
        except fairtrial.FairtrialError as error:
            print(f"{precision}: {error}")


def digests(counts: list[int]) -> bool:
    """Run one study with so many trials side by side, and once more; returns whether all digests are equal."""
    overrides = ["seeds=4", "training.epochs=2", "data.train=600", "data.test=300", 'data.name="digits"']
    study = fairtrial.load("paper", overrides)
    found = set()
    with tempfile.TemporaryDirectory() as folder:
        for number, count in enumerate([*counts, counts[-1]]):
            begun = time.perf_counter()
            runs = fairtrial.run(study, store=Path(folder) / f"{number}.db", executor=fairtrial.CudaExecutor(count))
            found.add(runs.digest())
            line = {"trials_per_gpu": count, "digest": runs.digest(), "seconds": time.perf_counter() - begun}
            outcomes = [str(one.outcome) for one in runs.results]
            failures = [one.detail for one in runs.results if one.detail][:1]
            print(json.dumps(line | {"finished": outcomes.count("finished")}), *failures, flush=True)
    return len(found) == 1


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rates", "digests"])
    parser.add_argument("--counts", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--device")
    given = parser.parse_args()
    if given.device:
        os.environ["FAIRTRIAL_DEVICE"] = given.device
    if given.what == "rates":
        rates(given.counts or [1, 4, 8, 16, 32], given.seconds)
    elif not digests(given.counts or [1, 4, 16]):
        sys.exit("the digests differ")


if __name__ == "__main__":
    main()
