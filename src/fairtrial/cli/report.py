"""The command that writes a report."""

from pathlib import Path
from typing import Annotated

import typer

from fairtrial import api
from fairtrial.cli.options import OverridesOption, StoreOption, StudyArgument
from fairtrial.cli.output import out
from fairtrial.store.url import DEFAULT_STORE


def report(
    study: StudyArgument,
    overrides: OverridesOption = None,
    store: StoreOption = DEFAULT_STORE,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Where to write; by default NAME-HASH-report. A folder that holds other files is refused.",
        ),
    ] = None,
) -> None:
    """Write a report of a study: a page that needs no network, with its figures, tables and data as files.

    The study may be unfinished; the report then says so.
    """
    from fairtrial.report.page.folder import check_folder, folder_name  # noqa: PLC0415  (loads Altair)

    if folder is not None:
        check_folder(folder)
    found = api.open_results(study, overrides or [], store=store)
    written = found.report(folder or Path(folder_name(found.study)))
    out(str(written[0]))
