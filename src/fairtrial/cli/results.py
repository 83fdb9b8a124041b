"""Commands that show and write what was recorded."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from fairtrial.cli.options import (
    DEFAULT_STORE,
    EvidenceFormat,
    ExportFormat,
    SetOption,
    StoreOption,
    StudyArgument,
    TableFormat,
)
from fairtrial.cli.stored import read_results
from fairtrial.cli.terminal import complain, out
from fairtrial.errors import ReportError
from fairtrial.report.words import count
from fairtrial.spec import Study
from fairtrial.trial import TrialResult, digest_results


def table(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[TableFormat, typer.Option("--format", help="How to write it.")] = TableFormat.TEXT,
) -> None:
    """Print what was measured: the paper's Table 1, with mean and spread over seeds."""
    found, results = read_results(study, assignments, store)
    print_table(found, results, form)


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
    found, results = read_results(study, assignments, store)
    if refused := print_verdict(found, results, form, metric):
        complain(f"{count(len(refused), 'comparison')} refused: {next(iter(refused.values()))}")
        raise typer.Exit(1)


def claims(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[EvidenceFormat, typer.Option("--format", help="How to write it.")] = EvidenceFormat.TEXT,
) -> None:
    """Say of each claim of the study whether the records support it, contradict it, or leave it undecided."""
    from fairtrial.report.views import View  # noqa: PLC0415
    from fairtrial.stats.claims import check_claims  # noqa: PLC0415

    found, results = read_results(study, assignments, store)
    screen = Console()
    tested = View(check_claims(found, results))
    out(tested.write(form.value, width=screen.width, color=screen.is_terminal).rstrip("\n"))


def plot(
    study: StudyArgument,
    assignments: SetOption = None,
    store: StoreOption = DEFAULT_STORE,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; by default figures/NAME-HASH beside where you are.")
    ] = None,
) -> None:
    """Draw the charts of a study, as PNG, SVG and PDF."""
    from fairtrial.report import charts  # noqa: PLC0415

    found, results = read_results(study, assignments, store)
    target = folder or Path("figures") / found.label.replace("@", "-")
    for figure in charts.draw((), found, results):
        for path in charts.write(figure, target):
            out(str(path))


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
    found, results = read_results(study, assignments, store)
    content = exporting.export(found, results, form.value, out)
    if out is None:
        sys.stdout.buffer.write(content)


def digest_study(study: StudyArgument, assignments: SetOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Print one digest of all results but times and machines: equal where two runs gave the same to the bit."""
    found, results = read_results(study, assignments, store)
    out(f"{digest_results(results)}  {found.label}")


def print_table(study: Study, results: Sequence[TrialResult], form: TableFormat = TableFormat.TEXT) -> None:
    """Print the table of a study."""
    from fairtrial.report.views import View  # noqa: PLC0415
    from fairtrial.stats.summary import summarize  # noqa: PLC0415

    screen = Console()
    text = View(summarize(study, results)).write(form.value, width=screen.width, color=screen.is_terminal)
    out(text.rstrip("\n"))


def print_verdict(
    study: Study,
    results: Sequence[TrialResult],
    form: EvidenceFormat = EvidenceFormat.TEXT,
    metric: str | None = None,
) -> dict[str, str]:
    """Print verdicts, and return why comparisons were refused, by arm."""
    from fairtrial.report.views import View  # noqa: PLC0415
    from fairtrial.stats.comparison import compare  # noqa: PLC0415
    from fairtrial.stats.noise import split_noise  # noqa: PLC0415

    screen = Console()
    found = compare(study, results, metric=metric)
    noise = split_noise(study, results, metric=metric)
    text = View(found, noise).write(form.value, width=screen.width, color=screen.is_terminal)
    out(text.rstrip("\n"))
    return found.refused
