"""Solve the levels of usual plans and write them to src/fairtrial/stats/levels.json; forty minutes on one core.

python benchmarks/levels.py

The table has two parts. `first` are plans of 2 to 10 arms with one look after 2 to 15 seeds, or looks after every seed
from 3 to 5, ..., 15: solved from 60,000 simulated studies of each pattern of spread, and rounded down to five digits.
`further` plans, and a few long ones of one arm, have the levels that `fairtrial.stats.boundary.solve` gives where there
is no table, rounded down to eight digits: a plan keeps its levels when it is added. Plans for a number of arms are
solved from the same studies, and give what they give alone.
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fairtrial.stats import boundary
from fairtrial.stats.boundary import levels_of, solve, table_key, usual_studies
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.nulls import Nulls, noise
from fairtrial.stats.spreads import hard_spreads

STUDIES = 60_000
Looks = tuple[int, ...]


def first(arms: int) -> list[Looks]:
    """The plans of the first part."""
    plans = [(seeds,) for seeds in range(2, 16)] + [every(3, last) for last in range(5, 16)]
    return plans if 2 <= arms <= 10 else []


def further(arms: int) -> list[Looks]:
    """The plans of the second part: 1 to 20 arms, up to 20 seeds, and with at most 10 arms up to 100."""
    most, usual = (100, (*range(5, 21), 25, 30, 40, 50, 100)) if arms <= 10 else (20, (5, 8, 10, 12, 15, 20))
    some = [end for end in (5, 8, 10, 12, 15, 20, 25, 30, 50, 100) if end <= most]
    plans = [every(3, end) for end in usual]
    plans += [every(2, end) for end in some if end <= 20] + [every(5, end) for end in some if end > 5]
    plans += [(seeds,) for seeds in (2, 3, 4, *some) if arms > 1]
    return [looks for looks in plans if looks not in first(arms)]


def every(least: int, most: int) -> Looks:
    """Looks after every seed."""
    return tuple(range(least, most + 1))


def solved(arms: int, plans: Sequence[Looks], studies: int) -> Iterator[tuple[str, list[float]]]:
    """The levels of plans for a number of arms, by their names in the table."""
    spreads = hard_spreads(arms, "guarded")
    smallest: dict[Looks, list[boundary.FloatArray]] = {looks: [] for looks in plans}
    for chunk in noise(max((looks[-1] for looks in plans), default=0), arms + 1, studies):
        nulls = Nulls.of(spreads, "guarded")
        lowest = {looks: np.full((len(spreads), chunk.studies), np.inf) for looks in plans}
        for seeds, values in enumerate(chunk, start=1):
            nulls.add(values)
            if wanted := [looks for looks in plans if seeds in looks]:
                p = np.full((len(spreads), chunk.studies), np.inf)
                nulls.look(p)
                for looks in wanted:
                    np.minimum(lowest[looks], p / (seeds / looks[-1]), out=lowest[looks])
        for looks, found in lowest.items():
            smallest[looks].append(found)
    for looks, found in smallest.items():
        levels = np.min([levels_of(null[None]) for null in np.concatenate(found, axis=1)], axis=0)
        yield table_key(arms, looks), np.maximum.accumulate(levels).tolist()


def down(levels: Iterable[float], digits: int) -> list[float]:
    """Round down to so many digits."""
    units = [(level, 10.0 ** (math.floor(math.log10(level)) - digits + 1)) for level in levels]
    return [float(f"{math.floor(level / unit) * unit:.{digits}g}") for level, unit in units]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="solve only plans that the table does not have")
    path = Path(boundary.__file__).with_name("levels.json")
    known = json.loads(path.read_text("utf-8")) if parser.parse_args().keep else {}
    table: dict[str, list[float]] = {}
    for arms in range(1, 21):
        parts = [[looks for looks in part(arms) if table_key(arms, looks) not in known] for part in (first, further)]
        usual = usual_studies(len(hard_spreads(arms, "guarded")))
        found = {key: down(levels, 5) for key, levels in solved(arms, parts[0], STUDIES)}
        found |= {key: down(levels, 8) for key, levels in solved(arms, parts[1], usual)}
        keys = [table_key(arms, looks) for looks in (*first(arms), *further(arms))]
        table |= {key: found.get(key) or known[key] for key in keys}
        print(arms, "arms done", flush=True)
    for looks in (every(least, end) for least in (3, 5) for end in (200, 500, 1000)):
        key = table_key(1, looks)
        table[key] = known.get(key) or down(solve(LookPlan.of(1, looks)), 8)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(levels)}" for key, levels in table.items())
    path.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main()
