"""CPU seconds and peak memory of large studies, each in a process of its own; prints a Markdown table.

    python benchmarks/scale.py
    python benchmarks/scale.py --before ../older/src    # a first column with the package in another folder
    python benchmarks/scale.py --only errors            # error rates of levels that are solved from fewer studies

CPU time is that of the process, so that other load on the machine hardly counts, without what prepares the case. Peak
memory is that of the process, of which imports take 60 to 110 MB.
"""

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fairtrial.stats.looks import LookPlan
    from fairtrial.stats.variance import FloatArray

#: What runs, with its numbers, by name.
CASES: dict[str, tuple[str, ...]] = {
    "rerun with nothing to do: 50 seeds": ("rerun", "1", "50"),
    "100 seeds": ("rerun", "1", "100"),
    "200 seeds": ("rerun", "1", "200"),
    "1,000 seeds, 20 arms": ("rerun", "20", "1000"),
    "critical values: 4 arms, looks from 3 to 103 seeds": ("boundary", "4", "103"),
    "20 arms, looks from 3 to 1,002 seeds": ("boundary", "20", "1002"),
    "50 arms, looks from 3 to 402 seeds": ("boundary", "50", "402"),
    "20 arms judged at 1,000 looks": ("judge", "20", "1002"),
    "10,000 arms, one seed: `table`": ("command", "10000", "table"),
    "`plan`": ("command", "10000", "plan"),
    "`ls`": ("command", "10000", "ls"),
    "1,000 arms, three seeds: `verdict`": ("command", "1000", "verdict"),
}


def rerun(arms: int, seeds: int) -> Callable[[], object]:
    """Decide that nothing is to be done in a sequential study whose arms do not differ; its trials are there."""
    from fairtrial import testing  # noqa: PLC0415
    from fairtrial.scheduler import Scheduler  # noqa: PLC0415

    study = testing.simulated_study({f"a{n}": {} for n in range(arms + 1)}, seeds={"min": 3, "max": seeds})
    results = testing.simulated_results(study)
    ended = {one.trial for one in results}
    try:
        from fairtrial.stats.replay import Stops  # noqa: PLC0415

        rule = Stops(lambda: None)
    except ImportError:  # before 2026-11-26
        from fairtrial.stats.comparison import stops as rule  # noqa: PLC0415
    return lambda: Scheduler(study, rule).advance(ended, lambda: results)


def boundary(arms: int, seeds: int) -> Callable[[], object]:
    """Solve the levels of a plan."""
    from fairtrial.stats import boundary as solved  # noqa: PLC0415

    plan = solved.LookPlan.of(arms, range(3, seeds + 1))
    return lambda: solved.boundary(plan).level(0.05)


def judge(arms: int, seeds: int) -> Callable[[], object]:
    """Judge arrays, with the levels of the plan."""
    import numpy as np  # noqa: PLC0415

    import fairtrial  # noqa: PLC0415

    differences = np.random.default_rng(1).normal(size=(seeds, arms))
    return lambda: fairtrial.judge(differences, looks=range(3, seeds + 1))


def command(arms: int, verb: str) -> Callable[[], object]:
    """Run a command about a study of many arms that is complete; ``prepare`` runs the study and no command."""
    import fairtrial  # noqa: PLC0415
    from fairtrial import testing  # noqa: PLC0415
    from fairtrial.cli.main import app  # noqa: PLC0415

    seeds = 3 if arms < 10_000 else 1
    study = testing.simulated_study({f"a{n}": {} for n in range(arms)}, seeds=seeds, epochs=1)
    path = Path(f"{arms}-{seeds}.db")
    if not path.exists():
        fairtrial.run(study, store=path, executor=testing.executor())
    words = [verb, *([study.label] if verb != "ls" else []), "--store", str(path)]
    return lambda: verb == "prepare" or app(words, standalone_mode=False)


KINDS: dict[str, Callable[..., Callable[[], object]]] = {
    "rerun": rerun,
    "boundary": boundary,
    "judge": judge,
    "command": command,
}


