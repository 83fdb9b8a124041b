"""The command that shows what the optimizers of a study did."""

from typing import Annotated

import typer

from fairtrial import api
from fairtrial.cli.options import OverridesOption, StoreOption, StudyArgument
from fairtrial.cli.output import command_line, say
from fairtrial.cli.results import TableFormat, print_view
from fairtrial.store.url import DEFAULT_STORE

#: The charts of an x-ray.
CHARTS = ("xray_sqrt_vhat", "xray_epsilon", "xray_updates", "xray_layers", "xray_losses")


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
    runs = api.open_results(study, overrides or [], store=store)
    print_view(runs.xray(arm), form)
    if form == "text":
        say(f"figures: {command_line('plot', study, store)} {' '.join(CHARTS)}")
