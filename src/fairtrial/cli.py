"""The command line: thin commands over the package."""

import contextlib
import math
import os
import re
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

import fairtrial
from fairtrial import lookup
from fairtrial import study as conductor
from fairtrial.errors import FairtrialError, ReportError, StoreMissingError
from fairtrial.options import (
    DEFAULT_STORE,
    AddressOption,
    CheckpointsOption,
    EvidenceFormat,
    ExecutorName,
    ExecutorOption,
    ExportFormat,
    SetOption,
    StoreOption,
    StudyArgument,
    TableFormat,
    ThreadsOption,
    WorkersOption,
)
from fairtrial.records import Outcome, TrialResult
from fairtrial.report.live import DownloadBar, LiveWatcher
from fairtrial.report.words import count
from fairtrial.spec import Evidence, Study, parse_toml
from fairtrial.staff import on_ray
from fairtrial.store.base import StoredStudy
from fairtrial.store.sql import SQLStore

#: Exit status after Ctrl-C: 128 and the number of the signal, as shells have it.
INTERRUPTED = 130

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
        _complain(str(error))
        sys.exit(error.exit_code)
    except usage_error as error:
        message = error.format_message().replace("Value error, ", "")  # the validator's word, not the user's
        _complain(f"{message} (see fairtrial --help)")
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
        _out(f"fairtrial {fairtrial.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        _out(context.get_help())


@app.command()
def run(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    *,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")] = False,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    executor: ExecutorOption = ExecutorName.LOCAL,
    address: AddressOption = None,
    checkpoints: CheckpointsOption = None,
) -> None:
    """Run what is missing of a study, and print its table."""
    if address is not None and executor is not ExecutorName.RAY:
        raise FairtrialError(f"--address {address}: belongs to --executor ray")
    found = lookup.to_run(study, assignments or [], _stored(store))
    folder = lookup.source_folder(study)
    sys.path.insert(0, str(folder or Path.cwd()))  # where a user's own training loop lies
    elsewhere = {"executor": None if executor is ExecutorName.LOCAL else executor.value, "address": address}
    again = _command(
        "run", study, assignments, store, workers=workers, threads=threads, checkpoints=checkpoints, **elsewhere
    )
    staff = on_ray(address) if executor is ExecutorName.RAY else None
    try:
        training = partial(conductor.run, found, workers=workers, threads=threads, retry_failed=retry_failed)
        training = partial(training, checkpoints=checkpoints, staff=staff)
        done = _train(training, store, folder)
    except KeyboardInterrupt:
        _say(f"interrupted; every finished epoch is in {_without_password(store)}. To go on:\n  {again}")
        raise typer.Exit(INTERRUPTED) from None
    _print_table(done.study, done.results)
    if done.study.evidence != Evidence():
        _out("")
        _print_verdict(done.study, done.results)
    _say(f"figures: {_command('plot', found.label, None, store)}")
    if failed := done.count(Outcome.FAILED):
        _complain(f"{failed} of {len(done.results)} trials failed; to try them again: {again} --retry-failed")
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
        _complain(f"{count(len(refused), 'comparison')} refused: {next(iter(refused.values()))}")
        raise typer.Exit(1)


@app.command()
def claims(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[EvidenceFormat, typer.Option("--format", help="How to write it.")] = EvidenceFormat.TEXT,
) -> None:
    """Say of each claim of the study whether the records support it, contradict it, or leave it undecided."""
    from fairtrial.evidence.claims import check_claims  # noqa: PLC0415
    from fairtrial.report.verdicts import describe  # noqa: PLC0415

    found, results = _results(study, assignments, store)
    screen = Console()
    tested = check_claims(found, results)
    _out(describe(tested, form.value, width=screen.width, color=screen.is_terminal).rstrip("\n"))


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
            _out(str(path))


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


@app.command()
def show(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Print a study as TOML, every default spelt out: a start for one of your own."""
    _out(lookup.to_run(study, assignments or [], _stored(store)).to_toml().rstrip())


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
    from fairtrial.estimate import Stopwatch, estimate, prospects  # noqa: PLC0415
    from fairtrial.evidence.comparison import paired_spread  # noqa: PLC0415
    from fairtrial.report.costs import plan_text, prospects_text  # noqa: PLC0415

    if spread is not None and not (math.isfinite(spread) and spread > 0):
        raise FairtrialError(f"--spread {spread}: must be a positive number")

    found = lookup.to_run(study, assignments or [], _stored(store))
    sys.path.insert(0, str(lookup.source_folder(study) or Path.cwd()))
    results: list[TrialResult] = []
    with contextlib.suppress(StoreMissingError), SQLStore(store, create=False) as opened:
        results = opened.results(found)
    watch = Stopwatch()
    cost = estimate(found, results, workers=workers, threads=threads, stopwatch=watch)
    _out(plan_text(found, cost, store))
    if len(found.arms) > 1:
        seen = spread or paired_spread(found, results)
        table = prospects(found, results, seen, workers=workers, threads=threads, stopwatch=watch)
        _out("\n" + prospects_text(found, table, seen, "as given" if spread else "in the store"))


@app.command()
def bench(
    study: Annotated[str, typer.Argument(metavar="[STUDY]", help="Whose first arm is timed.")] = "paper",
    assignments: SetOption = None,
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine: a training step by the plain and the fast path, beside its matrix products alone."""
    from fairtrial.report import costs  # noqa: PLC0415
    from fairtrial.workload import bench as benching  # noqa: PLC0415

    found = lookup.to_run(study, assignments or [], [])
    measured = benching.bench(found, threads=threads or 1)
    _out(costs.bench_json(measured) if as_json else costs.bench_text(measured))


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
        _out(f"no studies in {store} yet")
    _out(f"studies that ship with fairtrial: {', '.join(lookup.shipped())}")


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="cifar10 or digits.")],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder or archive to read instead of downloading.")
    ] = None,
) -> None:
    """Fetch a data set, verify it, and say where it lies."""
    from fairtrial.workload import data as datasets  # noqa: PLC0415

    with DownloadBar(_console()) as bar:
        fetched = datasets.fetch(name, source=source, progress=bar)
    there = "is here already, unchanged" if fetched.cached else f"decoded from {fetched.origin}"
    _out(f"{fetched.name}: {there}\n  in {fetched.path}, {fetched.bytes / 1e6:.0f} MB\n  SHA-256 {fetched.digest}")


