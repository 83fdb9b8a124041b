"""Print how often runs are named as far from the others of their arm although all come from one distribution.

    python benchmarks/outliers.py --studies 20000

Each study looks after every seed from 3 to 12, and counts if any look names a run. Spreads are those of the arms; the
long tail of skewed noise is on the worse side, as if there were rare bad runs.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fairtrial.stats.outliers import find_outliers

Draw = Callable[[tuple[int, ...]], npt.NDArray[np.float64]]


def named(draw: Draw, spreads: Sequence[float], studies: int) -> float:
    """Share of studies in which some look names a run."""
    found = 0
    for _ in range(studies):
        runs = draw((12, len(spreads))) * spreads
        found += any(_names(runs[:seeds]) for seeds in range(3, 13))
    return found / studies


def _names(runs: npt.NDArray[np.float64]) -> bool:
    values = {(str(arm), seed): float(value) for (seed, arm), value in np.ndenumerate(runs)}
    outliers = find_outliers(values, larger_is_better=True)
    return bool(outliers.behind or outliers.ahead)


def main() -> None:
    """Print the table of docs/evidence.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=20_000)
    studies = parser.parse_args().studies
    rng = np.random.default_rng(20_261_126)
    noises: dict[str, Draw] = {
        "normal": rng.standard_normal,
        "t, 3 df": lambda shape: rng.standard_t(3, shape),
        "exponential": lambda shape: -rng.standard_exponential(shape),
        "lognormal": lambda shape: -rng.lognormal(size=shape),
    }
    cases = [("normal", [1.0] * arms) for arms in (2, 3, 5, 11)]
    cases += [("normal", [1.0, ratio, 1.0, 1.0, 1.0]) for ratio in (3.0, 10.0)]
    cases += [(noise, [1.0] * 5) for noise in noises if noise != "normal"]
    for noise, spreads in cases:
        share = named(noises[noise], spreads, studies)
        error = (share * (1 - share) / studies) ** 0.5
        text = " : ".join(f"{spread:g}" for spread in spreads)
        print(f"{noise}, spread {text}: {100 * share:.2f} ± {100 * error:.2f}%", flush=True)


if __name__ == "__main__":
    main()
