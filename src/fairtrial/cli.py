"""The command line: thin commands over the package."""

import contextlib
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

import fairtrial
from fairtrial import loading, signals
from fairtrial import runner as conductor
from fairtrial.errors import FairtrialError, ReportError, StoreMissingError, Terminated
from fairtrial.executors.limits import parse_bytes, parse_seconds
from fairtrial.options import (
    DEFAULT_STORE,
    AddressOption,
    CheckpointsOption,
    EvidenceFormat,
    ExecutorName,
    ExecutorOption,
    ExportFormat,
    MemoryLimitOption,
    SetOption,
    StoreOption,
    StudyArgument,
    TableFormat,
    ThreadsOption,
    TimeLimitOption,
    WorkersOption,
)
from fairtrial.report.live import ProgressDisplay
from fairtrial.report.words import count
from fairtrial.spec import Evidence, Study, parse_toml
from fairtrial.staff import on_ray
from fairtrial.store.base import StoredStudy
from fairtrial.store.sql import SQLStore
from fairtrial.store.url import redact_url
from fairtrial.terminal import complain, console, out, say
from fairtrial.trial import Outcome, TrialResult, digest_results
from fairtrial.upkeep import bench, data, examine_installation

app = typer.Typer(
    help="Give every optimizer setting a fair trial: run controlled comparisons of training settings.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Run the command line; whatever a user can mend ends in one line on standard error."""
    usage_error = cast(
        "type[typer.BadParameter]", typer.BadParameter.__mro__[1]
    )  # typer keeps the class itself to itself
    try:
        sys.exit(app(standalone_mode=False))
    except FairtrialError as error:
        complain(str(error))
        sys.exit(error.exit_code)
    except usage_error as error:
        message = error.format_message().replace("Value error, ", "")  # the validator's word, not the user's
        complain(f"{message} (see fairtrial --help)")
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone, as in `fairtrial export ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.callback(invoke_without_command=True)
def no_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Handle what stands before any command."""
    if version:
        out(f"fairtrial {fairtrial.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        out(context.get_help())


@app.command()
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
    found = loading.find_to_run(study, assignments or [], _stored(store))
    folder = loading.source_folder(study)
    sys.path.insert(0, str(folder or Path.cwd()))  # where a user's own training loop lies
    words = {"workers": workers, "threads": threads, "time-limit": time_limit, "memory-limit": memory_limit}
    words |= {"checkpoints": checkpoints, "address": address}
    words |= {} if executor is ExecutorName.LOCAL else {"executor": executor.value}
    again = _command("run", study, assignments, store, words)
    training = partial(
        conductor.run,
        found,
        workers=workers,
        threads=threads,
        retry_failed=retry_failed,
        force=force,
        source=loading.source(study),
        assignments=assignments or [],
        checkpoints=checkpoints,
        time_limit=parse_seconds(time_limit) if time_limit else None,
        memory_limit=parse_bytes(memory_limit) if memory_limit else None,
        staff=on_ray(address) if executor is ExecutorName.RAY else None,
    )
    try:
        done = _train(training, found, store, folder)
    except (KeyboardInterrupt, Terminated) as end:
        say(f"interrupted; every finished epoch is in {redact_url(store)}. To go on:\n  {again}")
        raise typer.Exit(signals.exit_status(end)) from None
    _print_table(done.study, done.results)
    if done.study.evidence != Evidence():
        out("")
        _print_verdict(done.study, done.results)
    say(f"figures: {_command('plot', found.label, None, store, {})}")
    if failed := done.count(Outcome.FAILED):
        complain(f"{failed} of {len(done.results)} trials failed; to try them again: {again} --retry-failed")
        raise typer.Exit(1)


@app.command()
def table(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[TableFormat, typer.Option("--format", help="How to write it.")] = TableFormat.TEXT,
) -> None:
    """Print what was measured: the paper's Table 1, with mean and spread over seeds."""
    found, results = _results(study, assignments, store)
    _print_table(found, results, form)


@app.command()
def verdict(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[EvidenceFormat, typer.Option("--format", help="How to write it.")] = EvidenceFormat.TEXT,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare on this, which the study did not set beforehand.")
    ] = None,
) -> None:
    """Say of each arm whether it is better or worse than the reference, equivalent, or undecided."""
    found, results = _results(study, assignments, store)
    if refused := _print_verdict(found, results, form, metric):
        complain(f"{count(len(refused), 'comparison')} refused: {next(iter(refused.values()))}")
        raise typer.Exit(1)


@app.command()
def claims(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[EvidenceFormat, typer.Option("--format", help="How to write it.")] = EvidenceFormat.TEXT,
) -> None:
    """Say of each claim of the study whether the records support it, contradict it, or leave it undecided."""
    from fairtrial.report.verdicts import describe  # noqa: PLC0415
    from fairtrial.stats.claims import check_claims  # noqa: PLC0415

    found, results = _results(study, assignments, store)
    screen = Console()
    tested = check_claims(found, results)
    out(describe(tested, form.value, width=screen.width, color=screen.is_terminal).rstrip("\n"))


@app.command()
def plot(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; by default figures/NAME-HASH beside where you are.")
    ] = None,
) -> None:
    """Draw test accuracy and training loss per epoch, as PNG, SVG and PDF."""
    from fairtrial.report import charts  # noqa: PLC0415

    found, results = _results(study, assignments, store)
    target = folder or Path("figures") / found.label.replace("@", "-")
    for figure in charts.figures(found, results):
        for path in charts.write(figure, target):
            out(str(path))


@app.command()
def export(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[ExportFormat, typer.Option("--format", help="How to write it.")] = ExportFormat.CSV,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write; by default standard output.")] = None,
) -> None:
    """Write every epoch record."""
    from fairtrial.report import export as exporting  # noqa: PLC0415

    if form is ExportFormat.PARQUET and out is None and sys.stdout.isatty():
        raise ReportError("--format parquet: writes bytes, not text; name a file with --out")
    found, results = _results(study, assignments, store)
    content = exporting.export(found, results, form.value, out)
    if out is None:
        sys.stdout.buffer.write(content)


@app.command("digest")
def digest_study(study: StudyArgument, assignments: SetOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Print one digest of all results but times and machines: equal where two runs gave the same to the bit."""
    found, results = _results(study, assignments, store)
    out(f"{digest_results(results)}  {found.label}")


@app.command()
def show(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print a study as TOML, every default spelt out: a start for one of your own."""
    out(loading.find_to_run(study, assignments or [], _stored(store)).to_toml().rstrip())


@app.command("plan")
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

    found = loading.find_to_run(study, assignments or [], _stored(store))
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


@app.command("ls")
def list_studies(store: StoreOption = DEFAULT_STORE) -> None:
    """List the studies in the store, and how far each is."""
    stored = _stored(store)
    grid = Table("study", "last run (UTC)", "done", box=None, pad_edge=False, header_style="bold")
    for study in stored:
        grid.add_row(study.label, f"{study.last_run:%Y-%m-%d %H:%M}", _how_far(study))
    if stored:
        Console(highlight=False, soft_wrap=True).print(grid)
    else:
        out(f"no studies in {redact_url(store)} yet")
    out(f"studies that ship with fairtrial: {', '.join(loading.shipped_studies())}")


def _train(
    training: Callable[..., conductor.StudyRun], study: Study, store: str, folder: Path | None
) -> conductor.StudyRun:
    reasons: dict[str, str] = {}

    def settled(study: Study, results: Sequence[TrialResult]) -> frozenset[str]:
        """Decide as `run` does by itself, and keep why for the display."""
        from fairtrial.stats.comparison import stops  # noqa: PLC0415

        found = stops(study, results)
        reasons.update(found)
        return frozenset(found)

    with SQLStore(store) as opened, ProgressDisplay(console(), reasons) as watcher:
        return training(
            store=opened,
            watcher=watcher,
            git_commit=loading.git_commit(folder) if folder else None,
            settled=settled if study.sequential else None,
        )


def _results(study: str, assignments: list[str] | None, store: str) -> tuple[Study, list[TrialResult]]:
    with SQLStore(store, create=False) as opened:
        found = loading.find_to_read(study, assignments or [], opened.studies())
        return found, opened.results(found)


def _stored(store: str) -> list[StoredStudy]:
    try:
        with SQLStore(store, create=False) as opened:
            return opened.studies()
    except StoreMissingError:
        return []


def _print_table(study: Study, results: Sequence[TrialResult], form: TableFormat = TableFormat.TEXT) -> None:
    from fairtrial.report import tables  # noqa: PLC0415
    from fairtrial.stats.summary import summarize  # noqa: PLC0415

    screen = Console()
    text = tables.table(summarize(study, results), form.value, width=screen.width, color=screen.is_terminal)
    out(text.rstrip("\n"))


def _print_verdict(
    study: Study,
    results: Sequence[TrialResult],
    form: EvidenceFormat = EvidenceFormat.TEXT,
    metric: str | None = None,
) -> dict[str, str]:
    """Print verdicts, and return why comparisons were refused, by arm."""
    from fairtrial.report.verdicts import describe  # noqa: PLC0415
    from fairtrial.stats.comparison import compare  # noqa: PLC0415
    from fairtrial.stats.noise import split_noise  # noqa: PLC0415

    screen = Console()
    found = compare(study, results, metric=metric)
    noise = split_noise(study, results, metric=metric)
    text = describe(found, form.value, noise=noise, width=screen.width, color=screen.is_terminal)
    out(text.rstrip("\n"))
    return found.refused


def _how_far(study: StoredStudy) -> str:
    """Write how far a study is: ``7 of 10 trials, 1 diverged, 1 interrupted or running``."""
    ended = sum(study.outcomes.values())
    sequential = isinstance(parse_toml(study.toml).get("seeds"), dict)
    parts = [f"{ended} of {'at most ' if sequential else ''}{study.trials} trials"]
    parts += [f"{n} {outcome}" for outcome, n in study.outcomes.items() if n and outcome is not Outcome.FINISHED]
    parts += [f"{study.started} interrupted or running"] if study.started else []
    return ", ".join(parts)


def _command(verb: str, study: str, assignments: list[str] | None, store: str, options: Mapping[str, object]) -> str:
    """Write the command line that does something with the same study in the same store."""
    words = ["fairtrial", verb, study]
    words += [word for assignment in assignments or [] for word in ("--set", assignment)]
    words += ["--store", redact_url(store)] if store != DEFAULT_STORE else []
    words += [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(words)


app.command()(data)
app.command()(bench)
app.command("doctor")(examine_installation)
