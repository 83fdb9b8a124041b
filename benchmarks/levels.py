"""Solve the levels of usual plans and write them to src/fairtrial/stats/levels.json; three minutes on one core.

python benchmarks/levels.py

The plans are: 2 to 10 arms; one look after 2 to 15 seeds, or looks after every seed from 3 to 5, ..., 15. Levels are
for the error rates `fairtrial.stats.boundary.ALPHAS`, from 60,000 simulated studies of each pattern of spread. All
plans for a number of arms are solved from the same studies, and give what `solve` gives for each alone.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np

from fairtrial.stats import boundary
from fairtrial.stats.boundary import LookPlan, levels_of, table_key
from fairtrial.stats.nulls import noise, significances
from fairtrial.stats.spreads import hard_spreads

STUDIES = 60_000
LOOKS = tuple(range(2, 16))
PLANS = [(seeds,) for seeds in LOOKS] + [tuple(range(3, last + 1)) for last in range(5, 16)]


def solved(arms: int, studies: int) -> dict[str, list[float]]:
    """The levels of all plans for a number of arms."""
    found = {looks: np.full(len(boundary.ALPHAS), np.inf) for looks in PLANS}
    for spread in hard_spreads(arms, "guarded"):
        chunks = noise(LOOKS[-1], arms + 1, studies)
        p = np.concatenate([significances(spread.values(chunk), LOOKS, "guarded") for chunk in chunks])
        for looks, levels in found.items():
            columns = [LOOKS.index(look) for look in looks]
            smallest = (p[:, columns] / LookPlan.of(arms, looks).weights).min(axis=1)
            np.minimum(levels, levels_of(smallest[None]), out=levels)
    return {table_key(arms, looks): list(map(down, np.maximum.accumulate(one))) for looks, one in found.items()}


def down(level: float) -> float:
    """Round down to five digits."""
    unit = 10.0 ** (math.floor(math.log10(level)) - 4)
    return float(f"{math.floor(level / unit) * unit:.5g}")


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=STUDIES, help="simulated studies of each pattern")
    options = parser.parse_args()
    table: dict[str, list[float]] = {}
    for arms in range(2, 11):
        table |= solved(arms, options.studies)
        print(arms, "arms done", flush=True)
    path = Path(boundary.__file__).with_name("levels.json")
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(levels)}" for key, levels in table.items())
    path.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main()
