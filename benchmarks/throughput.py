"""Trials a second of the simulated workload, which trains nothing, through each executor: what fairtrial itself costs.

    python benchmarks/throughput.py                                          all executors, messages read and dropped
    python benchmarks/throughput.py --executor ray --trials 500
    python benchmarks/throughput.py --store /tmp/throughput                  as `fairtrial.run` does it, into new stores

Workers and Ray are started before the clock: a first trial runs through each of their places. Sides run in turn.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import fairtrial
from fairtrial import testing
from fairtrial.executors.base import Ended, EpochFinished, Executor, Session, Workload
from fairtrial.executors.inline import InlineExecutor
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.ray.executor import RayExecutor
from fairtrial.runner import run_study
from fairtrial.scheduler import plan
from fairtrial.spec import Study
from fairtrial.trial import Machine, Outcome, Trial

WORKERS = 2


def simulated_machine(_trial: Trial) -> Machine:
    """Describe the machine of simulated trials; workers import it from this file's module."""
    return testing.MACHINE


EXECUTORS: dict[str, Callable[[], Executor]] = {
    "inline": InlineExecutor,
    "local": lambda: LocalExecutor(WORKERS),
    "ray": lambda: RayExecutor(workers=WORKERS),
}


def main() -> None:
    """Measure what the command line asks for, and print it side by side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--executor", choices=EXECUTORS, action="append", help="may be given several times; else all")
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", default="none", help="a folder for stores, or none")
    chosen = parser.parse_args()
    names = chosen.executor or [*EXECUTORS]
    print(f"{platform.platform()}, {os.cpu_count()} cores; {chosen.trials} trials of {chosen.epochs} epochs")
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(1, chosen.rounds + 1):
        for name in names:
            study = testing.simulated_study({"a": {}, "b": {}}, seeds=chosen.trials // 2, epochs=chosen.epochs)
            store = None if chosen.store == "none" else Path(chosen.store) / f"{name}-{number}.db"
            seconds = drain(name, study) if store is None else record(name, study, store)
            rates[name].append(len(plan(study)) / seconds)
            print(f"round {number}  {name:8} {rates[name][-1]:7.0f} trials/s", flush=True)
    for name, found in rates.items():
        print(f"{name:8} median {statistics.median(found):7.0f} trials/s, from {min(found):.0f} to {max(found):.0f}")


def drain(name: str, study: Study) -> float:
    """Run a study's trials and drop what they say; returns the seconds it took."""
    with warm(name) as session:
        begun = time.perf_counter()
        for trial in plan(study):
            session.submit(trial)
        told = [message for message in session.messages() if message is not None]
        seconds = time.perf_counter() - begun
    outcomes = [message.outcome for message in told if isinstance(message, Ended)]
    assert outcomes == [Outcome.FINISHED] * len(plan(study))  # a trial that fails at once would be quick, too
    assert sum(isinstance(message, EpochFinished) for message in told) == sum(trial.epochs for trial in plan(study))
    return seconds


def record(name: str, study: Study, path: Path) -> float:
    """Run a study into a new store; returns the seconds it took, with the plan and all that `run_study` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with warm(name) as session, fairtrial.SQLStore(str(path)) as store:
        begun = time.perf_counter()
        trained = run_study(study, store=store, executor=Warm(session))
        seconds = time.perf_counter() - begun
        finished = sum(result.outcome is Outcome.FINISHED for result in store.results(study))
    assert finished == trained == len(plan(study))
    return seconds


class Warm:
    """An executor whose session is open already."""

    checkpoints = None

    def __init__(self, session: Session) -> None:
        self.session = session

    def open(self, _workload: Workload) -> AbstractContextManager[Session]:
        """Give the session, without closing it at the end."""
        return nullcontext(self.session)


@contextmanager
def warm(name: str) -> Iterator[Session]:
    """Open an executor and have each of its workers run a trial, so that their start is not measured."""
    from throughput import simulated_machine  # noqa: PLC0415  (by the name under which workers find it)

    trials = plan(testing.simulated_study({"a": {"sleep": 1.0}}, seeds=WORKERS, epochs=1))
    with EXECUTORS[name]().open(Workload(testing.simulate, simulated_machine, trials)) as session:
        for trial in trials:
            session.submit(trial)
        for _ in session.messages():
            pass
        yield session


if __name__ == "__main__":
    main()
