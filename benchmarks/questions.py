"""Error rates of a study's further questions, by simulation; prints a Markdown table.

python benchmarks/questions.py                    # 10,000 studies a row, some minutes

A study has four arms and a reference, and looks after every seed from 3 to 12; its main question stops arms. Each
question is asked alone, at 5%. No arm differs from another unless a row says so.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from fairtrial.stats.best import left_out_mean, one_sided
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.sequential import HIGHER, judge_many

Array = npt.NDArray[np.float64]
Ends = npt.NDArray[np.int64]

CELLS, LOOKS, ALPHA = 5, range(3, 13), 0.05
EQUAL = (1.0,) * CELLS
NOISY = (1.0, 3.0, 1.0, 1.0, 1.0)


def draw(rng: np.random.Generator, studies: int, spread: Sequence[float], means: Sequence[float]) -> tuple[Array, Ends]:
    """Values, (studies, seeds, cells), the reference first, and the seeds that each cell got by the main question."""
    noise = rng.standard_normal((studies, LOOKS[-1], CELLS + 1))
    values = np.array(means) + noise[..., -1:] + np.array(spread) * noise[..., :-1]
    main = judge_many(values[..., 1:] - values[..., :1], LookPlan.of(CELLS - 1, LOOKS))
    ends = np.array(LOOKS)[main.look]
    return values, np.column_stack([ends.max(axis=1), ends])


def family(
    values: Array, ends: Ends, base: int, alpha: float, among: Sequence[int] = range(CELLS)
) -> npt.NDArray[np.int64]:
    """Findings about each cell against a base, (studies, cells), at the last look that both have."""
    others = [cell for cell in among if cell != base]
    together = np.minimum(ends[:, others], ends[:, [base]])
    seen = np.arange(values.shape[1])[:, None] < together[:, None]
    differences = np.where(seen, values[..., others] - values[..., [base]], np.nan)
    found = np.zeros(ends.shape, dtype=np.int64)
    for look in LOOKS:
        here = (together == look).any(axis=1)
        if here.any():
            judged = judge_many(differences[here, :look], LookPlan.of(len(others), LOOKS), alpha).finding
            found[np.ix_(here, others)] = np.where(together[here] == look, judged, found[np.ix_(here, others)])
    return found


def pairs(values: Array, ends: Ends) -> npt.NDArray[np.bool_]:
    """Whether any of the other arms is called different from another."""
    found, number = np.zeros(len(values), dtype=np.bool_), (CELLS - 1) * (CELLS - 2) // 2
    for base in range(1, CELLS - 1):
        later = range(base + 1, CELLS)
        found |= family(values, ends, base, ALPHA * len(later) / number, (0, *later))[:, list(later)].any(axis=1)
    return found


def best(values: Array, ends: Ends) -> npt.NDArray[np.bool_]:
    """Whether the reference, which is best, is excluded."""
    return (family(values, ends, 0, one_sided(ALPHA)) == HIGHER).any(axis=1)


def against(values: Array, ends: Ends) -> npt.NDArray[np.bool_]:
    """Whether any arm's mean is called other than it is."""
    false = np.zeros(len(values), dtype=np.bool_)
    for cell in range(CELLS):
        for look in LOOKS:
            here = ends[:, cell] == look
            if here.any():
                judged = judge_many(values[here, :look, cell : cell + 1], LookPlan.of(1, LOOKS), ALPHA / CELLS)
                false[here] |= judged.finding[:, 0] != 0
    return false


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000)
    studies = parser.parse_args().studies
    rng = np.random.default_rng(20_261_126)
    zero = (0.0,) * CELLS
    rows: list[tuple[str, Callable[[Array, Ends], npt.NDArray[np.bool_]], Sequence[float], Sequence[float]]] = [
        ("pairs: any false difference", pairs, EQUAL, zero),
        ("pairs, spread 1 : 3 : 1 : 1 : 1", pairs, NOISY, zero),
        ("against: any mean called other than it is", against, EQUAL, zero),
        ("against, spread 1 : 3 : 1 : 1 : 1", against, NOISY, zero),
        ("best: the best of five equal arms is excluded", best, EQUAL, zero),
        ("best, two arms 2 behind", best, EQUAL, (0.0, 0.0, 0.0, -2.0, -2.0)),
        ("best, spread 1 : 3 : 1 : 1 : 1", best, NOISY, zero),
    ]
    print("| question | studies with an error, % |\n|---|---|")
    for label, asks, spread, means in rows:
        rate = float(asks(*draw(rng, studies, spread, means)).mean())
        print(f"| {label} | {100 * rate:.2f} ± {100 * np.sqrt(rate * (1 - rate) / studies):.2f} |", flush=True)
    print("\n| five equal arms, seeds | mean of the leader | without the luck of being chosen |\n|---|---|---|")
    for seeds in (3, 5, 10):
        tables = rng.standard_normal((studies, seeds, CELLS))
        fair = np.array([left_out_mean(table) for table in tables])
        leaders = tables.mean(axis=1).max(axis=1)
        shown = [f"{each.mean():.3f} ± {each.std(ddof=1) / np.sqrt(studies):.3f}" for each in (leaders, fair)]
        print(f"| {seeds} | {shown[0]} | {shown[1]} |")


if __name__ == "__main__":
    main()
