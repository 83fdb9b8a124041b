"""Commands that list studies and print one."""

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fairtrial import api, loading
from fairtrial.cli.options import JSONOption, OverridesOption, StoreOption, StudyArgument
from fairtrial.cli.output import console, out, out_document, say
from fairtrial.errors import StoreDamagedError
from fairtrial.progress import progress_text
from fairtrial.spec import parse_toml
from fairtrial.store.url import DEFAULT_STORE, redact_url
from fairtrial.templates import TEMPLATES, write_template
from fairtrial.text import one_line, visible


def show(study: StudyArgument, overrides: OverridesOption = None, store: StoreOption = DEFAULT_STORE) -> None:
    """Print a study as TOML, with every default written out."""
    toml = api.load(study, overrides or [], store=store).to_toml()
    out_document(visible(toml).encode())  # escapes as TOML has them, so the study stays the same


def explain(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Steps of an epoch, where the training loop or the data are your own."),
    ] = None,
    as_json: JSONOption = False,
) -> None:
    """Explain what the numbers of each arm's optimizer mean.

    Horizons of averages in steps, bias correction over the run, and epsilon in torch's and in Keras's convention.
    """
    from fairtrial.explain import explain as explain_study  # noqa: PLC0415
    from fairtrial.report.explained import explanation_json, explanation_text  # noqa: PLC0415

    loaded = api.load(study, overrides or [], store=store)
    explanations = explain_study(loaded, steps)
    out(explanation_json(loaded, explanations) if as_json else explanation_text(loaded, explanations, console().width))


def list_studies(store: StoreOption = DEFAULT_STORE) -> None:
    """List the studies in the store and how far each one is."""
    stored = api.list_studies(store)
    grid = Table("study", "last run (UTC)", "done", box=None, pad_edge=False, header_style="bold")
    for study in stored:
        sequential = isinstance(parse_toml(study.toml).get("seeds"), dict)
        progress = progress_text(study.trials, study.outcomes, study.started, sequential=sequential)
        damaged = ", damaged" if study.damage else ""
        grid.add_row(Text(one_line(study.label)), f"{study.last_run:%Y-%m-%d %H:%M}", progress + damaged)
    if stored:
        Console(highlight=False, soft_wrap=True).print(grid)
    else:
        out(f"no studies in {redact_url(store)} yet")
    out(f"studies that ship with fairtrial: {', '.join(loading.shipped_studies())}")
    if damage := next((study.damage for study in stored if study.damage), ""):
        raise StoreDamagedError(f"the store {redact_url(store)} is damaged: {damage}")


def new(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="What you train with; without it, the kinds are listed.")
    ] = None,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where to write them; made if there is none.")
    ] = Path(),
) -> None:
    """Write a study and its training loop to start from; nothing is overwritten."""
    if kind is None:
        for name, template in TEMPLATES.items():
            out(f"{name:<14}{template.about}")
        return
    template = write_template(kind, folder)
    study, loop = (one_line(str(folder / name)) for name in template.files)
    out(f"wrote {study} and {loop}; next: fairtrial run {one_line(shlex.quote(str(folder / template.files[0])))}")
    if missing := template.missing:
        packages, are = " and ".join(missing), "is" if len(missing) == 1 else "are"
        say(f"{loop} needs {packages}, which {are} not installed: pip install {' '.join(missing)}")
