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
from collections.abc import Iterator
from pathlib import Path

import fairtrial

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


def trials(count: int, **training: object) -> list[object]:
    """Make trials of the paper's network that differ in arm and seed."""
    from fairtrial.scheduler import plan

    table = STUDY | {"seeds": -(-count // 4), "training": STUDY["training"] | training}
    return list(plan(fairtrial.Study.from_dict(table)))[:count]


def rate(count: int, seconds: float, **training: object) -> dict[str, float]:
    """Let trials take turns for some seconds, once all have settled; returns what was measured."""
    import torch

    from fairtrial.training import devices, loop
    from fairtrial.trial import TrialContext, Turn

    device = devices.choose_device()
    on_gpu = device.type == "cuda"
    begun = time.perf_counter()
    running: list[Iterator[object]] = []
    for trial in trials(count, **training):
        context = TrialContext(trial, in_turns=True, xray=False)
        running.append(loop.train(context))
        for _ in range(4):
            next(running[-1])
    if on_gpu:
        torch.cuda.synchronize()
    ready = time.perf_counter() - begun

    def turns(until: float) -> int:
        steps = 0
        while time.perf_counter() < until:
            worked = False
            for one in running:
                item = next(one)
                steps += item is Turn.OVER
                worked |= item is not Turn.WAITS
            if not worked:
                time.sleep(0.0001)
        if on_gpu:
            torch.cuda.synchronize()
        return steps

    turns(time.perf_counter() + seconds / 4)
    start = time.perf_counter()
    steps = turns(start + seconds)
    took = time.perf_counter() - start
    gib = torch.cuda.memory_reserved() / 2**30 if on_gpu else 0.0
    for one in running:
        one.close()
    running.clear()
    if on_gpu:
        torch.cuda.empty_cache()
    return {
        "trials": count,
        "steps_per_second": steps / took,
        "gib": gib,
        "gib_per_trial": gib / count,
        "ready_s": ready,
    }


def rates(counts: list[int], seconds: float) -> None:
    """Print steps a second for numbers of trials side by side, and for other precisions."""
    for count in counts:
        print(json.dumps({"precision": "float32", **rate(count, seconds)}), flush=True)
    best = 16 if 16 in counts else counts[-1]
    for precision in ("tf32", "bf16"):
        try:
            print(json.dumps({"precision": precision, **rate(best, seconds, precision=precision)}), flush=True)
        except fairtrial.FairtrialError as error:
            print(f"{precision}: {error}")


def digests(counts: list[int], again: bool) -> bool:
    """Run one study with so many trials side by side; returns whether all digests are equal."""
    overrides = ["seeds=4", "training.epochs=2", "data.train=600", "data.test=300"]
    study = fairtrial.load("paper", [*overrides, 'data.name="digits"'])
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, count in enumerate([*counts, *([counts[-1]] if again else [])]):
            begun = time.perf_counter()
            executor = fairtrial.CudaExecutor(count)
            runs = fairtrial.run(study, store=Path(folder) / f"{number}.db", executor=executor)
            took = time.perf_counter() - begun
            found[number] = runs.digest()
            outcomes = [str(one.outcome) for one in runs.results]
            failures = [one.detail for one in runs.results if one.detail][:1]
            line = {
                "trials_per_gpu": count,
                "digest": found[number],
                "seconds": took,
                "finished": outcomes.count("finished"),
            }
            print(json.dumps(line), *failures, flush=True)
    return len(set(found.values())) == 1


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
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    if given.what == "rates":
        rates(given.counts or [1, 4, 8, 16, 32], given.seconds)
    elif not digests(given.counts or [1, 4, 16], again=True):
        sys.exit("the digests differ")


if __name__ == "__main__":
    main()
