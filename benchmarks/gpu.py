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
from pathlib import Path

import torch

import fairtrial
from fairtrial.scheduler import plan
from fairtrial.training import devices, loop
from fairtrial.trial import Trial, TrialContext, Turn

STUDY = {
    "name": "rates",
    "reference": "baseline",
    "data": {"name": "gpu_images:random_images"},
    "model": {"name": "mobilenet_v2", "stem": "stock"},
    "training": {"epochs": 50, "batch_size": 64},
    "arms": {
        "baseline": {},
        "high_beta1": {"optimizer": {"betas": [0.95, 0.999]}},
        "low_beta2": {"optimizer": {"betas": [0.9, 0.99]}},
        "large_eps": {"optimizer": {"eps": 1e-6}},
    },
}


def trials(count: int, **training: object) -> list[Trial]:
    """Make trials of the paper's network that differ in arm and seed."""
    table = STUDY | {"seeds": -(-count // 4), "training": STUDY["training"] | training}
    return list(plan(fairtrial.Study.from_dict(table)))[:count]


def rate(count: int, seconds: float, **training: object) -> dict[str, float]:
    """Let trials take turns for some seconds, once all have recorded their steps; returns what was measured."""
    on_gpu = devices.choose_device().type == "cuda"
    begun = time.perf_counter()
    running = []
    for trial in trials(count, **training):
        running.append(loop.train(TrialContext(trial, in_turns=True, xray=False)))
        for _ in range(4):
            next(running[-1])
    _wait(on_gpu)
    ready = time.perf_counter() - begun
    _turns(running, seconds / 4, on_gpu)
    start = time.perf_counter()
    steps, asleep = _turns(running, seconds, on_gpu)
    took = time.perf_counter() - start
    gib = torch.cuda.memory_reserved() / 2**30 if on_gpu else 0.0
    for one in running:
        one.close()
    running.clear()
    if on_gpu:
        torch.cuda.empty_cache()
    measured = {"trials": count, "steps_per_second": steps / took, "gib": gib, "gib_per_trial": gib / count}
    return measured | {"python_waited": asleep / took, "ready_seconds": ready}


def _turns(running: list, seconds: float, on_gpu: bool) -> tuple[int, float]:
    """Give each trial its turn for some seconds; returns steps, and the seconds in which all had to wait."""
    until = time.perf_counter() + seconds
    steps, asleep = 0, 0.0
    while time.perf_counter() < until:
        items = [next(one) for one in running]
        steps += items.count(Turn.OVER)
        if items.count(Turn.WAITS) == len(items):
            before = time.perf_counter()
            time.sleep(0.0001)
            asleep += time.perf_counter() - before
    _wait(on_gpu)
    return steps, asleep


def _wait(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def rates(counts: list[int], seconds: float) -> None:
    """Print steps a second for numbers of trials side by side, and for other precisions."""
    for count in counts:
        print(json.dumps({"precision": "float32", **rate(count, seconds)}), flush=True)
    best = 16 if 16 in counts else counts[-1]
    for precision in ("tf32", "bf16") if len(counts) > 1 else ():
        try:
            print(json.dumps({"precision": precision, **rate(best, seconds, precision=precision)}), flush=True)
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
