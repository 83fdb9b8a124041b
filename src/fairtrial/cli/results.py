"""Commands that show or write results."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from fairtrial import api
from fairtrial.api import DEFAULT_STORE
from fairtrial.cli.options import OverridesOption, StoreOption, StudyArgument
from fairtrial.cli.output import complain, out
from fairtrial.errors import ReportError

if TYPE_CHECKING:
    from fairtrial.report.views import View


class TextFormat(StrEnum):
    """Formats of verdicts and claims."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"
    JSON = "json"


class TableFormat(StrEnum):
    """Formats of the table."""

    TEXT = "text"
    MARKDOWN = "markdown"
    LATEX = "latex"
    JSON = "json"
    CSV = "csv"


class ExportFormat(StrEnum):
    """Formats of epoch records."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


TableFormatOption = Annotated[TableFormat, typer.Option("--format", help="Output format.")]
TextFormatOption = Annotated[TextFormat, typer.Option("--format", help="Output format.")]


def table(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TableFormatOption = TableFormat.TEXT,
) -> None:
    """Print what was measured: mean and spread for each arm."""
    print_view(api.open_results(study, overrides or [], store=store).table(), form)


def verdict(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TextFormatOption = TextFormat.TEXT,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare this measure, which the study did not set beforehand.")
    ] = None,
) -> None:
    """Compare each arm with the reference.

    An arm is better, worse, equivalent (within the study's margin) or undecided.
    """
    view = api.open_results(study, overrides or [], store=store).verdict(metric)
    print_view(view, form)
    if refused := view.data.refused:
        comparisons = "1 comparison" if len(refused) == 1 else f"{len(refused)} comparisons"
        complain(f"{comparisons} refused: {next(iter(refused.values()))}")
        raise typer.Exit(1)


def claims(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: TextFormatOption = TextFormat.TEXT,
) -> None:
    """Test the study's claims.

    A claim is supported, contradicted or undecided.
    """
    print_view(api.open_results(study, overrides or [], store=store).claims(), form)


def failures(study: StudyArgument, overrides: OverridesOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Print the traceback of each failed trial."""
    for result in api.open_results(study, overrides or [], store=store).failures():
        out(f"{result.arm} seed {result.seed}: {result.detail.rstrip()}\n")


def plot(
    study: StudyArgument,
    charts: Annotated[
        list[str] | None, typer.Argument(metavar="[CHART]...", help="Which charts; by default all that have data.")
    ] = None,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; by default figures/NAME-HASH in the working folder.")
    ] = None,
) -> None:
    """Draw charts of a study as PNG, SVG and PDF."""
    from fairtrial.report.charts import write  # noqa: PLC0415  (loads Altair)

    found = api.open_results(study, overrides or [], store=store)
    target = folder or Path("figures") / found.study.label.replace("@", "-")
    for chart in found.plots(*(charts or [])):
        for path in write(chart, target):
            out(str(path))


def export(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[ExportFormat, typer.Option("--format", help="Output format.")] = ExportFormat.CSV,
    path: Annotated[Path | None, typer.Option("--out", help="Where to write; by default standard output.")] = None,
) -> None:
    """Write every epoch record."""
    if form is ExportFormat.PARQUET and path is None and sys.stdout.isatty():
        raise ReportError("--format parquet: writes bytes, not text; name a file with --out")
    content = api.open_results(study, overrides or [], store=store).records(form.value, path)
    if path is None:
        sys.stdout.buffer.write(content)


def digest_study(study: StudyArgument, overrides: OverridesOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Print a digest of the results.

    It leaves out times and machines, and is equal if two runs gave the same numbers to the bit.
    """
    found = api.open_results(study, overrides or [], store=store)
    out(f"{found.digest()}  {found.study.label}")


def print_view(view: "View[Any]", form: str = "text") -> None:
    """Print results in a format; text fits the screen."""
    screen = Console()
    out(view.write(form, width=screen.width, color=screen.is_terminal).rstrip("\n"))
