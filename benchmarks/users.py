"""False verdicts of people who do not follow a plan, by simulation; prints a Markdown table.

python benchmarks/users.py                                # 5,000 studies a row that only look, 200 a row that run
python benchmarks/users.py --studies 20000 --runs 500     # the table in docs/evidence.md

No arm differs from the reference, but for dead runs. The first rows simulate differences, and take levels from the
history that a store would have. The others run studies of a small loop, in a store in memory.
"""

import argparse
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

import fairtrial
from fairtrial.executors.inline import InlineExecutor
from fairtrial.history import History, Question, Registered
from fairtrial.spec import Study
from fairtrial.stats.judge import judge
from fairtrial.stats.looks import LookPlan
from fairtrial.stats.questions import answer_questions
from fairtrial.stats.sequential import judge_many
from fairtrial.stats.stages import standing
from fairtrial.stats.verdicts import Verdict
from fairtrial.store.sql import SQLStore
from fairtrial.testing import MACHINE, Instead
from fairtrial.trial import TrialContext

Array = npt.NDArray[np.float64]
Path = tuple[int, ...]

#: Numbers of seeds to which someone rounds up what the advice says; nobody here trains more.
ROUND = (4, 5, 6, 8, 10, 12, 16, 20, 25)

#: The user's next number of seeds, given the looks taken and the differences up to there; None to stop.
Next = Callable[[LookPlan, Path, Array], int | None]


def study(others: int, seeds: int | Mapping[str, int], name: str = "users", **sections: Any) -> Study:
    """A study of so many arms and a reference."""
    names = [f"{name}-{number}" for number in range(others + 1)]
    table = {"name": name, "reference": names[0], "seeds": seeds, "training": {"loop": "users:loop", "epochs": 1}}
    return Study.from_dict({**table, "arms": {one: {"params": {"arm": one}} for one in names}, **sections})


def plan_after(path: Path, arms: int) -> LookPlan:
    """The plan of a user's next look, as a store's history makes it."""
    asked = [study(arms, seeds) for seeds in path]
    stages = [
        Registered(number, Question.of(one), datetime.now(UTC), {}, tuple(range(1, number)))
        for number, one in enumerate(asked, start=1)
    ]
    stands = standing(asked[-1], History(stages[-1], tuple(stages[:-1])), "best_test_acc", None)
    return LookPlan.of(arms, stands.looks, earlier=stands.earlier, share=stands.share)


def look_again(studies: int, arms: int, follow: Next) -> Array:
    """Which of many studies ever gave a false verdict to a user who adds seeds while any arm is undecided."""
    cells = np.random.default_rng(7).standard_normal((studies, ROUND[-1], arms + 1))
    table = (cells[..., 1:] - cells[..., :1]) / np.sqrt(2.0)
    wrong = np.zeros(studies, bool)
    waiting: dict[Path, Array] = {(3,): np.arange(studies)}
    while waiting:
        path, rows = waiting.popitem()
        plan = plan_after(path, arms)
        found = judge_many(table[rows, : path[-1]], plan).finding
        wrong[rows] |= (found != 0).any(axis=1)
        groups: dict[int, list[int]] = {}
        for row in rows[(found == 0).any(axis=1)]:
            if (seeds := follow(plan, path, table[row, : path[-1]])) is not None:
                groups.setdefault(seeds, []).append(row)
        waiting |= {(*path, seeds): np.array(group) for seeds, group in groups.items()}
    return wrong.astype(np.float64)


def along(chain: Path) -> Next:
    """Follow a fixed chain of numbers of seeds."""
    return lambda _plan, path, _table: next((seeds for seeds in chain if seeds > path[-1]), None)


def advice(plan: LookPlan, path: Path, table: Array) -> int | None:
    """Train about as many more seeds as the verdict says of the arm that needs the fewest."""
    rows = judge(table, looks=plan.looks, earlier=plan.earlier, share=plan.share)
    more = [row.more_seeds for row in rows if row.more_seeds]
    total = path[-1] + min(more) if more and len(path) < 5 else ROUND[-1] + 1
    return next((seeds for seeds in ROUND if seeds >= total), None)


def loop(trial: TrialContext) -> Iterator[dict[str, float]]:
    """Five measures that do not depend on the arm; one run in ten of an arm that ends in ``dead`` is at chance."""
    own = f"{trial.settings.params['arm']} {trial.seed}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(own.encode()).digest()[:8]))
    values = 0.8 + 0.01 * rng.standard_normal(5)
    if trial.settings.params.get("dies") and rng.random() < 0.1:
        values[:] = 0.1
    yield {f"m{number}_acc": float(value) for number, value in enumerate(values)}


