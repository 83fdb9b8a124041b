"""Commands that train, or say what training will cost."""

import contextlib
import math
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fairtrial import loading, signals
from fairtrial.cli.options import (
    DEFAULT_STORE,
    AddressOption,
    CheckpointsOption,
    ExecutorName,
    ExecutorOption,
    MemoryLimitOption,
    SetOption,
    StoreOption,
    StudyArgument,
    ThreadsOption,
    TimeLimitOption,
    WorkersOption,
)
from fairtrial.cli.results import print_table, print_verdict
from fairtrial.cli.stored import command_line, stored_studies
from fairtrial.cli.terminal import complain, console, out, say
from fairtrial.errors import FairtrialError, StoreMissingError, Terminated
from fairtrial.executors.limits import parse_bytes, parse_seconds
from fairtrial.executors.local.executor import LocalExecutor
from fairtrial.executors.ray.executor import RayExecutor
from fairtrial.report.live import ProgressDisplay
from fairtrial.runner import run_study
from fairtrial.spec import Origin
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import redact_url
from fairtrial.trial import Outcome, TrialResult


def run(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    *,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although versions, threads, data or the study's file have changed.")
    ] = False,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    time_limit: TimeLimitOption = None,
    memory_limit: MemoryLimitOption = None,
    executor: ExecutorOption = ExecutorName.LOCAL,
    address: AddressOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Run what is missing of a study, and print its table."""
    os.environ.pop("FAIRTRIAL_STORE", None)  # workers inherit the environment, and that may hold a password
    if address is not None and executor is not ExecutorName.RAY:
        raise FairtrialError(f"--address {address}: belongs to --executor ray")
    found = loading.find_to_run(study, assignments or [], stored_studies(store))
    folder = loading.source_folder(study)
    sys.path.insert(0, str(folder or Path.cwd()))  # where a user's own training loop lies
    words = {"workers": workers, "threads": threads, "time-limit": time_limit, "memory-limit": memory_limit}
    words |= {"checkpoints": checkpoints, "address": address}
    words |= {} if executor is ExecutorName.LOCAL else {"executor": executor.value}
    again = command_line("run", study, assignments, store, words)
    seconds = parse_seconds(time_limit) if time_limit else None
    size = parse_bytes(memory_limit) if memory_limit else None
    found = found.with_origin(Origin(loading.source(study), tuple(assignments or ()), folder))
    try:
        where: LocalExecutor | RayExecutor
        if executor is ExecutorName.RAY:
            where = RayExecutor(
                address,
                workers=workers,
                threads=threads,
                checkpoints=checkpoints,
                time_limit=seconds,
                memory_limit=size,
            )
        else:
            where = LocalExecutor(workers, threads, checkpoints=checkpoints, time_limit=seconds, memory_limit=size)
        with SQLStore(store) as opened, ProgressDisplay(console()) as display:
            run_study(found, store=opened, executor=where, callbacks=[display], retry_failed=retry_failed, force=force)
            results = opened.results(found)
    except (KeyboardInterrupt, Terminated) as end:
        say(f"interrupted; every finished epoch is in {redact_url(store)}. To go on:\n  {again}")
        raise typer.Exit(signals.exit_status(end)) from None
    print_table(found, results)
    if len(found.arms) > 1:
        out("")
        print_verdict(found, results)
    say(f"figures: {command_line('plot', found.label, None, store, {})}")
    if failed := sum(result.outcome is Outcome.FAILED for result in results):
        complain(f"{failed} of {len(results)} trials failed; to try them again: {again} --retry-failed")
        raise typer.Exit(1)


def plan_study(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    *,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    spread: Annotated[
        float | None,
        typer.Option(help="Standard deviation of a paired difference, accuracies as fractions; else from the store."),
    ] = None,
) -> None:
    """Say what is left of a study, what it will cost here, and what more or fewer seeds would find."""
    from fairtrial.estimate import TimingCache, estimate, seed_options  # noqa: PLC0415
    from fairtrial.report.costs import plan_text, seed_options_text  # noqa: PLC0415
    from fairtrial.stats.comparison import paired_spread  # noqa: PLC0415

    if spread is not None and not (math.isfinite(spread) and spread > 0):
        raise FairtrialError(f"--spread {spread}: must be a positive number")

    found = loading.find_to_run(study, assignments or [], stored_studies(store))
    sys.path.insert(0, str(loading.source_folder(study) or Path.cwd()))
    results: list[TrialResult] = []
    with contextlib.suppress(StoreMissingError), SQLStore(store, create=False) as opened:
        results = opened.results(found)
    watch = TimingCache()
    cost = estimate(found, results, workers=workers, threads=threads, stopwatch=watch)
    out(plan_text(found, cost, redact_url(store)))
    if len(found.arms) > 1:
        seen = spread or paired_spread(found, results)
        table = seed_options(found, results, seen, workers=workers, threads=threads, stopwatch=watch)
        out("\n" + seed_options_text(found, table, seen, "as given" if spread else "in the store"))
