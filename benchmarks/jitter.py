"""How fast the accuracy's jitter decorrelates, and what averaging gains: one arm, twelve seeds, about half an hour.

    python benchmarks/jitter.py

prints the figures of docs/evidence.md's section on jitter; the runs are kept in jitter.db.
"""

import numpy as np
import numpy.typing as npt

import fairtrial as ft
from fairtrial.measures import within_last_epoch

FloatArray = npt.NDArray[np.float64]
METRIC = "test_acc"
STUDY = {
    "name": "within-the-last-epoch",
    "reference": "default",
    "seeds": 12,
    "data": {"name": "cifar10", "train": 5000, "test": 2000},
    "training": {"epochs": 10, "evaluations_last_epoch": 5, "ema": 0.99},
    "evidence": {"metric": f"final_{METRIC}"},
    "arms": {"default": {}},
}


def variance(values: FloatArray) -> float:
    """Variance between seeds, of each column, on average over the columns; values are (seeds,) or (seeds, columns)."""
    return float(np.mean(np.var(values, axis=0, ddof=1)))


def jitter(values: FloatArray, lag: int) -> float:
    """Half the variance of what a run changes by between evaluations so far apart: jitter, if they are independent."""
    return variance(values[:, lag:] - values[:, :-lag]) / 2


def figures(within: FloatArray, epochs: FloatArray, averaged: FloatArray) -> dict[str, float]:
    """Compute all figures: evaluations in the last epoch (seeds, 5), at the ends of epochs, and of averaged weights."""
    far = np.mean([jitter(within, lag) for lag in (2, 3, 4)])
    return {
        "correlation of neighboring evaluations": 1 - jitter(within, 1) / float(far),
        "variance of their mean, over that of one": variance(within.mean(axis=1)) / variance(within),
        "of the mean of three epochs": variance(epochs[:, -3:].mean(axis=1)) / variance(epochs[:, -3:]),
        "of averaged weights": variance(averaged) / variance(within),
        "mean within the last epoch minus final": float((within.mean(axis=1) - within[:, -1]).mean()),
        "averaged weights minus final": float((averaged - within[:, -1]).mean()),
    }


def main() -> None:
    """Train, and print each figure with a bootstrap interval over seeds."""
    runs = [result.epochs for result in ft.run(ft.Study.from_dict(STUDY), store="jitter.db").results]
    tables = (
        np.array([within_last_epoch(epochs, METRIC) for epochs in runs]),
        np.array([[one.metrics[METRIC] for one in epochs] for epochs in runs]),
        np.array([epochs[-1].metrics[f"ema_{METRIC}"] for epochs in runs]),
    )
    random, number = np.random.default_rng(0), len(runs)
    draws = [random.integers(0, number, number) for _ in range(2000)]
    samples = [figures(*(table[draw] for table in tables)) for draw in draws]
    for name, value in figures(*tables).items():
        low, high = np.percentile([sample[name] for sample in samples], [2.5, 97.5])
        print(f"{name}: {value:.4f} (95% interval {low:.4f} to {high:.4f})")


if __name__ == "__main__":
    main()
