"""Commands that train, or estimate what training will cost."""

import os
from typing import Annotated

import typer

from fairtrial import api, signals
from fairtrial.api import DEFAULT_STORE
from fairtrial.cli import options
from fairtrial.cli.output import command_line, complain, console, out, say, this_command
from fairtrial.cli.results import print_view
from fairtrial.errors import Terminated
from fairtrial.report.live import ProgressDisplay
from fairtrial.store.url import redact_url

app = typer.Typer()


@app.command()
def run(
    study: options.StudyArgument,
    overrides: options.OverridesOption = None,
    store: options.StoreOption = DEFAULT_STORE,
    *,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train failed trials again.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Continue although versions, threads, data, your code or the study's file have changed."
        ),
    ] = False,
    workers: options.WorkersOption = None,
    threads: options.ThreadsOption = None,
    time_limit: options.TimeLimitOption = None,
    memory_limit: options.MemoryLimitOption = None,
    executor: options.ExecutorOption = "local",
    address: options.AddressOption = None,
    checkpoints: options.CheckpointsOption = None,
) -> None:
    """Train the missing trials of a study and print its results."""
    limits = {"time_limit": time_limit, "memory_limit": memory_limit}
    chosen = options.make_executor(
        executor, workers=workers, threads=threads, address=address, checkpoints=checkpoints, **limits
    )
    loaded = api.load(study, overrides or [], store=store)
    plot, failures = (command_line(command, loaded.label, store) for command in ("plot", "failures"))
    os.environ.pop("FAIRTRIAL_STORE", None)  # workers inherit the environment, and it may hold a password
    try:
        with ProgressDisplay(console()) as display:
            runs = api.run(
                loaded, store=store, executor=chosen, callbacks=[display], retry_failed=retry_failed, force=force
            )
    except (KeyboardInterrupt, Terminated) as end:
        say(f"interrupted; every finished epoch is in {redact_url(store)}. To resume:\n  {this_command()}")
        raise typer.Exit(signals.exit_status(end)) from None
    print_view(runs.table())
    if len(loaded.arms) > 1:
        out("")
        print_view(runs.verdict())
    say(f"figures: {plot}")
    if failed := len(runs.failures()):
        say(f"tracebacks: {failures}")
        retry = this_command().removesuffix(" --retry-failed")
        complain(f"{failed} of {len(runs.results)} trials failed; to train them again: {retry} --retry-failed")
        raise typer.Exit(1)


@app.command("plan")
def plan_study(
    study: options.StudyArgument,
    overrides: options.OverridesOption = None,
    store: options.StoreOption = DEFAULT_STORE,
    *,
    workers: options.WorkersOption = None,
    threads: options.ThreadsOption = None,
    spread: Annotated[
        float | None,
        typer.Option(
            metavar="SD",
            help="Standard deviation of a paired difference, accuracies as fractions; by default from the store.",
        ),
    ] = None,
) -> None:
    """Estimate what a study will cost on this machine.

    Also prints the smallest difference that more or fewer seeds would find.
    """
    from fairtrial.report.costs import plan_text, seed_options_text  # noqa: PLC0415

    loaded = api.load(study, overrides or [], store=store)
    cost = api.estimate_cost(loaded, store=store, workers=workers, threads=threads, spread=spread)
    out(plan_text(loaded, cost, redact_url(store)))
    if cost.seed_options:
        source = "as given" if spread else "in the store"
        out("\n" + seed_options_text(loaded, cost.seed_options, cost.spread, source))