#: Someone who runs studies in a store: gives the verdicts that they would report.
Person = Callable[[str, Callable[[Study], fairtrial.StudyResults]], Iterable[Any]]


MEASURES = [f"final_m{number}_acc" for number in range(5)]


def best_of_five(name: str, run: Callable[[Study], fairtrial.StudyResults]) -> Iterator[Any]:
    """Compare five measures, one study after another, and report all that show something."""
    for measure in MEASURES:
        yield run(study(1, 6, name, evidence={"metric": measure})).verdict().data


def five_planned(name: str, run: Callable[[Study], fairtrial.StudyResults]) -> Iterator[Any]:
    """Plan the same five measures as one family."""
    first, *others = MEASURES
    planned = study(1, 6, name, evidence={"metric": first, "also": [{"metric": other} for other in others]})
    found = run(planned)
    verdict = found.verdict().data
    yield verdict
    yield from (one for answer in answer_questions(planned, found.results, verdict) for one in answer.verdicts)


def other_margin(name: str, run: Callable[[Study], fairtrial.StudyResults]) -> Iterator[Any]:
    """Set a margin of 1 point, and where that leaves it undecided, one that the interval just fits."""
    first = run(study(1, 6, name, evidence={"metric": "final_m0_acc", "margin": 0.01})).verdict().data
    yield first
    (row,) = first.comparisons
    if row.verdict is Verdict.UNDECIDED and row.interval:
        margin = float(np.ceil(1000 * max(map(abs, row.interval))) / 1000)
        yield run(study(1, 6, name, evidence={"metric": "final_m0_acc", "margin": margin})).verdict().data


def drop_dead_runs(name: str, run: Callable[[Study], fairtrial.StudyResults]) -> Iterator[Any]:
    """Look, and then set a floor below which runs do not count."""
    for evidence in ({}, {"lost_below": 0.5}):
        arms = {f"{name}-0": {"params": {"arm": f"{name}-0"}}, f"{name}-1": {"params": {"arm": name, "dies": True}}}
        sections = {"evidence": {"metric": "final_m0_acc", **evidence}, "arms": arms}
        yield run(study(1, 6, name, **sections)).verdict().data


def live(runs: int, person: Person) -> tuple[Array, Array]:
    """Which runs gave verdicts where there was nothing, and which of them without the word exploratory."""
    wrong, silent = np.zeros(runs), np.zeros(runs)
    executor = Instead(InlineExecutor(), loop=loop, machine=lambda _trial: MACHINE)
    for number in range(runs):
        with SQLStore(":memory:") as store:

            def run(one: Study, store: SQLStore = store) -> fairtrial.StudyResults:
                return fairtrial.run(one, store=store, executor=executor, force=True)

            for found in person(f"u{number}", run):
                said = any(row.verdict is not Verdict.UNDECIDED for row in found.comparisons)
                wrong[number] = max(wrong[number], said)
                silent[number] = max(silent[number], said and not found.exploratory)
    return wrong, silent


def rate(wrong: Array) -> str:
    """Write a rate and its standard error in percent."""
    mean = wrong.mean()
    return f"{100 * mean:.1f} ± {100 * np.sqrt(mean * (1 - mean) / len(wrong)):.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--studies", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=200)
    args = parser.parse_args()
    print("| someone who | one arm, % | four arms, % |\n|---|---|---|")
    chains = {
        "adds seeds while undecided: 3, 5, 8, 12": along((3, 5, 8, 12)),
        "looks at every n from 3 to 12": along(tuple(range(3, 13))),
    }
    for label, follow in (*chains.items(), ('follows "about N more seeds", up to 25', advice)):
        number = args.studies if follow is not advice else args.studies // 5
        print(f"| {label} | {' | '.join(rate(look_again(number, arms, follow)) for arms in (1, 4))} |", flush=True)
    print("\n| someone who | any verdict, % | without the word exploratory, % |\n|---|---|---|")
    people: dict[str, Person] = {
        "compares five measures in turn": best_of_five,
        "planned the five as one family": five_planned,
        "sets another margin": other_margin,
        "sets a floor after a dead run": drop_dead_runs,
    }
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for label, person in people.items():
            print(f"| {label} | {' | '.join(map(rate, live(args.runs, person)))} |", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
