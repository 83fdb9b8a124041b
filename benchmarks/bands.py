"""How often the band of a sensitivity curve misses, and how wide it is; a minute on one core.

python benchmarks/bands.py --studies 2000

Seven values of a setting, the first one the reference, whose true means are flat, have a hump or fall off a cliff. The
runs are normal; where spreads are unequal, the last value's is three times that of the others. `smoothed` is the share
of studies whose band leaves out, somewhere, what the same smoothing makes of the true means: the error that the band
is for. `true` is the share in which it leaves out the true means themselves, somewhere between the first value and the
last. `width` is the band's over that of the interpolated intervals of the single values, on average.
"""

import argparse
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sensitivity import project, smoothing, spline_weights
from fairtrial.stats.sequential import judge_many
from fairtrial.stats.variance import FloatArray

Truth: TypeAlias = Callable[[FloatArray], FloatArray]

PLACES = np.arange(7.0)
FINE = np.linspace(0.0, 6.0, 121)
TRUTHS: dict[str, Truth] = {
    "flat": lambda x: 0.0 * x,
    "hump": lambda x: -0.5 * (x - 3.0) ** 2,
    "cliff": lambda x: -4.0 / (1.0 + np.exp(-3.0 * (x - 4.0))),
}


def misses(truth: Truth, seeds: int, last: float, studies: int) -> tuple[float, float, float]:
    """Shares of studies whose band misses the smoothed and the true means, and its relative width."""
    rng = np.random.default_rng(0)
    spread = np.where(PLACES[-1] == PLACES, last, 1.0)
    runs = truth(PLACES) + spread * rng.standard_normal((studies, seeds, len(PLACES)))
    judged = judge_many(runs[..., 1:] - runs[..., :1], LookPlan.of(len(PLACES) - 1, [seeds]), 0.05)
    means, halves = (np.insert(array, 0, 0.0, axis=1) for array in (judged.mean, judged.half_width))
    at_places, everywhere = (truth(places) - truth(PLACES[:1]) for places in (PLACES, FINE))
    found = []
    for mean, half, sd in zip(means, halves, judged.sd, strict=True):
        weights = spline_weights(PLACES, FINE, smoothing(PLACES, mean, float(np.mean(sd**2)) / seeds / 2))
        low, high = project(weights, np.stack([mean - half, mean + half], axis=-1))
        missed = [((line < low - 1e-9) | (line > high + 1e-9)).any() for line in (weights @ at_places, everywhere)]
        found.append([*missed, (high - low).mean() / (2.0 * np.interp(FINE, PLACES, half)).mean()])
    smoothed, true, width = np.mean(found, axis=0)
    return float(smoothed), float(true), float(width)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    studies = parser.parse_args().studies
    print("| true means | spreads | seeds | smoothed | true | width |\n|---|---|---|---|---|---|")
    for name, truth in TRUTHS.items():
        for last, words in ((1.0, "equal"), (3.0, "unequal")):
            for seeds in (3, 5, 10):
                smoothed, true, width = misses(truth, seeds, last, studies)
                print(f"| {name} | {words} | {seeds} | {smoothed:.1%} | {true:.1%} | {width:.2f} |", flush=True)


if __name__ == "__main__":
    main()
