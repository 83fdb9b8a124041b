"""Commands that print or write results."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from fairtrial import api, tasks
from fairtrial.cli.options import JSONOption, OverridesOption, StoreOption, StudyArgument
from fairtrial.cli.output import command_line, complain, out, out_document, run_again, run_with_seeds, say, screen
from fairtrial.errors import ReportError
from fairtrial.spec import Study
from fairtrial.store.url import DEFAULT_STORE

if TYPE_CHECKING:
    from fairtrial.report.views import View
    from fairtrial.stats.comparison import StudyVerdict

_FORMAT = typer.Option("--format", help="Output format.")
TextFormat = Annotated[Literal["text", "markdown", "latex", "json"], _FORMAT]
TableFormat = Annotated[Literal["text", "markdown", "latex", "json", "csv"], _FORMAT]
ExportFormat = Annotated[Literal["csv", "parquet", "json"], _FORMAT]
#: The charts of an x-ray.
XRAY_CHARTS = ("xray_sqrt_vhat", "xray_epsilon", "xray_updates", "xray_layers", "xray_losses")
#: A study as the command line names it: name or file, overrides, store.
Named: TypeAlias = tuple[str, Sequence[str], str]


def table(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TableFormat = "text",
) -> None:
    """Print the results: mean and spread for each arm."""
    print_view(api.open_results(study, overrides or [], store=store).table(), form)


def verdict(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TextFormat = "text",
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare another measure than the study set beforehand.")
    ] = None,
) -> None:
    """Compare each arm with the reference.

    An arm is better, worse, equivalent (within the study's margin) or undecided. Of a file with tasks, this is over all
    tasks and on each.
    """
    over_tasks = None if metric else tasks.open_tasks(study, overrides or [], store=store)
    found = over_tasks or api.open_results(study, overrides or [], store=store)
    view = found.verdict() if isinstance(found, tasks.TaskResults) else found.verdict(metric)
    print_view(view, form)
    if metric is None:
        say_how_to_go_on((study, overrides or [], store), found.study, view.data)
    if refused := view.data.refused:
        comparisons = "1 comparison" if len(refused) == 1 else f"{len(refused)} comparisons"
        complain(f"{comparisons} refused: {next(iter(refused.values()))}")
        raise typer.Exit(1)


def claims(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TextFormat = "text",
) -> None:
    """Test the study's claims.

    A claim is supported, contradicted or undecided.
    """
    print_view(api.open_results(study, overrides or [], store=store).claims(), form)


def xray(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TableFormat = "text",
    arm: Annotated[
        str | None, typer.Option(metavar="ARM", help="One arm, at all its moments; by default all arms, at a few.")
    ] = None,
) -> None:
    """Show what each arm's optimizer did: how much epsilon and the betas mattered, in words and tables.

    The numbers come from snapshots that are taken during training and change none of its results.
    """
    print_view(api.open_results(study, overrides or [], store=store).xray(arm), form)
    if form == "text":
        say(f"figures: {command_line('plot', study, store)} {' '.join(XRAY_CHARTS)}")


def failures(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JSONOption = False,
) -> None:
    """Print the tracebacks of failed trials, and how all other runs without a comparable number were lost."""
    from fairtrial.report.export import rows_json  # noqa: PLC0415
    from fairtrial.report.losses import loss_lines, loss_rows  # noqa: PLC0415  (loads NumPy)

    found = api.open_results(study, overrides or [], store=store)
    if as_json:
        out(rows_json(loss_rows(found.study, found.results)).rstrip())
        return
    lines = list(loss_lines(found.study, found.results))
    for line in lines:
        out(f"{line}\n")
    if not lines:
        out(f"{found.study.label}: no run was lost: none failed or diverged, and each has the study's measure")


def plot(
    study: StudyArgument,
    charts: Annotated[
        list[str] | None, typer.Argument(metavar="CHART", help="The charts; by default all that have data.")
    ] = None,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    *,
    folder: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where to write; by default figures/NAME-HASH."),
    ] = None,
    measure: Annotated[
        str | None,
        typer.Option("--measure", "--metric", metavar="NAME", help="Draw this measure or metric, not the study's."),
    ] = None,
    arms: Annotated[
        list[str] | None, typer.Option("--arm", metavar="ARM", help="Draw this arm, by name or label; repeatable.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Width and height of a plot in pixels, such as 600x400.")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="The title of the chart.")] = None,
    log: Annotated[bool, typer.Option("--log", help="A logarithmic axis.")] = False,
) -> None:
    """Draw charts of a study as PNG, SVG and PDF.

    Without a name, every chart is drawn that has data and takes the options. Of a file with tasks, it is the verdict
    plot over all tasks and on each.
    """
    from fairtrial.report.charts import write  # noqa: PLC0415  (loads Altair)

    options: dict[str, Any] = {"measure": measure, "arms": arms or (), "size": size, "title": title, "log": log}
    plain = (charts or ["differences"]) == ["differences"] and not any(options.values())
    over_tasks = tasks.open_tasks(study, overrides or [], store=store) if plain else None
    if over_tasks:
        label, figures = f"{over_tasks.name}-tasks", [over_tasks.plot()]
    else:
        results = api.open_results(study, overrides or [], store=store)
        label, figures = results.study.label.replace("@", "-"), [*results.plots(*(charts or []), **options)]
    for figure in figures:
        for path in write(figure, folder or Path("figures") / label):
            out(str(path))


def export(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    *,
    form: ExportFormat = "csv",
    path: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write; by default standard output.")
    ] = None,
    rows: Annotated[
        Literal["epochs", "trials", "snapshots"],
        typer.Option(
            "--rows",
            help="A row per epoch; per trial with its outcome, settings, machine and code; or per part of a snapshot.",
        ),
    ] = "epochs",
) -> None:
    """Write every epoch record, every trial, or every snapshot."""
    if form == "parquet" and path is None and sys.stdout.isatty():
        raise ReportError("--format parquet: writes bytes, not text; name a file with --out")
    content = api.open_results(study, overrides or [], store=store).records(form, path, rows)
    if path is None:
        out_document(content)


def digest_study(study: StudyArgument, overrides: OverridesOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Print a digest of the results.

    The digest leaves out times and machines; two runs have the same digest if their numbers are equal to the bit.
    """
    results = api.open_results(study, overrides or [], store=store)
    out(f"{results.digest()}  {results.study.label}")


def say_how_to_go_on(named: Named, study: Study, verdict: "StudyVerdict") -> None:
    """Print the one command that can give undecided arms a verdict: with more seeds, or with fresh ones.

    Args:
        named: the study's name, overrides and store on the command line.
        study: it, or one of its tasks.
        verdict: of all of it.
    """
    undecided = [row for row in verdict.comparisons if row.more_seeds]
    more = [row.more_seeds for row in undecided if row.more_seeds and row.arm not in verdict.spent]
    one_look = study.evidence.final or study.evidence.unpaired
    if more and not study.sequential and not one_look and not study.noise.crossed and not study.noise.listed:
        seeds, horizon = study.seeds, verdict.looks[-1]
        total = seeds + max(more)
        line = run_with_seeds(*named, seeds + 1, horizon if total <= horizon else seeds + 2 * max(more))
        say(f"to go on until it is settled, which may take about {total} seeds in all: {line}")
    elif verdict.spent:
        say(f"for a test on fresh seeds, of the arm that leads: {run_again(*named, '--confirm')}")


def print_view(view: "View[Any]", form: str = "text") -> None:
    """Print results in a format; text fits the screen."""
    print(view.write(form, **screen()), end="")  # noqa: T201  (colors are escape codes, and views hold no others)
