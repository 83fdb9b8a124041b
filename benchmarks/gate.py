"""Error rates of the gate, by simulation, and what a gate on every change does over a month; prints Markdown tables.

python benchmarks/gate.py                    # 20,000 gates a row, a minute
python benchmarks/gate.py --gates 2000       # a quick look

Each gate compares a change with its reference seed by seed, and looks after every seed from 3 to 12 until it is
decided. Differences are in margins; the noise of a difference is its standard deviation.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fairtrial.spec.evidence import both_sides
from fairtrial.stats.gate import false_alarms
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sequential import ABOVE, LOWER, UNDECIDED, judge_many

Array = npt.NDArray[np.float64]
Noise = Callable[[np.random.Generator, tuple[int, ...]], Array]

LOOKS, ALPHA, CHANGES = range(3, 13), 0.05, 20

NOISES: dict[str, Noise] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails (t, 3 df)": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
    "skewed up (exponential)": lambda rng, shape: rng.standard_exponential(shape) - 1.0,
    "skewed down (exponential)": lambda rng, shape: 1.0 - rng.standard_exponential(shape),
}


def decide(differences: Array, alpha: float = ALPHA) -> tuple[npt.NDArray[np.int8], Array]:
    """What gates find in differences, (gates, seeds, arms), and the seeds that each arm took."""
    arms = differences.shape[2]
    judged = judge_many(differences, LookPlan.of(arms, LOOKS), both_sides(alpha, arms), 1.0, ABOVE)
    return judged.finding, np.array(LOOKS)[judged.look]


def rates(finding: npt.NDArray[np.int8]) -> list[float]:
    """The shares of gates that pass any arm, call any worse, and leave any undecided."""
    worse, undecided = finding == LOWER, finding == UNDECIDED
    return [float(part.any(axis=1).mean()) for part in (~(worse | undecided), worse, undecided)]


def one_gate(gates: int) -> Iterator[str]:
    """One change: what it truly costs, and what the gate says."""
    yield "| noise | its size | the change costs | passed | worse | undecided | seeds |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, draw in NOISES.items():
        for sd in (0.5, 1.0, 2.0) if name == "normal" else (1.0,):
            for cost in (0.0, 1.0, 2.0, 3.0) if name == "normal" else (0.0, 1.0):
                rng = np.random.default_rng([gates, int(10 * sd), int(10 * cost)])
                found, seeds = decide(draw(rng, (gates, LOOKS[-1], 1)) * sd - cost)
                passed, worse, undecided = rates(found)
                shares = f"{passed:.1%} | {worse:.1%} | {undecided:.1%}"
                yield f"| {name} | {sd:g} | {cost:g} | {shares} | {seeds.mean():.1f} |"


def many_arms(gates: int) -> Iterator[str]:
    """Four arms that share a reference: the chance that any is wrongly passed, or wrongly called worse."""
    yield "| arms | noise | all cost | any passed | any worse |"
    yield "|--:|--:|--:|--:|--:|"
    for sd in (0.5, 1.0, 2.0):
        for cost in (0.0, 1.0):
            rng = np.random.default_rng([gates, int(10 * sd), int(cost)])
            noise = rng.standard_normal((gates // 2, LOOKS[-1], 5)) * sd / np.sqrt(2.0)
            passed, worse, _ = rates(decide(noise[..., 1:] - noise[..., :1] - cost)[0])
            yield f"| 4 | {sd:g} | {cost:g} | {passed:.1%} | {worse:.1%} |"


def a_month(gates: int) -> Iterator[str]:
    """Months of harmless changes, against a fresh baseline each or one that all share."""
    yield "| alpha | noise | baseline | false alarms a month | at most | months with any | at most | alarms in these |"
    yield "|--:|--:|---|--:|--:|--:|--:|--:|"
    months = max(gates // CHANGES, 100)
    for alpha in (0.05, 0.0026):
        for sd in (1.0, 2.0):
            for baseline in ("fresh", "shared"):
                rng = np.random.default_rng([gates, int(10 * sd)])
                change = rng.standard_normal((months, CHANGES, LOOKS[-1]))
                before = rng.standard_normal((months, CHANGES if baseline == "fresh" else 1, LOOKS[-1]))
                differences = ((change - before) * sd / np.sqrt(2.0)).reshape(-1, LOOKS[-1], 1)
                alarms = (decide(differences, alpha)[0] == LOWER).reshape(months, CHANGES).sum(axis=1)
                expected, chance = false_alarms(alpha, CHANGES)
                yield (
                    f"| {alpha:g} | {sd:g} | {baseline} | {alarms.mean():.2f} | {expected:.2f} | "
                    f"{(alarms > 0).mean():.1%} | {chance:.1%} | {alarms[alarms > 0].mean():.1f} |"
                )


def a_hundred() -> Iterator[str]:
    """A hundred harmless changes and a hundred that cost three margins, with one stored baseline."""
    yield "| 100 changes that cost | passed | worse | undecided | seeds |"
    yield "|---|--:|--:|--:|--:|"
    for name, cost in (("nothing", 0.0), ("half the margin", 0.5), ("three margins", 3.0)):
        rng = np.random.default_rng(100)
        before = rng.standard_normal((1, LOOKS[-1], 1))
        change = rng.standard_normal((100, LOOKS[-1], 1))
        found, seeds = decide((change - before) / np.sqrt(2.0) - cost)
        passed, worse, undecided = (round(100 * share) for share in rates(found))
        yield f"| {name} | {passed} | {worse} | {undecided} | {seeds.mean():.1f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=20_000, help="simulated gates a row")
    gates = parser.parse_args().gates
    for table in (one_gate(gates), many_arms(gates), a_month(gates), a_hundred()):
        for line in table:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
