"""Measure what bfloat16 changes at one and the same weights, and what a step costs on this CPU.

    python benchmarks/precision.py weights --out same-weights.csv
    python benchmarks/precision.py steps --out steps.csv
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/precision.py steps      # as on an older processor

For each seed the paper's baseline trains in float32. At some steps the same weights are looked at in several
precisions: the gradient of one batch, against the same in float64, and the test accuracy with recomputed statistics of
batch norm. Times are CPU time of one thread, so that other work on the machine counts little.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from fairtrial import Study
from fairtrial.scheduler import plan
from fairtrial.training import datasets
from fairtrial.training.allocator import keep_freed_memory
from fairtrial.training.averages import recalibrated
from fairtrial.training.evaluation import RECALIBRATION_BATCHES, evaluate
from fairtrial.training.learner import Learner

PRECISIONS = ("float32", "bf16")
BATCH = 64


def study(precision: str, seeds: int, train: int, test: int) -> Study:
    """Make the paper's baseline in a precision."""
    return Study.from_dict(
        {
            "name": "same-weights",
            "reference": "baseline",
            "seeds": seeds,
            "data": {"name": "cifar10", "train": train, "test": test},
            "model": {"name": "mobilenet_v2"},
            "training": {"epochs": 1, "batch_size": BATCH, "precision": precision},
            "arms": {"baseline": {}},
        }
    )


def gradient(learner: Learner, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient of a batch's loss as one float64 vector, without a trace in the network."""
    buffers = [buffer.clone() for buffer in learner.network.buffers()]
    learner.optimizer.zero_grad()
    learner.objective.loss(learner.network(inputs), labels).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for buffer, before in zip(learner.network.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return torch.cat([one.grad.flatten().double() for one in learner.network.parameters() if one.grad is not None])


def looks(seed: int, at: list[int], train: int, test: int) -> Iterator[dict[str, float]]:
    """Train at a seed in float32, and compare precisions after some of its steps."""
    trials = {name: plan(study(name, seed + 1, train, test))[seed] for name in PRECISIONS}
    data = datasets.load(trials["float32"].settings.data, verify=False)
    learners = {name: Learner.build(trial, data) for name, trial in trials.items()}
    exact = Learner.build(trials["float32"], data, fast=False)
    exact.network.double()
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    batches = torch.split(order, BATCH)
    for step in range(max(at) + 1):
        if step in at:
            for learner in (learners["bf16"], exact):
                learner.network.load_state_dict(learners["float32"].network.state_dict())
            yield (
                {"seed": seed, "step": step}
                | _gradients(learners, exact, data, batches)
                | _accuracies(learners, data, batches)
            )
        learners["float32"].step(*data.train.batch(batches[step % len(batches)]))


def _gradients(
    learners: dict[str, Learner], exact: Learner, data: datasets.Dataset, order: Sequence[Tensor]
) -> dict[str, float]:
    """Compare the gradient of a batch with that in float64: cosine, and norm of the difference over its norm."""
    (images, labels), another = (data.train.batch(order[-number]) for number in (1, 2))
    right = gradient(exact, images.double(), labels)
    found = {name: gradient(learner, images, labels) for name, learner in learners.items()}
    found["rounded_pixels"] = gradient(learners["float32"], images.bfloat16().float(), labels)
    found["another_batch"] = gradient(learners["float32"], *another)
    cosines = {f"cosine_{name}": float(torch.cosine_similarity(one, right, dim=0)) for name, one in found.items()}
    return cosines | {f"error_{name}": float((one - right).norm() / right.norm()) for name, one in found.items()}


def _accuracies(learners: dict[str, Learner], data: datasets.Dataset, order: Sequence[Tensor]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, learner in learners.items():
        batches = (data.train.batch(rows)[0] for rows in order[:RECALIBRATION_BATCHES])
        with recalibrated(learner.network, batches):
            measured = evaluate(learner.network, data.test, learner.device).read("test")
        found |= {f"{key}_{name}": value for key, value in measured.items()}
    return found


#: What is timed: precision, whether with fairtrial's layers, and whether torch's own depthwise gradients are put back.
KINDS = {
    "float32": ("float32", True, False),
    "float32, torch's layers": ("float32", False, False),
    "bf16": ("bf16", True, False),
    "bf16, torch's depthwise gradients": ("bf16", True, True),
}


def step_times(rounds: int = 5, steps: int = 4) -> Iterator[dict[str, float | str]]:
    """Time steps in each precision, in turn: milliseconds of CPU time, the median over rounds."""
    data = datasets.load(plan(study("float32", 1, 1280, 200))[0].settings.data, verify=False)
    learners = {}
    for kind, (precision, fast, undo) in KINDS.items():
        learners[kind] = Learner.build(plan(study(precision, 1, 1280, 200))[0], data, fast=fast)
        for module in learners[kind].network.modules() if undo else ():
            vars(module).pop("_conv_forward", None)
    batch = data.train.batch(torch.arange(BATCH))
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds + 1):
        for kind, learner in learners.items():
            begun = time.process_time()
            for _ in range(steps):
                learner.step(*batch)
            times[kind].append((time.process_time() - begun) / steps * 1e3)
    instructions = os.environ.get("ONEDNN_MAX_CPU_ISA", "all")
    for kind, all_rounds in times.items():
        yield {"instructions": instructions, "kind": kind, "step_ms": round(statistics.median(all_rounds[1:]), 1)}


def main() -> None:
    """Measure, print, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["weights", "steps"])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--train", type=int, default=12800)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--at", type=int, nargs="+", default=[0, 50, 200], metavar="STEP")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows: list[Mapping[str, float | str]] = []
    if arguments.what == "steps":
        rows += step_times()
        print(*rows, sep="\n")
    for seed in range(arguments.seeds) if arguments.what == "weights" else ():
        for row in looks(seed, arguments.at, arguments.train, arguments.test):
            rows.append(row)
            print(row, flush=True)
    if arguments.out:
        pd.DataFrame(rows).to_csv(arguments.out, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
