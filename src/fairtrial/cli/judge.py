"""Commands about runs that were made elsewhere."""

from typing import Annotated, Literal

import typer

from fairtrial import judging
from fairtrial.cli.results import TextFormat, print_view

app = typer.Typer()

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="A CSV, Parquet or JSON lines file, or what another importer reads; see docs/judging.md."
    ),
]
ArmOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="The column with the arms; of several, each combination is an arm: a,b."),
]
SeedOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column with the seeds. Without it, runs are not paired.")
]
MeasureOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A column with one value for each run; with --epoch, best_NAME, final_NAME or mean_lastK_NAME of a "
        "column NAME.",
    ),
]
ReferenceOption = Annotated[str | None, typer.Option(metavar="ARM", help="The arm that the others are compared with.")]
MarginOption = Annotated[
    float | None,
    typer.Option(metavar="SIZE", help="Differences up to this do not matter, in the measure's own unit."),
]
EpochOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column that counts epochs or steps within a run.")
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="The column with repeated measurements of a run, such as episodes or folds, whose mean counts; rows if "
        "each row is one.",
    ),
]
WideOption = Annotated[
    str | None,
    typer.Option(metavar="COLUMNS", help="Instead of --arm: columns that are an arm each, with a row for each seed."),
]
DirectionOption = Annotated[
    Literal["higher", "lower"] | None,
    typer.Option(help="Which way is better, if the measure's name does not say."),
]
UnitOption = Annotated[
    Literal["fraction", "percent", "seconds", "plain"] | None,
    typer.Option(help="The measure's unit, if its name does not say."),
]


@app.command()
def judge(
    source: SourceArgument,
    arm: ArmOption = None,
    seed: SeedOption = None,
    measure: MeasureOption = None,
    *,
    reference: ReferenceOption = None,
    margin: MarginOption = None,
    epoch: EpochOption = None,
    group: GroupOption = None,
    wide: WideOption = None,
    direction: DirectionOption = None,
    unit: UnitOption = None,
    form: TextFormat = "text",
) -> None:
    """Judge runs that were made elsewhere: is a difference real, or luck?

    Each arm is better, worse, equivalent (within the margin) or undecided.
    """
    view = judging.judge_runs(
        source,
        arm=arm,
        seed=seed,
        measure=measure,
        reference=reference,
        margin=margin,
        epoch=epoch,
        group=group,
        wide=wide,
        direction=direction,
        unit=unit,
    )
    print_view(view, form)