def _train(training: "partial[conductor.StudyRun]", store: str, folder: Path | None) -> conductor.StudyRun:
    commit = lookup.git_commit(folder) if folder else None
    with SQLStore(store) as opened, LiveWatcher(_console()) as watcher:
        return training(store=opened, watcher=watcher, git_commit=commit)


def _results(study: str, assignments: list[str] | None, store: str) -> tuple[Study, list[TrialResult]]:
    with SQLStore(store, create=False) as opened:
        found = lookup.to_read(study, assignments or [], opened.studies())
        return found, opened.results(found)


def _stored(store: str) -> list[StoredStudy]:
    try:
        with SQLStore(store, create=False) as opened:
            return opened.studies()
    except StoreMissingError:
        return []


def _print_table(study: Study, results: Sequence[TrialResult], form: TableFormat = TableFormat.TEXT) -> None:
    from fairtrial.evidence.summary import summarise  # noqa: PLC0415
    from fairtrial.report import tables  # noqa: PLC0415

    screen = Console()
    text = tables.table(summarise(study, results), form.value, width=screen.width, color=screen.is_terminal)
    _out(text.rstrip("\n"))


def _print_verdict(
    study: Study,
    results: Sequence[TrialResult],
    form: EvidenceFormat = EvidenceFormat.TEXT,
    metric: str | None = None,
) -> dict[str, str]:
    """Print verdicts, and return why comparisons were refused, by arm."""
    from fairtrial.evidence.comparison import compare  # noqa: PLC0415
    from fairtrial.evidence.split import split_noise  # noqa: PLC0415
    from fairtrial.report.verdicts import describe  # noqa: PLC0415

    screen = Console()
    found = compare(study, results, metric=metric)
    noise = split_noise(study, results, metric=metric)
    text = describe(found, form.value, noise=noise, width=screen.width, color=screen.is_terminal)
    _out(text.rstrip("\n"))
    return found.refused


def _how_far(study: StoredStudy) -> str:
    """Write how far a study is: ``7 of 10 trials, 1 diverged, 1 interrupted or running``."""
    ended = sum(study.outcomes.values())
    sequential = isinstance(parse_toml(study.toml).get("seeds"), dict)
    parts = [f"{ended} of {'at most ' if sequential else ''}{study.trials} trials"]
    parts += [f"{n} {outcome}" for outcome, n in study.outcomes.items() if n and outcome is not Outcome.FINISHED]
    parts += [f"{study.started} interrupted or running"] if study.started else []
    return ", ".join(parts)


def _command(verb: str, study: str, assignments: list[str] | None, store: str, **options: int | str | None) -> str:
    """Write the command line that does something with the same study in the same store."""
    words = ["fairtrial", verb, study]
    words += [word for assignment in assignments or [] for word in ("--set", assignment)]
    words += ["--store", _without_password(store)] if store != DEFAULT_STORE else []
    words += [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
    return shlex.join(words)


def _without_password(store: str) -> str:
    """Write a database URL so that it can be shown."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", store)


def _console() -> Console:
    """Standard error, where everything goes that is not the answer itself."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def _out(text: str) -> None:
    print(text)  # noqa: T201


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def _complain(message: str) -> None:
    _say(f"fairtrial: {message}")
