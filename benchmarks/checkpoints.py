"""What saving checkpoints costs a study of one-second epochs: by default, and after every epoch, as it once was.

    python benchmarks/checkpoints.py --rounds 5

One trial of MobileNetV2 with Adam, whose checkpoints have 27 MB, is trained in this process with each kind of saving
in turn, by one thread. Two figures: the time spent in `trial.save` as a share of the trial's (of use on a busy machine,
too), and how much longer the trial took than the one of its round that saves nothing. Choose --images for epochs of
about a second. All kinds must end in the same weights.
"""

import argparse
import os
import platform
import statistics
import tempfile
from time import perf_counter

import torch

import fairtrial
from fairtrial.checkpoints import CheckpointManager
from fairtrial.executors.base import Fingerprinted, run_trial
from fairtrial.scheduler import plan
from fairtrial.training import loop
from fairtrial.trial import Machine, Trial

NOTHING, DEFAULT, EVERY = "saves nothing", "by default", "every epoch"


def make_trial(images: int, epochs: int, training: dict[str, float]) -> Trial:
    """Make a trial of so many images an epoch."""
    study = fairtrial.Study(
        name="checkpoints",
        reference="a",
        data={"name": "digits", "train": images, "test": 64},
        training={"epochs": epochs} | training,
        arms={"a": {}},
    )
    return plan(study)[0]


def train(trial: Trial, checkpoints: CheckpointManager | None) -> tuple[float, float, str]:
    """Train once; return the seconds, those spent in saving, and the digest of the final weights."""
    attempt, saving = checkpoints.open(trial) if checkpoints else None, 0.0
    if attempt is not None:
        save = attempt.save

        def timed(state: object) -> None:
            nonlocal saving
            begun = perf_counter()
            save(state)
            saving += perf_counter() - begun

        attempt.save = timed
    started = perf_counter()
    messages = list(run_trial(trial, loop.train, Machine({}, "", "cpu", 1, ""), attempt))
    seconds = perf_counter() - started
    if checkpoints:
        checkpoints.remove(trial)
    fingerprints = [message.fingerprints for message in messages if isinstance(message, Fingerprinted)]
    return seconds, saving, fingerprints[-1]["final_weights"]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=900, help="training images an epoch, at most 1437")
    parser.add_argument("--folder", help="where to save; by default a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    plain, every = (make_trial(options.images, options.epochs, key) for key in ({}, {"checkpoint_seconds": 0}))
    costs: dict[str, list[tuple[float, float]]] = {DEFAULT: [], EVERY: []}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        sides = {
            NOTHING: (plain, None),
            DEFAULT: (plain, CheckpointManager(folder)),  # one for all trials, as in a worker
            EVERY: (every, CheckpointManager(folder)),
        }
        train(make_trial(options.images, 1, {}), None)  # warm up
        for number in range(1, options.rounds + 1):
            done = {name: train(*side) for name, side in sides.items()}
            if len({weights for *_, weights in done.values()}) != 1:
                raise SystemExit("the weights differ")
            whole = done[NOTHING][0]
            print(f"round {number}  {whole / options.epochs:.2f} s an epoch", end="")
            for name, of_all in costs.items():
                seconds, saving, _ = done[name]
                of_all.append((saving / seconds, seconds / whole - 1))
                print(f"; {name}: {saving:.2f} of {seconds:.1f} s, {of_all[-1][1]:+.1%}", end="")
            print(flush=True)
    for name, of_all in costs.items():
        for what, figures in zip(("in trial.save", "longer"), zip(*of_all, strict=True), strict=True):
            median, low, high = statistics.median(figures), min(figures), max(figures)
            print(f"{name:12} {what:14} median {median:.1%}, from {low:.1%} to {high:.1%}")


if __name__ == "__main__":
    main()
