"""What the benchmarks share: the images, running sides in turn, and printing ratios."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from fairtrial.training import datasets
from fairtrial.training.datasets.cifar10 import Cifar10

SIDES = Path(__file__).parent / "sides"


@contextmanager
def arrays(train: int, test: int) -> Iterator[Path]:
    """Write CIFAR-10 subsets, the ones that a study of this size takes, where other programs can read them."""
    dataset = datasets.load(Cifar10(train=train, test=test))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        parts = {"train": dataset.train, "test": dataset.test}
        named = {}
        for name, part in parts.items():
            images, labels = part.batch(torch.arange(len(part)))
            named[f"x_{name}"] = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
            named[f"y_{name}"] = labels.numpy()
        np.savez(path, **named)
        yield path


def options(description: str | None, *, train: int) -> argparse.Namespace:
    """Read the sizes that every benchmark takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=train, help="training images an arm")
    parser.add_argument("--test", type=int, default=2_000, help="test images an arm")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keras-python", default=sys.executable, help="interpreter that has keras and tensorflow-cpu")
    return parser.parse_args()


def main(description: str | None, rivals: Sequence[str], *, arms: int, workers: int, threads: int, train: int) -> None:
    """Run fairtrial and its rivals in turn, and print the ratios.

    Args:
        description: what ``--help`` says.
        rivals: of ``"keras_fit"`` and ``"torch_loop"``.
        arms: how many of the paper's arms are trained.
        workers: fairtrial's worker processes.
        threads: threads of each.
        train: training images an arm, unless the user says otherwise.
    """
    chosen = options(description, train=train)
    shared = ("--epochs", chosen.epochs, "--arms", arms)
    pool = ("--workers", workers, "--threads", threads)
    with arrays(chosen.train, chosen.test) as path:
        sides = {
            name: side(
                name, "--arrays", path, *shared, python=chosen.keras_python if "keras" in name else sys.executable
            )
            for name in rivals
        }
        sides["fairtrial"] = side("fairtrial_study", "--train", chosen.train, "--test", chosen.test, *shared, *pool)
        report(compare(sides, chosen.rounds), ours="fairtrial")


def side(name: str, *words: object, python: str = sys.executable) -> list[str]:
    """Write the command that runs one side."""
    return [python, str(SIDES / f"{name}.py"), *map(str, words)]


def compare(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[dict]]:
    """Run every side once a round, in turn, and print its images a second as it comes."""
    print(f"{platform.platform()}, {os.cpu_count()} cores; {rounds} rounds, sides in turn", flush=True)
    results: dict[str, list[dict]] = {name: [] for name in commands}
    for number in range(1, rounds + 1):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            result = json.loads(done.stdout.splitlines()[-1])
            results[name].append(result)
            rate = result["images"] / result["seconds"]
            print(f"round {number}  {name:24} {result['seconds']:7.1f} s  {rate:7.0f} images/s", flush=True)
    return results


def report(results: Mapping[str, Sequence[Mapping]], ours: str) -> None:
    """Print each side's median throughput, and ours as a multiple of it, round by round."""
    rates = {name: [r["images"] / r["seconds"] for r in runs] for name, runs in results.items()}
    for name, runs in results.items():
        losses = ", ".join(f"{loss:.3f}" for loss in runs[-1]["losses"])
        print(
            f"{name:24} median {statistics.median(rates[name]):7.0f} images/s  {runs[-1]['versions']}  losses {losses}"
        )
    for name in results:
        if name != ours:
            ratios = [mine / theirs for mine, theirs in zip(rates[ours], rates[name], strict=True)]
            print(
                f"{ours} / {name}: median {statistics.median(ratios):.2f} times, "
                f"from {min(ratios):.2f} to {max(ratios):.2f}"
            )