def measure(kind: str, *numbers: str) -> None:
    """Run one case in this process, and print its CPU seconds and peak memory."""
    run = KINDS[kind](*(int(number) if number.isdecimal() else number for number in numbers))
    begun = time.process_time()
    run()
    seconds = time.process_time() - begun
    print(f"\n{seconds:.1f} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")


def child(case: Sequence[str], source: str | None, folder: Path, limit: float) -> str:
    """Measure a case in a process of its own."""
    environment = os.environ | ({"PYTHONPATH": source} if source else {}) | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(Path(__file__).resolve()), "--case", *case]
    try:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return f"more than {limit:.0f} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    seconds, memory = done.stdout.splitlines()[-1].split()
    return f"{seconds} s, {memory} MB"


def errors(studies: int) -> None:
    """Print how often plans that are solved from few studies err at alpha = 5%, under the hardest pattern of spread."""
    from fairtrial.stats import nulls  # noqa: PLC0415
    from fairtrial.stats.boundary import boundary as solved  # noqa: PLC0415
    from fairtrial.stats.looks import LookPlan  # noqa: PLC0415

    print(f"| arms, looks | error, %, of {studies:,} studies with other random numbers |\n|---|---|")
    for arms, seeds in ((4, 722), (20, 150), (20, 300), (50, 60), (300, 3)):
        plan = LookPlan.of(arms, range(3, seeds + 1))
        level = solved(plan).level(0.05)
        usual, nulls.SEED = nulls.SEED, 1
        worst = float(max(found.mean() for found in erring(plan, level, studies)))
        nulls.SEED = usual
        error = (worst * (1 - worst) / studies) ** 0.5
        print(f"| {arms}, 3 to {seeds} | {100 * worst:.2f} ± {100 * error:.2f} |", flush=True)


def erring(plan: "LookPlan", level: float, studies: int) -> "FloatArray":
    """Whether each study without true differences errs at a level, (patterns of spread, studies)."""
    import numpy as np  # noqa: PLC0415

    from fairtrial.stats import nulls  # noqa: PLC0415
    from fairtrial.stats.spreads import hard_spreads  # noqa: PLC0415

    spreads, weights = hard_spreads(plan.arms, plan.pooling), dict(zip(plan.looks, plan.weights, strict=True))
    found = []
    for chunk in nulls.noise(plan.looks[-1], plan.arms + 1, studies):
        simulated = nulls.Nulls.of(spreads, plan.pooling)
        smallest = np.full((len(spreads), chunk.studies), level * (1.0 + 1e-12))  # only smaller ones matter
        for seeds, values in enumerate(chunk, start=1):
            simulated.add(values)
            if seeds in weights:
                simulated.look(smallest, weights[seeds])
        found.append(smallest <= level)
    return np.concatenate(found, axis=1)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="the folder that holds another version of the package")
    parser.add_argument("--limit", type=float, default=1_800.0, help="seconds after which a case is given up")
    parser.add_argument("--only", help="cases whose name has this, or errors")
    parser.add_argument("--studies", type=int, default=8_000, help="of each pattern, for error rates")
    parser.add_argument("--case", nargs="+", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.case:
        measure(*chosen.case)
    elif chosen.only == "errors":
        errors(chosen.studies)
    else:
        compare({**({"before": chosen.before} if chosen.before else {}), "now": None}, chosen.only or "", chosen.limit)


def compare(sides: dict[str, str | None], only: str, limit: float) -> None:
    """Print a row for each case whose name has some text, with a column for each version of the package."""
    print(f"{platform.platform()}, {os.cpu_count()} cores\n\n| case | {' | '.join(sides)} |")
    print(f"|---|{'---|' * len(sides)}")
    with tempfile.TemporaryDirectory() as base:
        folders = {side: Path(base) / side for side in sides}
        for folder in folders.values():
            folder.mkdir()
        for name, case in CASES.items():
            if only in name:
                cells = []
                for side, source in sides.items():
                    if case[0] == "command":  # in another process, whose memory does not count
                        child((*case[:2], "prepare"), source, folders[side], limit)
                    cells.append(child(case, source, folders[side], limit))
                print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
