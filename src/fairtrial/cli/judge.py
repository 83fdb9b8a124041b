"""Commands about runs that were made elsewhere."""

from typing import Annotated, Literal

import typer

from fairtrial import api, judging
from fairtrial.api import DEFAULT_STORE
from fairtrial.cli.options import StoreOption
from fairtrial.cli.output import command_line, say
from fairtrial.cli.results import TextFormat, print_view
from fairtrial.errors import RunsError

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


@app.command("import")
def import_(
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
    study: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="A study of your own whose trials these runs are; run trains the others."),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Add runs that were made elsewhere to a store: as a study, or as trials of a study of your own (--study).

    All of them are added, or none.
    """
    if study is None:
        found = judging.import_runs(
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
            store=store,
        )
        say(f"{_progress(found)} are in the store: {command_line('verdict', found.study.label, store)}")
        return
    given = {"--reference": reference, "--margin": margin, "--direction": direction, "--unit": unit, "--wide": wide}
    given["--group"] = group
    for option, value in given.items():
        if value is not None:
            raise RunsError(f"{option}: is set by the study, with --study {study}; leave it out")
    own = api.load(study, store=store)
    found = judging.extend_study(own, source, store=store, arm=arm, seed=seed, epoch=epoch, measure=measure)
    say(f"{_progress(found)} are in the store; to train the others: {command_line('run', study, store)}")


def _progress(found: api.StudyResults) -> str:
    return repr(found).removeprefix("<StudyResults ").removesuffix(">")
