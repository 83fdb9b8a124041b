"""Error rates and coverage of verdicts on unpaired runs, by simulation; prints a Markdown table.

    python benchmarks/unpaired.py --studies 20000

The column "judge" is `fairtrial.judge_unpaired` at alpha = 5% over all arms; beside it are Welch's and Student's tests,
each at alpha over the number of arms. Spreads are standard deviations of the reference's runs, then of the arms'.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from fairtrial.stats.welch import critical, satterthwaite
from stats import NOISE

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

ALPHA = 0.05


@dataclass(frozen=True)
class World:
    """Runs of a reference and of some arms, all alike: their numbers, spreads and noise."""

    reference: int  # runs of the reference
    each: int  # runs of each arm
    ratio: float = 1.0  # spread of the arms' runs over that of the reference's
    arms: int = 1
    noise: str = "normal"

    def draw(self, rng: np.random.Generator, studies: int) -> tuple[Array, Array, Array, Array]:
        """Means (studies, arms) and (studies, 1), and variances of means alike."""
        draw = NOISE[self.noise]
        arms, base = draw(rng, (studies, self.arms, self.each)), draw(rng, (studies, 1, self.reference))
        arms *= self.ratio
        parts = [runs.var(axis=2, ddof=1) / runs.shape[2] for runs in (arms, base)]
        return arms.mean(axis=2), base.mean(axis=2), parts[0], parts[1]


def half_widths(world: World, arm: Array, base: Array) -> dict[str, Array]:
    """Half the widths of three intervals, from the squared standard errors of both means."""
    ours, theirs, level = world.each - 1, world.reference - 1, ALPHA / world.arms
    square = arm + base
    share = arm / square
    pooled = (arm * world.each * ours + base * world.reference * theirs) / (ours + theirs)
    student = pooled * (1 / world.each + 1 / world.reference)
    return {
        "judge": critical(ours, theirs, share, level) * np.sqrt(square),
        "Welch": -special.stdtrit(satterthwaite(ours, theirs, share), level / 2) * np.sqrt(square),
        "Student": -special.stdtrit(ours + theirs, level / 2) * np.sqrt(student),
    }


def percent(hits: Bools) -> str:
    """A rate with its standard error."""
    rate = float(np.mean(hits))
    return f"{100 * rate:.2f} ± {100 * np.sqrt(rate * (1 - rate) / len(hits)):.2f}"


def rates(world: World, studies: int, seed: int) -> dict[str, Bools]:
    """Which studies err: in some false difference by each method, and in some false "equivalent".

    For the latter, all arms differ by exactly the margin, which is three times the larger standard error.
    """
    arms, bases, arm, base = world.draw(np.random.default_rng(seed), studies)
    mean, halves = arms - bases, half_widths(world, arm, base)
    found = {name: (np.abs(mean) > half).any(axis=1) for name, half in halves.items()}
    margin = 3.0 * np.sqrt(max(world.ratio**2 / world.each, 1.0 / world.reference))
    found["equivalent"] = (np.abs(mean + margin) + halves["judge"] <= margin).any(axis=1)
    return found


def worlds() -> Iterator[World]:
    """The rows of the table."""
    for numbers in ((3, 3), (5, 5), (12, 12), (3, 5), (5, 12), (3, 12), (12, 3)):
        for ratio in (1.0, 2.0, 5.0, 10.0, 0.5, 0.2, 0.1):
            if numbers[0] != numbers[1] or ratio >= 1.0:  # the others are mirrored
                yield World(*numbers, ratio=ratio)
    for arms in (2, 5):
        for numbers in ((3, 3), (5, 5), (3, 12), (12, 3)):
            for ratio in (1.0, 5.0, 0.2):
                yield World(*numbers, ratio=ratio, arms=arms)
    for noise in NOISE:
        for numbers, ratio in (((5, 5), 1.0), ((5, 5), 5.0), ((3, 12), 1.0), ((3, 12), 5.0), ((3, 12), 0.2)):
            if noise != "normal":
                yield World(*numbers, ratio=ratio, noise=noise)


def main() -> None:
    """Print the table of docs/evidence.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=20_261_126)
    options = parser.parse_args()
    print("| noise | runs: reference, arms | spread | any false better or worse, %: judge | Welch | Student | ", end="")
    print("any false equivalent, % |\n|---|---|---|---|---|---|---|")
    for world in worlds():
        found = rates(world, options.studies, options.seed)
        runs = (
            f"{world.reference}, {world.arms} × {world.each}" if world.arms > 1 else f"{world.reference}, {world.each}"
        )
        cells = [world.noise, runs, f"1 : {world.ratio:g}"]
        cells += [percent(found[name]) for name in ("judge", "Welch", "Student", "equivalent")]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
